import io
import os
import re
import struct
import tracemalloc
import zipfile
from collections.abc import Mapping
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sslbt.data import files as sources
from sslbt.data.files import fingerprint, iterate, natural
from sslbt.errors import UserError

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
Contents = Mapping[str, bytes]


def packed(contents: Contents, how: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return out.getvalue()


def a_zip(tmp_path: Path, contents: Contents | bytes) -> Path:
    path = tmp_path / "download.zip"
    path.write_bytes(contents if isinstance(contents, bytes) else packed(contents))
    return path


def a_folder(tmp_path: Path, contents: Contents) -> Path:
    for name, data in contents.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "folder"


def read_all(source: Path) -> list[tuple[str, bytes]]:
    return [(name, read()) for name, read in iterate(source)]


def refused(source: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_all(source)
    return str(caught.value)


MIXED = {"10.mat": b"ten", "2.mat": b"two", "1.PNG": b"one", "a/3.jpg": b"a3", "a/20.tiff": b"a20", "A/1.jpeg": b"A1"}
ORDER = ["1.PNG", "2.mat", "10.mat", "A/1.jpeg", "a/3.jpg", "a/20.tiff"]
IGNORED = {"README.txt": b"", "a/.hidden.png": b"", "Thumbs.db": b"", "noending": b"", ".png": b"", "a/x.csv": b""}


@pytest.mark.parametrize("make", [a_folder, a_zip])
def test_pictures_come_in_natural_order_and_nothing_else_comes(make, tmp_path: Path) -> None:
    source = make(tmp_path, MIXED | IGNORED)
    assert read_all(source) == [(name, MIXED[name]) for name in ORDER]


def test_one_file_is_a_source(tmp_path: Path) -> None:
    source = a_folder(tmp_path, {"x.png": b"data"}) / "x.png"
    assert read_all(source) == [("x.png", b"data")]


@given(st.lists(st.integers(0, 10**6), min_size=2), st.sampled_from(["", "slice ", "a/b-"]))
def test_numbers_sort_as_numbers(numbers: list[int], prefix: str) -> None:
    names = [f"{prefix}{number}.png" for number in numbers]
    assert sorted(names, key=natural) == [f"{prefix}{number}.png" for number in sorted(numbers)]


@given(st.lists(st.text(alphabet="aB2²٣ⅷ0/.", max_size=6), unique=True), st.randoms())
def test_any_names_have_one_order(names: list[str], random: Random) -> None:
    expected = sorted(names, key=natural)
    random.shuffle(names)
    assert sorted(names, key=natural) == expected


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zips_in_zips_are_read_without_unpacking(how: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = [packed({f"{n}.mat": str(n).encode() for n in numbers}, how) for numbers in ((11, 9, 10), (1, 2))]
    source = a_zip(tmp_path, packed({"set_9-11.zip": inner[0], "set_1-2.zip": inner[1], "cvind.mat": b"folds"}, how))
    monkeypatch.chdir(tmp_path)
    expected = [("cvind.mat", b"folds"), *((f"{n}.mat", str(n).encode()) for n in (1, 2, 9, 10, 11))]
    assert read_all(source) == expected
    assert os.listdir(tmp_path) == ["download.zip"]


def test_what_macos_adds_is_left_out(tmp_path: Path) -> None:
    inner = packed({"1.mat": b"one", "__MACOSX/._1.mat": b"\0"})
    source = a_zip(tmp_path, {"set.zip": inner, "__MACOSX/._set.zip": b"\0\5\x16\7", "__MACOSX/2.mat": b"\0"})
    assert read_all(source) == [("1.mat", b"one")]


def test_a_folder_that_is_called_like_a_file(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.mkdir("set.mat")
        archive.writestr("set.mat/1.mat", b"one")
    assert read_all(a_zip(tmp_path, out.getvalue())) == [("set.mat/1.mat", b"one")]
    assert read_all(a_folder(tmp_path, {"set.mat/1.mat": b"one"})) == [("set.mat/1.mat", b"one")]
    assert len(fingerprint(tmp_path / "folder")) == 16


def test_names_that_climb_out_write_nothing(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "er"
    place.mkdir(parents=True)
    names = ["../../escaped.mat", "/escaped.mat", "a\\..\\escaped.mat"]
    found = read_all(a_zip(place, dict.fromkeys(names, b"data")))
    assert [data for _, data in found] == [b"data"] * 3
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [place / "download.zip"]


@pytest.mark.parametrize("make", [a_folder, a_zip])
def test_nothing_to_read(make, tmp_path: Path) -> None:
    source = make(tmp_path, IGNORED)
    assert refused(source).startswith(f"{source}: holds no slice")


def test_a_missing_source(tmp_path: Path) -> None:
    assert refused(tmp_path / "typo") == (
        f"{tmp_path}/typo: no such folder or file; give a folder of slices or the downloaded zip"
    )
    with pytest.raises(UserError, match="no such folder or file"):
        fingerprint(tmp_path / "typo")


def test_another_kind_of_file(tmp_path: Path) -> None:
    source = a_folder(tmp_path, {"notes.txt": b"hello"}) / "notes.txt"
    assert "neither a folder, a zip, nor one of .mat, .png" in refused(source)


def test_a_zip_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    whole = packed({"1.mat": bytes(range(256)) * 4, "set.zip": packed({"2.mat": b"two" * 99})})
    for length in range(0, len(whole) - 1, 23):
        assert "download.zip" in refused(a_zip(tmp_path, whole[:length]))


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_within_a_zip_names_the_file(how: int, tmp_path: Path) -> None:
    content = bytes(i * i % 251 for i in range(3000))
    data = bytearray(packed({"1.mat": b"one", "sub/2.mat": content}, how))
    start = data.index(b"sub/2.mat") + len("sub/2.mat")
    data[start + 30 : start + 60] = bytes(30)
    source = a_zip(tmp_path, bytes(data))
    assert refused(source).startswith(f"{source}/sub/2.mat: can't be unpacked")


def test_a_damaged_zip_within_a_zip_is_named(tmp_path: Path) -> None:
    source = a_zip(tmp_path, {"one.zip": packed({"1.mat": b"one"}), "two.zip": b"PK\3\4 not really"})
    assert refused(source).startswith(f"{source}/two.zip: damaged or not a zip")


def test_something_else_named_zip(tmp_path: Path) -> None:
    for data in (b"", b"Rar!\x1a\7\0", b"<html>404</html>"):
        source = a_zip(tmp_path, data)
        assert refused(source).startswith(f"{source}: damaged or not a zip")


def test_a_zip_with_names_in_broken_utf8(tmp_path: Path) -> None:
    data = packed({"ü.mat": b"data"}).replace("ü".encode(), b"\xff\xff")
    assert "damaged or not a zip" in refused(a_zip(tmp_path, data))


def test_a_zip_with_a_password(tmp_path: Path) -> None:
    data = bytearray(packed({"1.mat": b"data"}))
    for header, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(header) + flags] |= 1
    assert "1.mat: can't be unpacked (" in refused(a_zip(tmp_path, bytes(data)))


def test_zips_nested_too_deep(tmp_path: Path) -> None:
    second = packed({"two.zip": packed({"1.mat": b"one"})})
    assert "one.zip: zips nested deeper than 2" in refused(a_zip(tmp_path, {"one.zip": second}))


@pytest.mark.parametrize("make", [a_folder, a_zip])
def test_a_file_too_large_is_not_read(make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(tmp_path, {"1.mat": b"12345", "2.mat": b"123456"})
    monkeypatch.setattr(sources, "MAX_FILE", 5)
    files = dict(iterate(source))
    assert list(files) == ["1.mat", "2.mat"]
    assert "2.mat: 6 bytes" in refused(source)


def test_an_inner_zip_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = packed({"1.mat": b"one"})
    source = a_zip(tmp_path, {"set.zip": inner})
    monkeypatch.setattr(sources, "MAX_INNER_ZIP", len(inner) - 1)
    assert f"set.zip: {len(inner)} bytes unpacked, more than {len(inner) - 1}" in refused(source)


def test_a_size_that_is_a_lie_costs_no_memory(tmp_path: Path) -> None:
    data = bytearray(packed({"1.mat": bytes(50_000_000)}))
    size = data.rindex(b"PK\1\2") + 24  # the unpacked size in the central directory, which zipfile believes
    data[size : size + 4] = struct.pack("<I", 1000)
    source = a_zip(tmp_path, bytes(data))
    tracemalloc.start()
    try:
        assert "1.mat: can't be unpacked" in refused(source)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_link_to_nowhere_is_named(tmp_path: Path) -> None:
    source = a_folder(tmp_path, {"1.mat": b"one"})
    (source / "2.mat").symlink_to(tmp_path / "gone.mat")
    for read in (read_all, fingerprint):
        with pytest.raises(UserError, match=r"2\.mat: can't be read \(No such file"):
            read(source)


def test_linked_folders_are_read_once_and_circles_end(tmp_path: Path) -> None:
    source = a_folder(tmp_path, {"glioma/1.mat": b"one"})
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    (tmp_path / "elsewhere/deep/2.mat").write_bytes(b"two")
    (source / "pituitary").symlink_to(tmp_path / "elsewhere")
    expected = [("glioma/1.mat", b"one"), ("pituitary/deep/2.mat", b"two")]
    before = fingerprint(source)
    assert read_all(source) == expected
    for number in range(3):
        (source / f"again {number}").symlink_to(source)
        (tmp_path / f"elsewhere/deep/back {number}").symlink_to(source)
        (source / f"a copy {number}").symlink_to(source / "glioma")
    assert read_all(source) == expected
    assert fingerprint(source) == before
    (tmp_path / "elsewhere/3.mat").write_bytes(b"three")
    assert read_all(source) == [*expected[:1], ("pituitary/3.mat", b"three"), *expected[1:]]
    assert fingerprint(source) != before


@pytest.mark.skipif(AS_ROOT, reason="root may read everything")
@pytest.mark.parametrize("closed", ["1.mat", "sub", "."])
def test_without_permission(closed: str, tmp_path: Path) -> None:
    source = a_folder(tmp_path, {"1.mat": b"one", "sub/2.mat": b"two"})
    mode = (source / closed).stat().st_mode
    (source / closed).chmod(0)
    try:
        assert re.match(rf"{re.escape(str(source / closed))}.*: can't be read \(Permission denied\)", refused(source))
    finally:
        (source / closed).chmod(mode)


@pytest.mark.parametrize("closed", ["1.mat", "sub"])
def test_what_the_system_denies_is_named(closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = a_folder(tmp_path, {"1.mat": b"one", "sub/2.mat": b"two"})
    read, scan = Path.read_bytes, os.scandir

    def deny(path: Path | str) -> None:
        if Path(path) == source / closed:
            raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", lambda path: deny(path) or read(path))
    monkeypatch.setattr(os, "scandir", lambda path: deny(path) or scan(path))
    assert refused(source).startswith(f"{source}/{closed}: can't be read (Permission denied)")


def test_a_fingerprint_stays_until_a_file_changes(tmp_path: Path) -> None:
    source = a_folder(tmp_path, MIXED | IGNORED)
    seen = [fingerprint(source)]
    (source / "README.txt").write_text("another text")
    assert fingerprint(source) == seen[0]

    def changed() -> bool:
        seen.append(fingerprint(source))
        assert fingerprint(source) == seen[-1]
        return len(set(seen)) == len(seen)

    (source / "2.mat").write_bytes(b"longer")
    assert changed()
    status = (source / "2.mat").stat()
    os.utime(source / "2.mat", ns=(status.st_atime_ns, status.st_mtime_ns + 1000))
    assert changed()
    (source / "3.mat").write_bytes(b"new")
    assert changed()
    (source / "3.mat").rename(source / "4.mat")
    assert changed()
    (source / "4.mat").rename(source / "a/4.mat")
    assert changed()
    (source / "a/4.mat").unlink()
    assert fingerprint(source) == seen[2]


def test_a_fingerprint_of_a_zip_changes_with_it(tmp_path: Path) -> None:
    before = fingerprint(a_zip(tmp_path, {"1.mat": b"one"}))
    assert fingerprint(a_zip(tmp_path, {"1.mat": b"one", "2.mat": b"two"})) != before


@pytest.mark.skipif(os.name == "nt" or os.uname().sysname == "Darwin", reason="names are Unicode there")
def test_file_names_that_are_not_unicode(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(b"data")
    assert [data for _, data in read_all(tmp_path)] == [b"data"]
    assert len(fingerprint(tmp_path)) == 16
