"""Zips that are made to do harm."""

import struct
from pathlib import Path

import pytest
from makers import BY_NAME, GOOD, check_rows, encoded, lay, png, refused, zip_of, zipped

from sslbt.data.cache import prepare
from sslbt.data.source import Source


def lie(place: Path, name: str, size: int) -> None:
    """Let the zip say of a member that it unpacks to `size` bytes."""
    data = bytearray(place.read_bytes())
    at = data.rindex(name.encode()) - 46 + 24  # into its entry of the central directory
    data[at : at + 4] = struct.pack("<I", size)
    place.write_bytes(data)


@pytest.mark.parametrize(
    ("size", "reason"), [(1000, "can't be unpacked ("), (2**30, f"{2**30} bytes unpacked, more tha")]
)
def test_a_member_that_unpacks_to_more_than_it_says_or_may(size: int, reason: str, home: Path, good: Path) -> None:
    place = zip_of(lay(good, {"pituitary/P99_1.png": bytes(60_000_000)}))
    lie(place, "pituitary/P99_1.png", size)
    name = f"{place}/pituitary/P99_1.png"
    assert refused(home, place, patient_pattern=BY_NAME).startswith(f"{name}: {reason}")
    cache = prepare(Source(str(place), patient_pattern=BY_NAME, on_bad="skip"))
    check_rows(cache, GOOD)
    assert list(cache.refused.path) == ["pituitary/P99_1.png"]
    assert cache.refused.reason[0].startswith(f"{name}: {reason}")


@pytest.mark.parametrize("on_bad", ["stop", "skip"])
def test_zips_nested_too_deep_or_damaged_are_no_data(on_bad: str, home: Path, tmp_path: Path) -> None:
    inner = zipped(tmp_path / "3.zip", {"glioma/P1_1.png": png(1)}).read_bytes()
    middle = zipped(tmp_path / "2.zip", {"3.zip": inner, "glioma/P2_1.png": png(2)}).read_bytes()
    place = zipped(tmp_path / "1.zip", {"2.zip": middle, "glioma/P3_1.png": png(3)})
    how = {"patient_pattern": BY_NAME, "on_bad": on_bad}
    assert refused(home, place, **how) == (f"{place}/2.zip: zips nested deeper than 2; unpack it and give the folder")
    place.write_bytes(place.read_bytes()[:-30])
    assert refused(home, place, **how).startswith(f"{place}: damaged or not a zip")


OUTSIDE = [
    "../../glioma/P11_1.png",
    "/glioma/P12_1.png",
    "..\\..\\glioma\\P13_1.png",
    "C:\\glioma\\P14_1.png",
    "glioma/../../../P15_1.png",
    "//host/share/P16_1.png",
    "~/P17_1.png",
]


def test_names_that_climb_out_of_a_zip_write_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "deep" / "er" / "a.zip"
    contents = {name: encoded(pixels, "PNG") for name, pixels in GOOD.items()}
    zipped(place, contents | {name: png(i) for i, name in enumerate(OUTSIDE, 11)})
    monkeypatch.chdir(place.parent)
    monkeypatch.setenv("HOME", str(tmp_path / "home of the user"))
    refused(home, place, patient_pattern=BY_NAME)  # since '..' is no class
    cache = prepare(Source(str(place), patient_pattern=BY_NAME, on_bad="skip"))
    assert {*cache.table.path, *cache.refused.path} == {*GOOD, *(name.replace("\\", "/") for name in OUTSIDE)}
    kept = cache.table.set_index("path").loc[list(GOOD)]
    assert list(kept["class"]) == [name.partition("/")[0] for name in GOOD]
    assert all(name[0].isalnum() for name in cache.classes)
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and home not in path.parents]
    assert outside == [place]
    assert not Path("/glioma").exists()
