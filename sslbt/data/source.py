"""Where slices come from: phantoms, the figshare download, a folder or a zip."""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sslbt.data.seal import SEAL, check, seal
from sslbt.waiting import alone

BASE_URL = "https://ndownloader.figshare.com/files/{id}"
SAMPLE = re.compile(r"sample(?::([1-9]\d{0,4}))?")
SAMPLE_FORMAT = 2  # raise it when phantoms change
FIGSHARE = "figshare"


@dataclass(frozen=True)
class Source:
    """Where slices come from, and how to tell whose they are (see `identity.identify`)."""

    data: str  # sample, sample:N (phantoms of N patients), figshare, a folder, or a zip
    annotations: str = ""  # a CSV of file, patient, class
    patient_pattern: str = ""  # regular expression for the patient in a file's path
    on_bad: str = "stop"  # or skip: leave out what can't be used, and say so
    anonymous: bool = False  # take slices of unknown patients too: good enough to judge by, never to train on
    base_url: str = BASE_URL

    @property
    def synthetic(self) -> bool:
        """Whether phantoms are asked for."""
        return bool(SAMPLE.fullmatch(self.data))


def cache_folder() -> Path:
    """Where prepared data, downloads and unfinished trainings live: $SSLBT_HOME, else ~/.cache/sslbt."""
    return Path(os.environ.get("SSLBT_HOME") or Path.home() / ".cache" / "sslbt")


def at(path: str) -> Path:
    """What a user calls so, `~` for a home; unlike pathlib's this doesn't fail where ~somebody has none."""
    return Path(os.path.expanduser(path))


def locate(source: Source) -> Path:
    """The folder or zip behind a source; draws the phantoms or downloads the dataset if they are asked for."""
    # Imported where needed: every command line starts here, and few of them draw or download.
    if sample := SAMPLE.fullmatch(source.data):
        from sslbt.data.phantom import PATIENTS, make_sample

        patients = int(sample[1] or PATIENTS)
        return once(cache_folder() / f"sample-{SAMPLE_FORMAT}-{patients}", lambda folder: make_sample(folder, patients))
    if source.data == FIGSHARE:
        from sslbt.data import figshare

        return figshare.download(cache_folder() / FIGSHARE, source.base_url)
    return at(source.data).resolve()


def once(final: Path, make: Callable[[Path], None]) -> Path:
    """A folder that appears under its name only once it is complete, made by one process while others wait.

    Raises:
        OSError: it can't be written; names the folder if nothing in it.
        UserError: a file in it was changed since.
    """
    if made(final):
        return final
    partial = final.with_name(f".partial-{final.name}")
    with alone(final.with_name(f".{final.name}.lock"), f"to finish {final}"):
        if not made(final):
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed: we hold its lock
            partial.mkdir()
            try:
                make(partial)
                seal(partial)
                shutil.rmtree(final, ignore_errors=True)  # of a version that sealed nothing
                os.replace(partial, final)
            except OSError as error:  # of a full disk Python doesn't name the file
                if error.errno is None or error.filename is not None:
                    raise
                raise OSError(error.errno, error.strerror, str(final)) from error
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return final


def made(final: Path) -> bool:
    """Whether `once` made this folder.

    Raises:
        UserError: it did, and a file in it was changed since.
    """
    if not (final / SEAL).exists():
        return False
    check(final)
    return True
