import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from sslbt.data import cache as module
from sslbt.data import ingest, phantom
from sslbt.data.cache import Cache, prepare
from sslbt.data.identity import family
from sslbt.data.matlab import read_mat
from sslbt.data.phantom import make_sample
from sslbt.data.preprocess import Preprocess, resize
from sslbt.data.source import Source, cache_folder, locate
from sslbt.errors import UserError

pytestmark = pytest.mark.usefixtures("home")


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    return target


def refused(source: Path, home: Path) -> str:
    """The sentence; nothing may be left behind."""
    with pytest.raises(UserError) as caught:
        prepare(Source(str(source)))
    assert left(home) == []
    return str(caught.value)


def left(home: Path) -> list[Path]:
    """What lies in the cache, less the files that processes wait at for each other."""
    return [path for path in home.iterdir() if path.suffix != ".lock"]


def test_every_slice_is_in_the_table_and_in_the_pixels(slices: Path) -> None:
    cache = prepare(Source(str(slices)))
    assert list(cache.table.file) == [f"{number}.mat" for number in range(1, 13)]
    assert list(cache.table.fold) == [number % 5 + 1 for number in range(12)]
    assert cache.pixels.shape == (12, 256, 256)
    for row, pixels in zip(cache.table.itertuples(), cache.pixels, strict=True):
        found = read_mat((slices / row.file).read_bytes(), row.file)
        assert (row.patient, cache.classes[row.label]) == (found.patient, found.label)
        assert (row.height, row.width) == found.pixels.shape
        expected = Preprocess()(torch.from_numpy(found.pixels[None].astype(np.float32)))[0, 0] * 255
        assert abs(pixels - expected.numpy()).max() <= 0.501
    assert not cache.synthetic


def test_classes_are_those_of_the_dataset(slices: Path) -> None:
    cache = prepare(Source(str(slices)))
    assert cache.classes == ("meningioma", "glioma", "pituitary")  # 1, 2, 3 in the dataset's files


def test_patients_that_look_like_numbers_or_nothing_stay_text(slices: Path) -> None:
    table = prepare(Source(str(slices))).table
    assert set(table.patient) == {"100360", "MR017260F", "NA", "MR024780B", "MR024780D", "0042"}
    assert set(table.family) == {"100360", "MR017260", "NA", "MR024780", "0042"}


@pytest.mark.parametrize(
    ("patient", "expected"),
    [("MR024780D", "MR024780"), ("MR024780", "MR024780"), ("100360", "100360"), ("7b", "7")]
    + [(same, same) for same in ("NA", "A", "12AB", "")],
)
def test_a_family_is_the_number_less_one_letter(patient: str, expected: str) -> None:
    assert family(patient) == expected


def test_a_folder_a_zip_and_zips_in_a_zip_give_the_same_digest(slices: Path, tmp_path: Path) -> None:
    flat = zipped(slices, tmp_path / "flat.zip")
    parts = tmp_path / "parts"
    for name, numbers in (("set_1-9", range(1, 10)), ("set_10-12", range(10, 13))):
        (tmp_path / name).mkdir()
        parts.mkdir(exist_ok=True)
        for number in numbers:
            shutil.copy(slices / f"{number}.mat", tmp_path / name)
        zipped(tmp_path / name, parts / f"{name}.zip")
    shutil.copy(slices / "cvind.mat", parts)
    nested = zipped(parts, tmp_path / "nested.zip")
    caches = [prepare(Source(str(source))) for source in (slices, flat, nested)]
    assert len({cache.digest for cache in caches}) == 1
    for cache in caches[1:]:
        pd.testing.assert_frame_equal(cache.table, caches[0].table)
        np.testing.assert_array_equal(cache.pixels, caches[0].pixels)


def test_the_digest_sees_pixels_labels_patients_and_folds(slices: Path, write_slice) -> None:
    def rewritten(name: str, shape: tuple[int, int] = (24, 36), **changed: object) -> str:
        write_slice(slices / name, **changed, shape=shape)
        return prepare(Source(str(slices))).digest

    digests = [
        rewritten("6.mat", label=1, patient="100361"),
        rewritten("6.mat", label=2, patient="100361"),
        rewritten("6.mat", label=2, patient="100362"),
        rewritten("6.mat", label=2, patient="100362", shape=(24, 37)),
    ]
    (slices / "cvind.mat").unlink()
    digests.append(prepare(Source(str(slices))).digest)
    assert len(set(digests)) == len(digests)
    assert rewritten("6.mat", label=2, patient="100362", shape=(24, 37)) == digests[-1]


def test_the_second_time_nothing_is_read(slices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(Source(str(slices)))

    def fail(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(module, "ingest", fail)
    second = prepare(Source(str(slices)))
    assert second.digest == first.digest
    pd.testing.assert_frame_equal(second.table, first.table)
    np.testing.assert_array_equal(second.pixels, first.pixels)


def test_a_changed_file_is_read_again(slices: Path, write_slice) -> None:
    before = prepare(Source(str(slices)))
    write_slice(slices / "13.mat", 3, "500")
    after = prepare(Source(str(slices)))
    assert (len(before.table), len(after.table)) == (12, 13)
    assert after.digest != before.digest


def test_the_cache_is_where_it_is_asked_for(slices: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == home
    prepare(Source(str(slices)))
    assert len(left(home)) == 1
    monkeypatch.delenv("SSLBT_HOME")
    monkeypatch.setenv("HOME", str(home))
    assert cache_folder() == home / ".cache" / "sslbt"


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=repr)
def test_an_interruption_leaves_nothing_behind(
    error: BaseException, slices: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_at_the_end(*_: object) -> object:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(ingest, "similar_pairs", stop_at_the_end)
        with pytest.raises(type(error)):
            prepare(Source(str(slices)))
    assert left(home) == []
    assert len(prepare(Source(str(slices))).table) == 12


READER = """
from sslbt.data.cache import prepare
from sslbt.data.source import Source
if __name__ == "__main__":
    print(prepare(Source({!r})).digest)
"""


def test_of_two_processes_one_reads_and_both_have_it(slices: Path, home: Path, tmp_path: Path) -> None:
    script = tmp_path / "reader.py"
    script.write_text(READER.format(str(slices)))
    both = [
        subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate() for process in both]
    assert {process.returncode for process in both} == {0}, outputs
    assert len({digest for digest, _ in outputs}) == 1
    assert sum("files, done" in said for _, said in outputs) == 1
    assert len(left(home)) == 1


def test_a_killed_process_leaves_nothing_that_counts(slices: Path, home: Path, tmp_path: Path) -> None:
    for number in range(100, 400):
        shutil.copy(slices / "1.mat", slices / f"{number}.mat")
        with open(slices / f"{number}.mat", "ab") as file:
            file.write(bytes(number))
    script = tmp_path / "reader.py"
    script.write_text(READER.format(str(slices)))
    process = subprocess.Popen([sys.executable, script], stderr=subprocess.DEVNULL, start_new_session=True)
    while not list(home.glob(".partial-*/pixels.bin")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(home.glob("cache-*"))
    assert list(home.glob(".partial-*"))
    for path in slices.glob("[1-3]??.mat"):
        path.unlink()
    (slices / "again.mat").write_bytes((slices / "5.mat").read_bytes())
    with pytest.raises(UserError, match=r"the same picture as 5\.mat"):
        prepare(Source(str(slices)))
    (slices / "again.mat").unlink()
    assert len(prepare(Source(str(slices))).table) == 12


def test_a_bad_file_is_named(slices: Path, home: Path) -> None:
    whole = (slices / "5.mat").read_bytes()
    (slices / "5.mat").write_bytes(whole[: len(whole) // 2])
    assert refused(slices, home).startswith("5.mat: truncated")


def test_a_bad_file_in_a_subfolder_or_zip_is_named_with_its_place(slices: Path, home: Path, tmp_path: Path) -> None:
    (slices / "more").mkdir()
    (slices / "more" / "20.mat").write_bytes(b"")
    assert refused(slices, home).startswith("more/20.mat: ")
    assert refused(zipped(slices, tmp_path / "a.zip"), home).startswith("more/20.mat: ")


def test_the_same_file_twice_is_refused(slices: Path, home: Path) -> None:
    (slices / "copy").mkdir()
    shutil.copy(slices / "3.mat", slices / "copy" / "3.mat")
    assert "copy/3.mat: the same picture as 3.mat" in refused(slices, home)


def test_pictures_without_a_label_are_refused(slices: Path, home: Path) -> None:
    Image.effect_noise((20, 20), 50).save(slices / "photo.png")
    assert "photo.png: no class is known" in refused(slices, home)


def test_an_ending_in_capitals_is_read(tmp_path: Path, write_slice) -> None:
    write_slice(tmp_path / "in" / "1.MAT")
    assert list(prepare(Source(str(tmp_path / "in"))).table.file) == ["1.MAT"]


def test_folds_alone_are_no_dataset(slices: Path, home: Path) -> None:
    for path in slices.glob("[0-9]*.mat"):
        path.unlink()
    assert "holds no slice that can be used" in refused(slices, home)


def test_slices_that_no_fold_is_known_of_have_fold_0(slices: Path, write_slice) -> None:
    for name in ("0.mat", "13.mat", "case7.mat", "²7.mat"):
        write_slice(slices / name)
    table = prepare(Source(str(slices))).table.set_index("file")
    assert list(table.fold[["0.mat", "13.mat", "case7.mat", "²7.mat"]]) == [0] * 4
    assert table.fold["12.mat"] == 2


def test_a_missing_source_is_named(tmp_path: Path, home: Path) -> None:
    with pytest.raises(UserError, match=r"typo: no such folder"):
        prepare(Source(str(tmp_path / "typo")))
    assert not home.exists()


def test_the_home_of_nobody_is_named(slices: Path, home: Path) -> None:
    with pytest.raises(UserError, match=r"~nobody-here/slices: no such folder"):
        prepare(Source("~nobody-here/slices"))
    with pytest.raises(UserError, match=r"annotations=~nobody-here/a\.csv: can't be read"):
        prepare(Source(str(slices), "~nobody-here/a.csv"))
    assert not home.exists()


def test_the_sample_is_made_once_and_marked_synthetic(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def few(folder: Path, patients: int) -> None:
        made.append(patients)
        make_sample(folder, patients=9, size=64)

    monkeypatch.setattr(phantom, "make_sample", few)
    cache = prepare(Source("sample"))
    assert prepare(Source("sample")).digest == cache.digest
    assert cache.synthetic
    assert cache.table.patient.nunique() == 9
    assert made == [90]
    assert locate(Source("sample")).parent == home
    masks = cache.masks(np.arange(len(cache.table)))
    np.testing.assert_allclose(masks.mean((1, 2)), cache.table.tumour)
    assert 0 < masks.mean((1, 2)).min() < masks.mean((1, 2)).max() < 0.3
    copy = shutil.copytree(locate(Source("sample")), tmp_path / "copy", copy_function=shutil.copyfile)
    assert prepare(Source(str(copy))).digest == cache.digest
    assert prepare(Source(str(copy))).synthetic


def test_a_sample_cut_short_is_made_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(folder: Path, patients: int) -> None:
        make_sample(folder, patients=1, size=32)
        raise KeyboardInterrupt

    monkeypatch.setattr(phantom, "make_sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        locate(Source("sample"))
    assert left(home) == []


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate(Source("~/slices")) == (tmp_path / "slices").resolve()


@pytest.mark.parametrize("size", [64, 256])
def test_rows_are_loaded_in_the_order_asked_for(size: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (150, 256, 256), dtype=np.uint8)
    cache = Cache(pixels, *[pd.DataFrame()] * 3, digest="", synthetic=True, classes=(), folder=Path("nowhere"))
    rows = np.random.default_rng(1).permutation(150)[:140]
    found = cache.load(rows, size)
    assert found.shape == (140, 1, size, size)
    for place in (0, 63, 64, 139):
        expected = resize(torch.from_numpy(pixels[rows[place]])[None, None].float() / 255, size)[0]
        assert torch.allclose(found[place], expected, atol=1e-6)
    assert cache.load(rows[:0], size).shape == (0, 1, size, size)


@pytest.mark.parametrize("size", [48, 256])
def test_a_set_at_another_size_is_what_loading_gives_to_the_nearest_grey(size: int, home: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (150, 256, 256), dtype=np.uint8)
    table = pd.DataFrame({"file": range(150)})
    cache = Cache(pixels, table, *[pd.DataFrame()] * 2, "", True, (), folder=home / "cache")
    found = cache.resized(size).pixels
    assert (found.shape, found.dtype) == ((150, size, size), torch.uint8)
    assert (found - cache.load(np.arange(150), size)[:, 0] * 255).abs().max() < 0.501
    if size == 256:
        assert np.array_equal(found.numpy(), pixels)


def test_a_set_is_resized_once_and_nobody_changes_it_for_others(slices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = prepare(Source(str(slices)))
    first = cache.resized(48).pixels
    wanted = first.clone()
    monkeypatch.setattr(Cache, "load", lambda *_: pytest.fail("resized again"))
    first.zero_()  # a process's own copy of these pages
    assert torch.equal(cache.resized(48).pixels, wanted)
    assert torch.equal(prepare(Source(str(slices))).resized(48).pixels, wanted)
    monkeypatch.undo()
    assert cache.resized(32).pixels.shape == (12, 32, 32)


def test_resizing_cut_short_leaves_nothing_behind(slices: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    cache = prepare(Source(str(slices)))
    before = left(home)
    with monkeypatch.context() as patched:
        patched.setattr(Cache, "load", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cache.resized(48)
    assert left(home) == before
    assert cache.resized(48).pixels.any()


def test_a_class_that_a_classifier_does_not_know_is_named(slices: Path) -> None:
    cache = prepare(Source(str(slices)))
    told = cache.with_classes(("pituitary", "cyst", "glioma", "meningioma"))
    assert [told.classes[label] for label in told.table.label] == list(told.table["class"])
    with pytest.raises(UserError, match=r"tells glioma, pituitary apart; the data also hold meningioma: leave"):
        cache.with_classes(("glioma", "pituitary"))
