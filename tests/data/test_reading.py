import hashlib
import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from sslbt.data import reading
from sslbt.data.files import File, iterate
from sslbt.data.normalise import normalise
from sslbt.data.reading import AT_ONCE, FEW, Found, Refused, read_files
from sslbt.errors import UserError

MANY = 3 * FEW
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def png(number: int, shape: tuple[int, int] = (20, 16)) -> bytes:
    """A picture like no other."""
    pixels = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=0)
    return out.getvalue()


def numbered(count: int) -> Iterator[File]:
    for number in range(count):
        yield f"{number}.png", lambda number=number: png(number)  # type: ignore[misc]


def path_of(one: Found | Refused) -> str:
    return one.path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many pictures, every tenth of them cut off."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(MANY):
        data = png(number, (16 + number % 7, 19))
        (folder / f"{number}.png").write_bytes(data[:60] if number % 10 == 3 else data)
    return folder


@pytest.fixture(scope="module")
def one_by_one(folder: Path) -> list[Found | Refused]:
    """The pictures of the folder, each as if it were alone."""
    return [found for file in iterate(folder) for found in read_files([file])]


def same(found: Iterable[Found | Refused], expected: list[Found | Refused]) -> None:
    found = list(found)
    assert list(map(path_of, found)) == list(map(path_of, expected))
    for one, other in zip(found, expected, strict=True):
        assert type(one) is type(other)
        for name, value in vars(other).items():
            np.testing.assert_array_equal(getattr(one, name), value, strict=True)


def test_few_files_are_read_here_and_in_order(folder: Path, one_by_one: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "ProcessPoolExecutor", None)
    same(read_files(list(iterate(folder))[:FEW]), one_by_one[:FEW])
    same(read_files([]), [])


def test_many_files_are_read_elsewhere_and_give_the_same_in_order(folder: Path, one_by_one: list) -> None:
    found = read_files(iterate(folder))
    same([next(found) for _ in range(FEW)], one_by_one[:FEW])
    assert active_children() == []
    same([next(found)], one_by_one[FEW : FEW + 1])
    assert len(active_children()) >= min(2, CORES)
    same(found, one_by_one[FEW + 1 :])
    assert active_children() == []


def test_a_zip_of_many_files_gives_the_same(folder: Path, one_by_one: list, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    same(read_files(iterate(tmp_path / "many.zip")), one_by_one)


def test_what_is_said_of_a_slice(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(-900, 30000, (40, 31)).astype(np.int32)
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    Image.fromarray(np.zeros_like(pixels)).save(tmp_path / "b.tif")
    first, second = read_files(iterate(tmp_path))
    assert isinstance(first, Found)
    assert (first.path, first.height, first.width) == ("a.tif", 40, 31)
    assert (first.low, first.high) == (pixels.min(), pixels.max())
    assert (first.patient, first.label, first.plane, first.synthetic) == ("", "", "", False)
    assert np.isnan(first.tumour)
    assert not first.mask.any()
    np.testing.assert_array_equal(first.pixels, normalise(pixels))
    assert first.sha256 == hashlib.sha256(normalise(pixels).tobytes()).hexdigest()
    assert second == Refused("b.tif", "b.tif: all pixels are equal; an empty slice can't be classified")


def pages(*pictures: np.ndarray) -> bytes:
    out = io.BytesIO()
    first, *more = map(Image.fromarray, pictures)
    first.save(out, "TIFF", save_all=True, append_images=more)
    return out.getvalue()


NOISE = np.random.default_rng(0).integers(0, 65536, (3, 24, 24)).astype(np.uint16)


def test_slices_of_a_file_are_numbered_and_the_empty_among_them_are_nobodys_mistake() -> None:
    data = pages(np.zeros((24, 24), np.uint16), *NOISE, np.full((24, 24), 9, np.uint16))
    first, *found, last = read_files([("v.tif", lambda: data)])
    for one, number in ((first, 1), (last, 5)):
        reason = f"v.tif#{number}: all pixels are equal; an empty slice can't be classified"
        assert one == Refused(f"v.tif#{number}", reason, expected=True)
    assert list(map(path_of, found)) == ["v.tif#2", "v.tif#3", "v.tif#4"]
    for one, pixels in zip(found, NOISE, strict=True):
        np.testing.assert_array_equal(one.pixels, normalise(pixels))


def test_one_bad_slice_leaves_the_others_of_its_file() -> None:
    holes = NOISE.astype(np.float32)
    holes[1, 5, 5] = np.nan
    found = list(read_files([("v.tif", lambda: pages(*holes))]))
    assert [type(one) for one in found] == [Found, Refused, Found]
    assert not found[1].expected
    assert found[1].reason.startswith("v.tif#2: holds pixels that are not finite")


def test_nothing_of_a_file_that_turns_out_damaged_is_kept() -> None:
    data = pages(*NOISE)
    found = list(read_files([("a.png", lambda: png(1)), ("v.tif", lambda: data[:-400]), ("b.png", lambda: png(2))]))
    assert list(map(path_of, found)) == ["a.png", "v.tif", "b.png"]
    assert isinstance(found[1], Refused)
    assert found[1].reason.startswith("v.tif: damaged PNG, JPEG or TIFF")


def test_a_file_of_more_slices_than_anybody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_SLICES", 2)
    files = [("2.tif", lambda: pages(*NOISE[:2])), ("3.tif", lambda: pages(*NOISE))]
    assert list(map(path_of, read_files(files))) == ["2.tif#1", "2.tif#2", "3.tif"]


def test_a_file_that_is_gone_when_its_turn_comes_is_named(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    files = list(iterate(tmp_path))
    (tmp_path / "1.png").unlink()
    found = list(read_files(files))
    assert [type(one) for one in found] == [Found, Refused, Found]
    assert found[1] == Refused(
        "1.png", f"{tmp_path}/1.png: can't be read (No such file or directory); check the file and its mode"
    )


def drawn_ahead(files: Iterator[File]) -> int:
    """The most files that were drawn beyond those given."""
    drawn = 0

    def counted() -> Iterator[File]:
        nonlocal drawn
        for file in files:
            drawn += 1
            yield file

    most = 0
    for number, _ in enumerate(read_files(counted())):
        most = max(most, drawn - number)
    assert drawn == number + 1
    return most


def test_few_files_are_drawn_ahead_of_the_slices_given() -> None:
    bound = (3 * CORES + 2) * AT_ONCE
    most = drawn_ahead(numbered(2 * bound + FEW))
    assert AT_ONCE < most <= bound


def test_large_files_are_drawn_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(png(0))
    monkeypatch.setattr(reading, "LARGE", size - 1)
    monkeypatch.setattr(reading, "MEMORY", 3 * size)
    assert drawn_ahead(numbered(60)) == 4  # three may wait; the fourth is one too many


def test_large_files_of_a_folder_are_drawn_one_by_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LARGE", 0)
    monkeypatch.setattr(reading, "MEMORY", 0)
    assert drawn_ahead(iter(list(iterate(folder))[:20])) <= 2


@pytest.mark.parametrize("after", [0, 5, MANY])
@pytest.mark.parametrize("error", [UserError("the zip is damaged"), KeyError("a mistake of ours")], ids=repr)
def test_what_goes_wrong_with_the_files_is_raised(after: int, error: Exception) -> None:
    def broken() -> Iterator[File]:
        yield from numbered(after)
        raise error

    with pytest.raises(type(error)) as caught:
        list(read_files(broken()))
    assert caught.value is error
    assert active_children() == []


def test_who_breaks_off_leaves_no_process_behind(folder: Path) -> None:
    found = read_files(iterate(folder))
    for _ in range(FEW + 1):
        next(found)
    assert active_children()
    found.close()  # type: ignore[attr-defined]
    assert active_children() == []


@pytest.mark.timeout(60)
def test_a_process_that_is_killed_is_told_of() -> None:
    def files() -> Iterator[File]:
        yield from numbered(FEW + 2 * AT_ONCE)
        os.kill(active_children()[0].pid, signal.SIGKILL)  # type: ignore[arg-type]
        yield from numbered(500)

    with pytest.raises(UserError) as caught:
        list(read_files(files()))
    sentence = str(caught.value)
    assert "a file soon after it: a process that reads was killed (out of memory?) or crashed; run it" in sentence
    assert "\n" not in sentence
    assert int(sentence.partition(".png")[0]) in range(500)
    assert active_children() == []


READER = """
import os, sys
from multiprocessing import active_children
from pathlib import Path
from sslbt.data.files import iterate
from sslbt.data.reading import read_files
if __name__ == "__main__":
    try:
        for found in read_files(iterate(Path(sys.argv[1]))):
            if active_children():
                print(*(child.pid for child in active_children()), flush=True)
                sys.stdin.read()
    except KeyboardInterrupt:
        sys.exit("stopped")
"""


@pytest.fixture
def reader(folder: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen, list[psutil.Process]]]:
    """A process that reads the folder and rests in the midst of it, and those it has started, all ready to work."""
    script = tmp_path / "reader.py"
    script.write_text(READER)
    process = subprocess.Popen(
        [sys.executable, script, folder], stdin=-1, stdout=-1, stderr=-1, text=True, start_new_session=True
    )
    assert process.stdout
    children = [psutil.Process(int(number)) for number in process.stdout.readline().split()]
    try:
        assert children
        wait_until(lambda: all(map(ignores_interruption, children)))
        yield process, children
    finally:
        for one in filter(alive, [psutil.Process(process.pid), *children] if process.poll() is None else children):
            one.kill()
        process.communicate()


def ignores_interruption(process: psutil.Process) -> bool:
    (ignored,) = [line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "SigIgn" in line]
    return bool(int(ignored.split()[1], 16) >> (signal.SIGINT - 1) & 1)


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@LINUX
@pytest.mark.timeout(90)
def test_an_interruption_is_answered_by_one_process_and_ends_all(reader) -> None:
    process, children = reader
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    assert process.communicate()[1] == "stopped\n"
    wait_until(lambda: not any(map(alive, children)))


@LINUX
@pytest.mark.timeout(90)
def test_who_is_killed_leaves_no_process_behind(reader) -> None:
    process, children = reader
    process.kill()
    wait_until(lambda: not any(map(alive, children)))
