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
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from sslbt.data import reading
from sslbt.data.files import File, iterate
from sslbt.data.preprocess import Preprocess, to_square
from sslbt.data.reading import AT_ONCE, FEW, Found, Refused, normalise, read_files, shrink
from sslbt.errors import UserError

MANY = 3 * FEW
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
PREPROCESS = Preprocess()


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


TYPES = ["int8", "uint8", "int16", ">i2", "uint16", "int32", "uint32", "int64", "float32", "float64"]
VIEWS: list[Callable[[np.ndarray], np.ndarray]] = [
    np.ascontiguousarray,
    np.asfortranarray,
    lambda pixels: np.repeat(np.repeat(pixels, 2, 0), 2, 1)[::2, ::2],
    lambda pixels: np.repeat(pixels.T, 3, 0).T[:, ::3],
    lambda pixels: pixels[::-1, ::-1],
]


@st.composite
def pictures(draw: Callable) -> np.ndarray:
    """Noise, blobs, lines or a few hot pixels; of any size, number type, scale, offset and order in memory."""
    height, width = draw(st.tuples(st.integers(16, 600), st.integers(16, 600)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    y, x = np.mgrid[:height, :width] / max(height, width)
    form = draw(st.sampled_from(["noise", "blob", "lines", "hot", "steps"]))
    shape = {
        "noise": lambda: rng.random((height, width)),
        "blob": lambda: np.exp(-30 * ((x - rng.random()) ** 2 + (y - rng.random()) ** 2)),
        "lines": lambda: (np.sin(300 * rng.random() * x + 9 * y) + 1) / 2,
        "hot": lambda: (rng.random((height, width)) < 0.003).astype(float),
        "steps": lambda: np.floor(4 * x + 3 * y) / 7,
    }[form]()
    dtype = np.dtype(draw(st.sampled_from(TYPES)))
    if dtype.kind == "f":
        scale = 10.0 ** draw(st.integers(-20, 30))
        pixels = (shape + draw(st.sampled_from([0, -0.5, -1, 3, 1000]))) * scale
    else:
        ends = np.iinfo(dtype)
        low, high = sorted(draw(st.tuples(st.integers(ends.min, ends.max), st.integers(ends.min, ends.max))))
        assume(high - low > 1)
        pixels = np.clip(np.floor(low + shape * float(high - low)), low, np.nextafter(float(high), float(low)))
    pixels = pixels.astype(dtype)
    assume(pixels.astype(np.float32).min() < pixels.astype(np.float32).max())
    return draw(st.sampled_from(VIEWS))(pixels)


def in_network(pixels: np.ndarray) -> np.ndarray:
    """What the exported classifier makes of a slice, in 256 levels."""
    return PREPROCESS(torch.from_numpy(np.ascontiguousarray(pixels, np.float32)[None]))[0, 0].numpy() * 255.0


@settings(max_examples=80, deadline=None)
@given(pictures())
def test_the_cache_holds_what_the_network_would_see(pixels: np.ndarray) -> None:
    found = normalise(pixels)
    assert (found.shape, found.dtype) == ((256, 256), np.uint8)
    assert np.abs(found - in_network(pixels)).max() <= 0.5 + 1e-3


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(np.uint8, st.tuples(st.integers(16, 80), st.integers(16, 80))),
    st.integers(-8, 12),
    st.integers(-(2**15), 2**15),
)
def test_doubling_halving_and_adding_change_nothing(pixels: np.ndarray, doubled: int, added: int) -> None:
    assume(pixels.min() < pixels.max())
    expected = normalise(pixels)
    changed = np.ldexp(pixels + float(added), doubled)
    np.testing.assert_array_equal(normalise(changed), expected)
    np.testing.assert_array_equal(normalise(changed.astype(np.float32)), expected)


@settings(max_examples=60, deadline=None)
@given(pictures(), st.floats(1e-3, 1e3))
def test_any_scale_changes_at_most_the_rounding(pixels: np.ndarray, scale: float) -> None:
    image = pixels.astype(np.float32)
    assume(np.ptp(image) > 2**-8 * abs(image).max())  # far from zero, multiplying itself rounds too much away
    changed = normalise(image * np.float32(scale))
    assert np.abs(changed.astype(int) - normalise(pixels)).max() <= 1


def test_the_ends_of_what_a_number_can_hold_are_ends_of_the_picture() -> None:
    pixels = np.zeros((40, 40), np.float64)
    pixels[:20], pixels[20:] = -1.6e38, 1.6e38
    found = normalise(pixels)
    assert (found[:120].max(), found[136:].min()) == (0, 255)


@st.composite
def outlines(draw: Callable) -> np.ndarray:
    """Where a tumour may be: an ellipse, a line or a few pixels, somewhere in a picture of any size."""
    height, width = draw(st.tuples(st.integers(16, 700), st.integers(16, 700)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    y, x = np.mgrid[:height, :width]
    top, left, tall, wide = rng.random(4) * (height, width, height / 3, width / 3)
    form = draw(st.sampled_from(["ellipse", "line", "pixels", "everything"]))
    mask = {
        "ellipse": lambda: ((y - top) / (tall + 1)) ** 2 + ((x - left) / (wide + 1)) ** 2 < 1,
        "line": lambda: (y == int(top)) & (x >= left),
        "pixels": lambda: rng.random((height, width)) < 4 / (height * width),
        "everything": lambda: np.ones((height, width), bool),
    }[form]()
    return draw(st.sampled_from(VIEWS))(mask)


@settings(max_examples=100, deadline=None)
@given(outlines())
def test_a_mask_is_where_the_network_sees_the_tumour(mask: np.ndarray) -> None:
    found = shrink(mask)
    assert (found.shape, found.dtype) == ((256, 256), bool)
    square = to_square(torch.from_numpy(np.ascontiguousarray(mask, np.float32))[None])
    share = F.interpolate(square[:, None], (256, 256), mode="bilinear", antialias=True)[0, 0].numpy()
    if (share > 0.51).any():
        clear = abs(share - 0.5) > 0.01  # ends of rounding
        np.testing.assert_array_equal(found[clear], share[clear] > 0.5)
    else:  # it is thinner than a pixel, and lies where there is some of it
        assert found.any() == mask.any()
        assert (share[found] > 0).all()


def test_a_mask_lies_on_the_pixels_it_is_of() -> None:
    pixels = np.zeros((300, 500), np.int16)
    pixels[200:240, 350:420] = 900
    for view in VIEWS:
        np.testing.assert_array_equal(shrink(view(pixels > 0)), normalise(view(pixels)) > 127)


@pytest.mark.parametrize("side", [16, 100, 256, 257, 512, 5000])
def test_a_tumour_of_one_pixel_does_not_vanish(side: int) -> None:
    for y, x in ((0, 0), (side - 1, side - 1), (side // 3, side // 2)):
        mask = np.zeros((side, side), bool)
        mask[y, x] = True
        down, across = (np.mean(axis) for axis in np.nonzero(shrink(mask)))
        assert abs((down + 0.5) / 256 - (y + 0.5) / side) <= 1 / min(side, 256)
        assert abs((across + 0.5) / 256 - (x + 0.5) / side) <= 1 / min(side, 256)


def test_a_mask_of_nothing_stays_one() -> None:
    assert not shrink(np.zeros((30, 500), bool)).any()


def test_what_is_given_is_not_changed() -> None:
    pixels = np.random.default_rng(0).random((300, 200), np.float32) + 5
    for given_ in (pixels, np.asfortranarray(pixels)):
        before = given_.copy()
        normalise(given_)
        np.testing.assert_array_equal(given_, before)
