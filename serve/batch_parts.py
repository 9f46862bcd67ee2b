"""The rows of a table that is being made, kept in parts beside it: whoever is killed goes on after the last of them."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from sslbt.errors import UserError
from sslbt.terminal import say

MANIFEST = "manifest.json"
AT_ONCE = 32  # parts in memory while they are joined
WRITERS = {".csv": pyarrow.csv.CSVWriter, ".parquet": pq.ParquetWriter}


class Parts:
    """The folder `<output>.parts`, for one process at a time.

    A part is a Parquet file `FIRST-END.parquet`, the rows of the input's files FIRST to END - 1. It appears whole or
    not at all, and after all before it, so that the unbroken row of parts from 0 is what is done, whenever a process
    is killed.

    Args:
        output: the table to make.
        schema: columns of the parts.
        facts: what the rows come from, name by name; where one or the schema differs from what it was, all begins anew.

    Raises:
        UserError: another process makes this table.
        OSError: the folder can't be written.
    """

    def __init__(self, output: Path, schema: pa.Schema, facts: dict[str, str]) -> None:
        self.output, self.schema = output, schema
        self.folder = output.with_name(f"{output.name}.parts")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(self.folder / "lock")
        try:
            self.lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(f"{output}: another process is making it; wait, or give another output") from error
        try:
            self._keep_what_fits(facts | {"columns": schema.to_string()})
        except BaseException:
            self.lock.release()
            raise

    def _keep_what_fits(self, facts: dict[str, str]) -> None:
        manifest = self.folder / MANIFEST
        before: dict[str, str] = {}
        with suppress(FileNotFoundError, ValueError):
            before = json.loads(manifest.read_text())
        changed = [name for name, value in facts.items() if before.get(name) != value]
        if changed and before:
            say(f"{self.folder}: the {' and the '.join(changed)} changed since; beginning anew")
        if changed:
            for path in self.folder.glob("*.parquet"):  # before the manifest: it must never name others' parts
                path.unlink()
            _write_whole(manifest, lambda file: file.write(json.dumps(facts).encode()))
        self.done = max((end for _, end in self._whole()), default=0)

    def _whole(self) -> Iterator[tuple[Path, int]]:
        """The unbroken row of parts, and where each ends."""
        ends = {}
        for path in self.folder.glob("*.parquet"):
            first, end = map(int, path.stem.split("-"))
            ends[first] = path, end
        place = 0
        while place in ends:
            path, place = ends[place]
            yield path, place

    def add(self, rows: list[dict], end: int) -> None:
        """Keep the rows of all files up to `end`, which is not among them.

        Raises:
            OSError: the disk is full, say; earlier parts are as they were.
        """
        table = pa.Table.from_pylist(rows, self.schema)
        path = self.folder / f"{self.done:09}-{end:09}.parquet"
        _write_whole(path, lambda file: pq.write_table(table, file))
        self.done = end

    def join(self, columns: list[str], see: Callable[[pa.Table], None]) -> None:
        """Write the output from these columns of all parts, a few in memory at a time; it appears when complete.

        Args:
            columns: of the output.
            see: is shown all rows with all columns, in order.

        Raises:
            OSError: it can't be written; the parts are as they were.
            UserError: a part was damaged after it was written.
        """
        schema = pa.schema([self.schema.field(name) for name in columns])
        partial = self.output.with_name(f".{self.output.name}.partial")
        paths = (path for path, _ in self._whole())
        try:
            with open(partial, "wb") as file:
                with WRITERS[self.output.suffix.lower()](file, schema) as writer:
                    while some := list(islice(paths, AT_ONCE)):
                        table = pa.concat_tables(map(self._read, some))
                        writer.write_table(table.select(columns))
                        see(table)
                _to_disk(file)
            os.replace(partial, self.output)
            _folder_to_disk(self.output.parent)
        finally:
            partial.unlink(missing_ok=True)

    def _read(self, path: Path) -> pa.Table:
        try:
            return pq.read_table(path, schema=self.schema)
        except pa.ArrowInvalid as error:
            raise UserError(f"{path}: damaged; remove {self.folder} and give the command again") from error

    def close(self) -> None:
        """Let others have the folder."""
        self.lock.release()

    def remove(self) -> None:
        """Leave no trace."""
        shutil.rmtree(self.folder, ignore_errors=True)  # still ours: nobody's new parts are among them
        self.close()


def _write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    partial = path.with_name("partial")
    with open(partial, "wb") as file:
        write(file)
        _to_disk(file)
    os.replace(partial, path)
    _folder_to_disk(path.parent)


def _to_disk(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _folder_to_disk(folder: Path) -> None:
    """A new name is safe only once its folder is (not on Windows, where folders can't be opened)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
