"""Names of members that only fuzzing came upon."""

import struct
from pathlib import Path

import pytest
from makers import png, zipped

from sslbt.data.files import iterate
from sslbt.errors import UserError


def test_a_member_without_a_name_is_passed_over(tmp_path: Path) -> None:
    place = zipped(tmp_path / "a.zip", {"": png(1), "glioma/P1_1.png": png(2)})
    assert [name for name, _ in iterate(place)] == ["glioma/P1_1.png"]


def test_a_line_break_in_a_name_makes_no_second_line(tmp_path: Path) -> None:
    place = zipped(tmp_path / "a.zip", {"a\nb.png": png(1)})
    data = bytearray(place.read_bytes())
    data[:4] = struct.pack("<I", 7)  # the header of the member
    place.write_bytes(data)
    ((_, reader),) = iterate(place)
    with pytest.raises(UserError) as caught:
        reader()
    assert "\n" not in str(caught.value)
