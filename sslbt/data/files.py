"""The files of a data source: a folder, one file, or a zip; zips inside either (as figshare packs them) are opened.

Torch-free, so that the scoring service can use it. Nothing is ever unpacked to disk.
"""

import hashlib
import io
import lzma
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sslbt.data.formats import HEAD, SUFFIXES, is_dicom
from sslbt.errors import UserError

MAX_FILE = 512 * 2**20  # one picture, unpacked
MAX_INNER_ZIP = 4 * 2**30  # held in memory while it is read
MAX_DEPTH = 2
# What zipfile and its decompressors raise where a member is damaged.
DAMAGED = (
    *(zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError, LookupError),
    *(struct.error, zlib.error, lzma.LZMAError),
)

File = tuple[str, Callable[[], bytes]]


def iterate(source: Path) -> Iterator[File]:
    """Name and reader of every file that may hold slices, in natural order (2.mat before 10.mat).

    A name is the path within the folder, or within the innermost zip. Readers of zips hold until the next file is
    drawn, those of folders (`OnDisk`) wherever they are sent.

    Raises:
        UserError: the source is missing or unreadable, a zip is damaged or beyond the limits, or nothing is in it.
    """
    with _explained(source):
        _check_present(source)
        if source.is_dir():
            yield from _found(_of_folder(source), source)
        elif _is_zip(source.name):
            yield from _found(_of_zip(source, str(source), 1), source)
        elif _wanted(source.name, lambda: _head(source)):
            yield source.name, OnDisk(source)
        else:
            raise UserError(f"{source}: neither a folder, a zip, nor one of {', '.join(SUFFIXES)}")


def count(source: Path) -> int | None:
    """How many files `iterate` will give, where that is known without opening zips."""
    if not source.is_dir():
        return None
    with _explained(source):
        paths = list(_walk(source))
    return None if any(_is_zip(path.name) for path in paths) else len(paths)


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
    keys = []
    for digits, other in re.findall(r"0*(\d+)|(\D+)", name):
        # By length, then as text: Python refuses to read a number of 4,300 digits, which a name in a zip may hold.
        keys.append((0, len(digits), digits) if digits else (1, 0, other))
    return keys, name


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


def _is_zip(name: str) -> bool:
    return name.lower().endswith(".zip")


def _wanted(name: str, head: Callable[[], bytes]) -> bool:
    """By its ending; scanners and DICOM exports give files none, or the end of a number: those by their first bytes."""
    path = PurePosixPath(name)
    if path.name.startswith(".") or path.name.upper() == "DICOMDIR":
        return False
    return name.lower().endswith(SUFFIXES) or (not path.suffix[1:].isalpha() and is_dicom(head()))


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(HEAD)


def _walk(folder: Path) -> Iterator[Path]:
    """Every file that may hold slices, those of linked folders too, each folder once: links may lead in a circle.

    A subfolder that can't be read is an error, not a gap in the data.
    """

    def stop(error: OSError) -> None:
        raise error

    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, onerror=stop, followlinks=True):
        place = os.stat(parent)
        if (place.st_dev, place.st_ino) in seen:
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        # Links last, so that where two ways lead to a folder the one without names its files.
        folders.sort(key=lambda name: (os.path.islink(os.path.join(parent, name)), name))
        for path in (Path(parent, name) for name in names):
            if path.is_fifo():  # to read one is to wait for ever
                continue
            if _is_zip(path.name) or _wanted(path.name, lambda path=path: _head(path)):  # type: ignore[misc]
                yield path


def _of_folder(folder: Path) -> Iterator[File]:
    # Linux allows names that are not UTF-8; tables don't.
    paths = {
        path.relative_to(folder).as_posix().encode("utf-8", "backslashreplace").decode(): path for path in _walk(folder)
    }
    for name, path in sorted(paths.items(), key=lambda item: natural(item[0])):
        if _is_zip(name):
            yield from _of_zip(path, str(path), 1)
        else:
            yield name, OnDisk(path)


@dataclass(frozen=True)
class OnDisk:
    """Reads one file; can be sent to another process."""

    path: Path

    def __call__(self) -> bytes:
        with _explained(self.path):
            size = self.path.stat().st_size
            if size > MAX_FILE:
                raise UserError(f"{self.path}: {size} bytes; a file of up to {MAX_FILE} bytes can be read")
            return self.path.read_bytes()


def _found(files: Iterator[File], source: Path) -> Iterator[File]:
    first = next(files, None)
    if first is None:
        raise UserError(f"{source}: holds no slice ({', '.join(SUFFIXES)}); is it the right folder or download?")
    yield first
    yield from files


def _of_zip(file: Path | io.BytesIO, where: str, depth: int) -> Iterator[File]:
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, LookupError, struct.error) as error:
        raise UserError(f"{where}: damaged or not a zip ({error}); download it again") from error
    with archive:
        for member in sorted(archive.infolist(), key=lambda m: natural(m.filename)):
            name = member.filename.replace("\\", "/")  # some Windows programs write them so
            if not name or name.endswith("/") or name.startswith("__MACOSX/"):
                continue
            if _is_zip(name):
                if depth == MAX_DEPTH:
                    raise UserError(f"{where}: zips nested deeper than {MAX_DEPTH}; unpack it and give the folder")
                inside = io.BytesIO(_unpacker(archive, member, where, MAX_INNER_ZIP)())
                yield from _of_zip(inside, f"{where}/{name}", depth + 1)
            elif _wanted(name, lambda member=member: _unpacker(archive, member, where, MAX_FILE)(HEAD)):  # type: ignore[misc]
                yield name, _unpacker(archive, member, where, MAX_FILE)


def _unpacker(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str, limit: int) -> Callable[..., bytes]:
    shown = "".join(letter if letter.isprintable() else "?" for letter in member.filename)  # of one line

    def read(most: int = limit) -> bytes:
        if member.file_size > limit:
            raise UserError(f"{where}/{shown}: {member.file_size} bytes unpacked, more than {limit}")
        try:
            with archive.open(member) as stream:
                # Without a number it would unpack more, if the size is a lie.
                return stream.read(min(member.file_size, most))
        except DAMAGED as error:
            raise UserError(f"{where}/{shown}: can't be unpacked ({error}); download it again") from error

    return read
