"""The files of a data source: a folder, one file, or a zip with zips inside (as figshare packs them).

Torch-free, so that the scoring service can use it. Nothing is ever unpacked to disk.
"""

import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
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
    if not source.exists():
        raise UserError(f"{source}: no such folder or file; give a folder of slices or the downloaded zip")
    try:
        if source.is_dir():
            files = [(p.relative_to(source).as_posix(), _reader(p)) for p in source.rglob("*") if _wanted(p.name)]
            yield from _found(iter(sorted(files, key=lambda f: natural(f[0]))), source)
        elif source.suffix.lower() == ".zip":
            with zipfile.ZipFile(source) as archive:
                yield from _found(_members(archive, str(source), 1), source)
        elif _wanted(source.name):
            yield source.name, _reader(source)
        else:
            raise UserError(f"{source}: neither a folder, a zip, nor one of {', '.join(SUFFIXES)}")
    except PermissionError as error:
        raise UserError(f"{error.filename or source}: no permission to read it; change its owner or mode") from error
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise UserError(f"{source}: damaged or not a zip ({error}); download it again") from error


def fingerprint(source: Path) -> str:
    """Changes whenever a file of the source is added, removed, resized or written again; reads no content."""
    if not source.exists():
        raise UserError(f"{source}: no such folder or file; give a folder of slices or the downloaded zip")
    paths = sorted(p for p in source.rglob("*") if _wanted(p.name)) if source.is_dir() else [source]
    seen = hashlib.sha256()
    for path in paths:
        status = path.stat()
        seen.update(f"{path.relative_to(source)}|{status.st_size}|{status.st_mtime_ns}\n".encode())
    return seen.hexdigest()[:16]


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sorting key that takes runs of digits as numbers."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"\d+|\D+", name)]


def _wanted(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and not Path(name).name.startswith(".")


def _reader(path: Path) -> Callable[[], bytes]:
    def read() -> bytes:
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


def _members(archive: zipfile.ZipFile, where: str, depth: int) -> Iterator[File]:
    for member in sorted(archive.infolist(), key=lambda m: natural(m.filename)):
        if _wanted(member.filename) and not member.filename.startswith("__MACOSX/"):
            yield member.filename, _unpacker(archive, member, where, MAX_FILE)
        elif member.filename.lower().endswith(".zip"):
            if depth == MAX_DEPTH:
                raise UserError(f"{where}: zips nested deeper than {MAX_DEPTH}; unpack it and give the folder")
            data = _unpacker(archive, member, where, MAX_INNER_ZIP)()
            with zipfile.ZipFile(io.BytesIO(data)) as inner:
                yield from _members(inner, f"{where}/{member.filename}", depth + 1)


def _unpacker(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str, limit: int) -> Callable[[], bytes]:
    def read() -> bytes:
        if member.file_size > limit:  # zipfile never unpacks more than the size stated here
            raise UserError(f"{where}/{member.filename}: {member.file_size} bytes unpacked, more than {limit}")
        try:
            return archive.read(member)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, zlib.error) as error:
            raise UserError(f"{where}/{member.filename}: can't be unpacked ({error}); download it again") from error

    return read
