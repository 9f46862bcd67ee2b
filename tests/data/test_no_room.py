"""A system that says no: a full disk, files without permission."""

import errno
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from makers import (
    BY_NAME,
    lay,
    left,
    png,
)

from sslbt.data.cache import prepare
from sslbt.data.source import Source, locate

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file grows beyond this, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Data that need 2.6 MB in the cache."""
    contents = {f"{name}/P{n}_1.png": png(n) for n, name in enumerate(["cyst", "glioma"] * 20)}
    return lay(tmp_path / "in", contents)


def test_a_full_disk_leaves_nothing(many: Path, home: Path) -> None:
    for size in (0, 100_000, 2_600_000):
        with files_up_to(size), pytest.raises(OSError, match="File too large"):
            prepare(Source(str(many), patient_pattern=BY_NAME))
        assert left(home) == []
    assert len(prepare(Source(str(many), patient_pattern=BY_NAME)).table) == 40


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A disk of so many bytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = []

    def mount(size: int) -> Path:
        if not (AS_ROOT and shutil.which("mount")):
            pytest.skip("only root may mount a disk")
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place], capture_output=True)
        if made.returncode:
            pytest.skip(f"no disk can be mounted here: {made.stderr!r}")
        mounted.append(place)
        return place

    yield mount
    for one in mounted:
        subprocess.run(["umount", one], check=True)


@pytest.mark.parametrize("room", [300_000, 40 * 256 * 256 + 4096], ids=["for a few slices", "for the slices alone"])
def test_a_disk_that_is_too_small_leaves_nothing(
    room: int, many: Path, small_disk: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = small_disk(room) / "home"
    monkeypatch.setenv("SSLBT_HOME", str(home))
    with pytest.raises(OSError, match="No space left") as caught:
        prepare(Source(str(many), patient_pattern=BY_NAME))
    assert caught.value.errno == errno.ENOSPC
    assert left(home) == []


def test_phantoms_that_do_not_fit_are_an_error_like_any_other(
    small_disk: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = small_disk(300_000) / "home"
    monkeypatch.setenv("SSLBT_HOME", str(home))
    with pytest.raises(OSError, match="No space left") as caught:
        locate(Source("sample:3"))
    assert caught.value.filename == str(home / "sample-2-3")
    assert left(home) == []


FULL = """
import resource, sys
from sslbt.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
if __name__ == "__main__":
    sys.exit(main())
"""


def test_a_full_disk_is_one_sentence_of_the_command_line(many: Path, home: Path, tmp_path: Path) -> None:
    (tmp_path / "full.py").write_text(FULL)
    words = ["prepare", "--data", many, "--patient-pattern", BY_NAME]
    own = {"SSLBT_HOME": str(home), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")} | own
    done = subprocess.run(
        [sys.executable, tmp_path / "full.py", *words], capture_output=True, text=True, env=environment
    )
    said = [line for line in done.stderr.splitlines() if line.startswith("sslbt")]
    assert len(said) == 1
    assert said[0].startswith(f"sslbt: {home}/cache-")
    assert said[0].endswith(": File too large; free space or change its permissions, then run it again")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert left(home) == ["running"]
    assert not list((home / "running").iterdir())


NOBODY = """
import os, sys
from sslbt.data.cache import prepare
from sslbt.data.source import Source
from sslbt.errors import UserError
os.chdir(sys.argv[1])
prepare(Source("all", patient_pattern=sys.argv[2]))  # imports all there is, which a user without rights may not reach
if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)
for place in ("no folder", "no file"):
    for on_bad in ("stop", "skip"):
        try:
            cache = prepare(Source(place, patient_pattern=sys.argv[2], on_bad=on_bad))
            print(*cache.table.path, *cache.refused.reason, sep="|")
        except UserError as error:
            print(error)
"""


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody may enter, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    for path in folder.rglob("*"):
        path.chmod(0o700)
    shutil.rmtree(folder)


@pytest.mark.skipif(os.name == "nt", reason="has other permissions")
def test_a_folder_or_file_without_permission(public: Path, good: Path) -> None:
    for place, closed in (("all", ""), ("no folder", "glioma"), ("no file", "glioma/P2_1.png")):
        shutil.copytree(good, public / place)
        (public / place / closed).chmod(0o755 if place == "all" else 0)
    (public / "home").mkdir()
    (public / "home").chmod(0o777)
    (public / "nobody.py").write_text(NOBODY)
    environment = os.environ | {"SSLBT_HOME": str(public / "home")}
    words = [sys.executable, public / "nobody.py", public, BY_NAME]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    folder, file = (
        f"{public}/{closed}: can't be read (Permission denied); check the file and its mode"
        for closed in ("no folder/glioma", "no file/glioma/P2_1.png")
    )
    assert done.stdout.splitlines() == [
        folder,
        folder,  # what it holds is not known, so it can't be left out
        f"{file} (on_bad=skip leaves it out)",
        f"cyst/P1_1.png|meningioma/P9_1.png|{file}",
    ]
    assert f"left out: {file}" in done.stderr.splitlines()
    assert len(left(public / "home")) == 2  # of all, and of what was left
