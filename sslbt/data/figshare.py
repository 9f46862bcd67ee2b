"""Downloads the figshare brain tumour dataset (doi 10.6084/m9.figshare.1512427, CC BY 4.0, about 880 MB).

A file gets its final name only once its md5 sum is right; until then it is NAME.part, which the next call continues.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from time import sleep
from typing import NamedTuple

import requests
import urllib3
from tqdm import tqdm

from sslbt.data.source import BASE_URL
from sslbt.errors import UserError
from sslbt.terminal import say
from sslbt.waiting import alone

PAGE = "https://doi.org/10.6084/m9.figshare.1512427"

ATTEMPTS = 6  # without a byte more than before
TIMEOUT = (10, 60)  # seconds to connect, seconds without a byte
LONGEST_PAUSE = 120  # seconds, whatever the server asks for
CHUNK = 2**16  # bytes; a cut connection costs less than one
TEMPORARY = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


class Remote(NamedTuple):
    """A file as figshare knows it."""

    name: str
    id: int
    md5: str


FILES = (
    Remote("brainTumorDataPublic_1-766.zip", 3381290, "74b949ad33f042e6e103523091cd1428"),
    Remote("brainTumorDataPublic_767-1532.zip", 3381296, "7e8a875500d2c8a346f270538e29890e"),
    Remote("brainTumorDataPublic_1533-2298.zip", 3381293, "8227bf6080cb71f15a88be8d25c79ae7"),
    Remote("brainTumorDataPublic_2299-3064.zip", 3381302, "b378a80d6174e5317d59eb28430c6652"),
    Remote("cvind.mat", 7005344, "5ea82eb3212c9fcb84290ccf0beb486d"),
)


def download(folder: Path, base_url: str = BASE_URL, files: Sequence[Remote] = FILES) -> Path:
    """Fetch the files that `folder` lacks; several processes may call this at once. Returns `folder`.

    `base_url` holds {id} or {name}; without them it is a folder of a mirror that serves the files by name.

    Raises:
        UserError: the address is no http(s) one, the server refuses or sends the wrong bytes, the line stays cut,
            or the folder can't be written. What has arrived stays for the next call.
    """
    if not base_url.lower().startswith(("http://", "https://")):
        raise UserError(f"{base_url}: not a web address; give one that starts with https:// or http://")
    if "{id}" not in base_url and "{name}" not in base_url:
        base_url = base_url.rstrip("/") + "/{name}"
    if all((folder / file.name).exists() for file in files):
        return folder  # without the lock: a finished folder may be read-only
    try:
        with alone(folder / ".lock", f"to finish the download to {folder}"):
            for file in files:
                if not (folder / file.name).exists():
                    url = base_url.replace("{id}", str(file.id)).replace("{name}", file.name)
                    _fetch(url, folder / file.name, file.md5)
    except OSError as error:  # a failed write doesn't say which file it was for
        where, why = error.filename or folder, error.strerror or error
        raise UserError(f"{where}: {why}; mend that and run the same command again, it continues") from error
    return folder


def _fetch(url: str, final: Path, md5: str) -> None:
    part = final.with_name(final.name + ".part")
    for _ in range(2):  # the first time, what an earlier call left may have been wrong
        _transfer(url, part)
        with open(part, "rb+") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
            os.fsync(file.fileno())
        if found == md5:
            os.replace(part, final)
            return
        part.unlink()
        say(f"{final.name}: md5 {found} instead of {md5}, thrown away")
    raise UserError(
        f"{url}: {final.name} came with md5 {found} instead of {md5}, twice; "
        f"try another network, or fetch it with a browser from {PAGE} into {final.parent}"
    )


def _transfer(url: str, part: Path) -> None:
    """Bring `part` to its whole length, however often the line is cut."""
    furthest, failures = _size(part), 0
    while True:
        try:
            _receive(url, part)
            return
        except TEMPORARY as error:
            have = _size(part)
            failures = 1 if have > furthest else failures + 1
            furthest = max(furthest, have)
            pause, why = _pause(error, failures), _root(error)
            if failures == ATTEMPTS:
                raise UserError(
                    f"{url}: {why} ({ATTEMPTS} times in a row); {have} bytes are in {part}, "
                    "the same command continues there once the network or the server is back"
                ) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise UserError(f"{url}: can't be fetched ({_root(error)}); check the address") from error
        say(f"{part.stem}: {why}; trying again in {pause:.0f} s")
        sleep(pause)


def _receive(url: str, part: Path) -> None:
    """One request for what `part` lacks. Only the sum can tell whether `part` is then right."""
    have = _size(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        status, answer = response.status_code, f"answered {response.status_code} {response.reason}"
        if status == 416 and have:
            return
        if status == 429 or status >= 500:
            raise requests.ConnectionError(answer, response=response)
        if status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)  # so that the next request is for the whole
            raise requests.ConnectionError("answered with another part of the file", response=response)
        if status not in (200, 206):  # 202: figshare takes us for a robot and sends a puzzle
            raise UserError(
                f"{url}: {answer}; check the address, "
                f"or fetch {part.stem} with a browser from {PAGE} into {part.parent}"
            )
        if status == 200:
            have = 0
        total = have + (response.raw.length_remaining or 0)
        with open(part, "ab" if have else "wb") as out:
            for chunk in _shown(response.iter_content(CHUNK), part.stem, have, total):
                out.write(chunk)


def _shown(chunks: Iterable[bytes], name: str, done: int, total: int) -> Iterator[bytes]:
    """A bar on a terminal, a plain line every tenth elsewhere. `done` and `total` in bytes, 0 where unknown."""
    what = f"downloading {name}"
    with tqdm(desc=what, initial=done, total=total or None, unit="B", unit_scale=True, disable=None) as bar:
        for chunk in chunks:
            yield chunk
            before, done = done, done + len(chunk)
            bar.update(len(chunk))
            if bar.disable and total and done * 10 // total > before * 10 // total:
                say(f"{what}: {done * 100 // total} % of {total / 1e6:.3g} MB")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _pause(error: requests.RequestException, failures: int) -> float:
    """Seconds to wait after so many failures, longer where the server asks for it."""
    asked = None
    if error.response is not None:
        with suppress(urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
            asked = urllib3.Retry(retry_after_max=LONGEST_PAUSE).get_retry_after(error.response.raw)
    return max(2.0 ** (failures - 1), asked or 0)


def _root(error: BaseException) -> BaseException:
    """What it came from: 'Connection refused', not the three layers of HTTP around it."""
    while error.__context__ is not None:
        error = error.__context__
    return error
