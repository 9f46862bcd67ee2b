"""What a batch is made of: the files of a folder or zip, or the rows of a Parquet or CSV table, from any place on."""

import csv
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from serve.pictures import file_bytes
from sslbt.data.files import File, OnDisk, count, fingerprint, iterate
from sslbt.data.slices import first_line
from sslbt.errors import UserError

FOLDS = "cvind.mat"  # the dataset's folds, no slice
IMAGE, PATHS = "image", ("path", "file")
AT_ONCE = {True: 16, False: 4096}  # rows of a Parquet file in memory, with and without pictures
TEXT = pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view
BYTES = pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view
BUFFER = 2**20  # bytes read at once of each column; pyarrow's default is the whole row group


class Input(Protocol):
    """Pictures to score, always in the same order."""

    @property
    def fingerprint(self) -> str:
        """Changes with the pictures."""

    @property
    def total(self) -> int | None:
        """How many files there are, where that is known."""

    def start_at(self, done: int) -> Iterator[File]:
        """Name and reader of every file but the first `done`; each reader works in any thread, at any time.

        Raises:
            UserError: the input can't be read further.
        """


@dataclass(frozen=True)
class Held:
    """Reads what is in memory already."""

    size: int  # bytes
    read: Callable[[], bytes]

    def __call__(self) -> bytes:
        return self.read()


def open_input(source: Path) -> Input:
    """A folder, a zip (zips inside it included), one picture, or a table of pictures.

    A table is Parquet with a column `image` (a file's bytes, or its base64) and maybe names in `path` or `file`, or it
    is Parquet or CSV with paths in `path` or `file`, relative to the table's folder.

    Raises:
        UserError: the source is missing or unreadable, or a table without such a column.
    """
    if source.suffix.lower() == ".csv" and source.is_file():
        return Paths(source, lambda: _csv_paths(source))
    if source.suffix.lower() == ".parquet" and source.is_file():
        try:
            with _readable(source):
                columns = set(pq.read_schema(source).names)
        except UnicodeDecodeError as error:
            raise UserError(f"{source}: can't be read (a column's name is no text); write it again") from error
        named = next((name for name in PATHS if name in columns), "")
        if IMAGE in columns:
            return Images(source, named)
        if named:
            return Paths(source, lambda: (_path(row[named]) for row in _rows(source, [named], 0)))
        raise UserError(
            f"{source}: has no column {IMAGE} (files' bytes) nor path or file (paths); rename the one it is"
        )
    return Files(source)


class Files:
    """Those of a folder or zip, or one picture."""

    def __init__(self, source: Path) -> None:
        self.source, self.fingerprint, self.total = source, fingerprint(source), count(source)
        if self.total is not None:
            self.total -= (source / FOLDS).is_file()

    def start_at(self, done: int) -> Iterator[File]:
        slices = (file for file in iterate(self.source) if Path(file[0]).name != FOLDS)
        for name, reader in islice(slices, done, None):
            # A zip inside a zip is closed when the walk leaves it.
            yield name, reader if isinstance(reader, OnDisk) else _read_now(reader)


class Paths:
    """Files that a table lists."""

    def __init__(self, source: Path, listed: Callable[[], Iterator[str]]) -> None:
        self.source, self.listed = source, listed
        seen = hashlib.sha256(fingerprint(source).encode())
        self.total = 0
        for path in listed():
            seen.update(os.fsencode(f"{path}|{_state(source.parent / path)}\n"))
            self.total += 1
        self.fingerprint = seen.hexdigest()[:16]

    def start_at(self, done: int) -> Iterator[File]:
        for number, path in enumerate(islice(self.listed(), done, None), done):
            yield _shown(path) or f"row {number}", _Listed(self.source.parent, path, number)


class Images:
    """The cells of a Parquet file's column `image`."""

    def __init__(self, source: Path, named: str) -> None:
        self.source, self.named, self.fingerprint = source, named, fingerprint(source)
        with _readable(source), pq.ParquetFile(source) as file:
            kind, self.total = file.schema_arrow.field(IMAGE).type, file.metadata.num_rows
        if not any(fits(kind) for fits in (*TEXT, *BYTES)):
            raise UserError(
                f"{source}: its column {IMAGE} is of type {kind}; make it each file's bytes or their base64"
            )

    def start_at(self, done: int) -> Iterator[File]:
        columns = [IMAGE, self.named] if self.named else [IMAGE]
        for number, row in enumerate(_rows(self.source, columns, done), done):
            name = _shown(_path(row.get(self.named))) or f"row {number}"
            yield name, _cell(row[IMAGE], name)


@dataclass(frozen=True)
class _Listed:
    """Reads the file of a table's row."""

    folder: Path
    path: str
    row: int

    def __call__(self) -> bytes:
        if not self.path:
            raise UserError(f"row {self.row}: names no file")
        place = self.folder / self.path
        if not place.is_file():
            raise UserError(f"{_shown(self.path)}: no such file in {self.folder.resolve()}, where the table is")
        return OnDisk(place)()


def _csv_paths(source: Path) -> Iterator[str]:
    """The file of each row; empty where it names none."""
    try:
        with _readable(source), open(source, encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            header = [name.strip() for name in next(rows, [])]
            named = next((name for name in PATHS if name in header), None)
            if named is None:
                raise UserError(f"{source}: its first line names no column path or file; add a line of names")
            place = header.index(named)
            yield from (row[place].strip() if len(row) > place else "" for row in rows if row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{source}: no CSV in UTF-8 ({first_line(error)}); save it as that") from error


def _rows(source: Path, columns: list[str], done: int) -> Iterator[dict[str, object]]:
    """The rows of a Parquet file but the first `done`, a few in memory at a time."""
    with _readable(source), pq.ParquetFile(source, buffer_size=BUFFER, pre_buffer=False) as file:
        group = 0
        while group < file.num_row_groups and done >= file.metadata.row_group(group).num_rows:
            done -= file.metadata.row_group(group).num_rows
            group += 1
        groups = range(group, file.num_row_groups)
        for batch in file.iter_batches(AT_ONCE[IMAGE in columns], row_groups=groups, columns=columns):
            skipped, done = min(done, batch.num_rows), max(0, done - batch.num_rows)
            cells = (_cells(batch.column(name)) for name in columns)
            yield from (dict(zip(columns, row, strict=True)) for row in islice(zip(*cells, strict=True), skipped, None))


def _cells(column: pa.Array) -> list[object]:
    """As Python has them; text as bytes, since Parquet holds it unchecked."""
    if any(fits(column.type) for fits in TEXT):
        column = column.cast(pa.large_string()).cast(pa.large_binary())
    return column.to_pylist()


def _path(cell: object) -> str:
    """A path as the system takes it; empty where there is none."""
    return os.fsdecode(cell) if isinstance(cell, bytes) else "" if cell is None else str(cell)


def _shown(path: str) -> str:
    """The same for a table, which takes UTF-8 only."""
    return path.encode("utf-8", "backslashreplace").decode()


def _state(path: Path) -> str:
    try:
        status = path.stat()
    except (OSError, ValueError):  # a NUL in its name
        return "missing"
    return f"{status.st_size}|{status.st_mtime_ns}"


def _cell(value: object, name: str) -> Held:
    if not isinstance(value, bytes):
        return _failing(UserError(f"{name}: holds no picture"))
    return Held(len(value), lambda: file_bytes(value, name))


def _read_now(reader: Callable[[], bytes]) -> Held:
    try:
        data = reader()
    except UserError as error:
        return _failing(error)
    return Held(len(data), lambda: data)


def _failing(error: UserError) -> Held:
    def fail() -> bytes:
        raise error

    return Held(0, fail)


@contextmanager
def _readable(source: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        said = getattr(error, "strerror", "") or first_line(error)
        raise UserError(f"{source}: can't be read ({said}); check the file and its mode, or write it again") from error
