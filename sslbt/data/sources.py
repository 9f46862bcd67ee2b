"""The files of a data source: a folder, one file, or a zip with zips inside (as figshare packs them).

Torch-free, so that the scoring service can use it. Nothing is ever unpacked to disk.
"""

import hashlib
import io
import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sslbt.data.formats import SUFFIXES
from sslbt.errors import UserError

MAX_FILE = 512 * 2**20  # one picture, unpacked
MAX_INNER_ZIP = 4 * 2**30  # held in memory while it is read
MAX_DEPTH = 2

File = tuple[str, Callable[[], bytes]]


def iterate(source: Path) -> Iterator[File]:
    """Name and reader of every file that may hold a slice, in natural order (2.mat before 10.mat).

    Raises:
        UserError: the source is missing or unreadable, a zip is damaged or beyond the limits, or nothing is in it.
    """
    with _explained(source):
        _check_present(source)
        if source.is_dir():
            files = [(path.relative_to(source).as_posix(), _reader(path)) for path in _walk(source)]
            yield from _found(iter(sorted(files, key=lambda file: natural(file[0]))), source)
        elif source.suffix.lower() == ".zip":
            with _open_zip(source, str(source)) as archive:
                yield from _found(_members(archive, str(source), 1), source)
        elif _wanted(source.name):
            yield source.name, _reader(source)
        else:
            raise UserError(f"{source}: neither a folder, a zip, nor one of {', '.join(SUFFIXES)}")


def fingerprint(source: Path) -> str:
    """Changes with the source's place and when a file is added, removed, resized or written again; reads no content.

    Raises:
        UserError: the source is missing or unreadable.
    """
    with _explained(source):
        _check_present(source)
        seen = hashlib.sha256(os.fsencode(source.resolve()))
        for path in sorted(_walk(source)) if source.is_dir() else [source]:
            status = path.stat()
            seen.update(os.fsencode(f"{path.relative_to(source)}|{status.st_size}|{status.st_mtime_ns}\n"))
    return seen.hexdigest()[:16]


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sorting key that takes runs of digits as numbers; no two names have the same."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], name


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Whatever the system says against reading becomes one sentence."""
    try:
        yield
    except OSError as error:
        name = error.filename or path
        raise UserError(f"{name}: can't be read ({error.strerror or error}); check the file and its mode") from error


def _check_present(source: Path) -> None:
    if not source.exists():
        raise UserError(f"{source}: no such folder or file; give a folder of slices or the downloaded zip")


def _wanted(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and not Path(name).name.startswith(".")


def _walk(folder: Path) -> Iterator[Path]:
    """Every file that may hold a slice. A subfolder that can't be read is an error, not a gap in the data."""

    def stop(error: OSError) -> None:
        raise error

    for parent, _, names in os.walk(folder, onerror=stop):
        yield from (Path(parent, name) for name in names if _wanted(name))


def _reader(path: Path) -> Callable[[], bytes]:
    def read() -> bytes:
        with _explained(path):
            if path.stat().st_size > MAX_FILE:
                raise UserError(f"{path}: {path.stat().st_size} bytes; a slice of up to {MAX_FILE} bytes can be read")
            return path.read_bytes()

    return read


def _found(files: Iterator[File], source: Path) -> Iterator[File]:
    first = next(files, None)
    if first is None:
        raise UserError(f"{source}: holds no slice ({', '.join(SUFFIXES)}); is it the right folder or download?")
    yield first
    yield from files


def _open_zip(file: Path | io.BytesIO, where: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise UserError(f"{where}: damaged or not a zip ({error}); download it again") from error


def _members(archive: zipfile.ZipFile, where: str, depth: int) -> Iterator[File]:
    for member in sorted(archive.infolist(), key=lambda m: natural(m.filename)):
        if member.is_dir() or member.filename.startswith("__MACOSX/"):
            continue
        if _wanted(member.filename):
            yield member.filename, _unpacker(archive, member, where, MAX_FILE)
        elif member.filename.lower().endswith(".zip"):
            if depth == MAX_DEPTH:
                raise UserError(f"{where}: zips nested deeper than {MAX_DEPTH}; unpack it and give the folder")
            data = _unpacker(archive, member, where, MAX_INNER_ZIP)()
            inside = f"{where}/{member.filename}"
            with _open_zip(io.BytesIO(data), inside) as inner:
                yield from _members(inner, inside, depth + 1)


def _unpacker(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str, limit: int) -> Callable[[], bytes]:
    def read() -> bytes:
        if member.file_size > limit:
            raise UserError(f"{where}/{member.filename}: {member.file_size} bytes unpacked, more than {limit}")
        try:
            with archive.open(member) as stream:
                return stream.read(member.file_size)  # without a number it would unpack more, if the size is a lie
        except (zipfile.BadZipFile, RuntimeError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            raise UserError(f"{where}/{member.filename}: can't be unpacked ({error}); download it again") from error

    return read
