"""Names of members that only fuzzing came upon."""

import struct
from pathlib import Path

import pytest
from makers import png, zipped

from sslbt.data.cache import prepare
from sslbt.data.files import iterate
from sslbt.data.source import Source
from sslbt.errors import UserError


def test_a_member_without_a_name_is_passed_over(tmp_path: Path) -> None:
    place = zipped(tmp_path / "a.zip", {"": png(1), "glioma/P1_1.png": png(2)})
    assert [name for name, _ in iterate(place)] == ["glioma/P1_1.png"]


def test_a_number_too_long_for_python_is_still_a_number(home: Path, tmp_path: Path) -> None:
    long = "1" * 5000
    contents = {f"glioma/{name}.png": png(seed) for seed, name in enumerate((f"{long}2", f"0{long}1", "7", long))}
    place = zipped(tmp_path / "a.zip", contents)
    order = [f"glioma/{name}.png" for name in ("7", long, f"0{long}1", f"{long}2")]
    assert [name for name, _ in iterate(place)] == order
    table = prepare(Source(str(place), patient_pattern="([0-9])[.]png$")).table
    assert (table.path.tolist(), table.fold.tolist()) == (order, [0] * 4)


def test_a_line_break_in_a_name_makes_no_second_line(tmp_path: Path) -> None:
    place = zipped(tmp_path / "a.zip", {"a\nb.png": png(1)})
    data = bytearray(place.read_bytes())
    data[:4] = struct.pack("<I", 7)  # the header of the member
    place.write_bytes(data)
    ((_, reader),) = iterate(place)
    with pytest.raises(UserError) as caught:
        reader()
    assert "\n" not in str(caught.value)
