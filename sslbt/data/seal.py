"""What was made once is used for long: a seal in its folder tells whether its files are still as they were made."""

import hashlib
import json
from pathlib import Path

from sslbt.errors import UserError

SEAL = ".seal.json"


def seal(folder: Path) -> None:
    """Write down size, time and SHA-256 of every file of `folder`, for `check`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    held = {path.relative_to(folder).as_posix(): [*_stamp(path), _digest(path)] for path in files}
    (folder / SEAL).write_text(json.dumps(held))


def check(folder: Path) -> None:
    """Refuse a folder that was changed since it was sealed.

    A file whose size and time are the same is taken to be the same, as git does: reading gigabytes each time would cost
    more than it finds. Only where the time is another, as in a copy, the content decides.

    Raises:
        UserError: which file is another or missing, and the remedy.
    """
    remedy = f"remove {folder}, and the same command makes it anew"
    try:
        held = json.loads((folder / SEAL).read_text())
        for name, (size, time, digest) in held.items():
            if _stamp(folder / name) != [size, time] and _digest(folder / name) != digest:
                raise UserError(f"{folder / name}: changed since it was made; {remedy}")
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: missing; {remedy}") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{folder / SEAL}: damaged; {remedy}") from error


def _stamp(path: Path) -> list[int]:
    about = path.stat()
    return [about.st_size, about.st_mtime_ns]


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
