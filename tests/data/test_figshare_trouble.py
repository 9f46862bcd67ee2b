"""Cut lines, busy servers, wrong bytes, full disks: what a download makes of them."""

import hashlib
import os
import re
import socket
import time
from email.utils import formatdate
from pathlib import Path

import pytest
from figshare_server import FILES, WHOLE, A, Answer, Figshare, a_part, refused, right

from sslbt.data import figshare
from sslbt.data.figshare import download
from sslbt.errors import UserError

pytestmark = pytest.mark.usefixtures("pauses")  # nothing sleeps


def test_a_cut_connection_is_continued(tmp_path: Path, server: Figshare, pauses: list[float], capsys) -> None:
    server.answers = [Answer(only=200_000)]
    download(tmp_path, server.base, [A])
    assert server.ranges == [None, "bytes=196608-"]  # whole blocks of 65536
    assert right(tmp_path)
    assert pauses == [1]
    assert re.search(r"^a\.zip: .+; trying again in 1 s$", capsys.readouterr().err, re.MULTILINE)


def test_cuts_may_be_many_while_there_is_progress(tmp_path: Path, server: Figshare, monkeypatch, pauses) -> None:
    monkeypatch.setattr(figshare, "CHUNK", 4096)
    server.answers = [Answer(only=10_000) for _ in range(20)]
    download(tmp_path, server.base, [A])
    assert server.ranges == [None, *(f"bytes={8192 * n}-" for n in range(1, 21))]
    assert pauses == [1] * 20
    assert right(tmp_path)


def test_a_line_that_stays_cut(tmp_path: Path, server: Figshare, pauses: list[float]) -> None:
    server.answers = [Answer(only=100_000)]
    server.always = Answer(only=0)
    message = refused(tmp_path, server.base)
    assert re.fullmatch(
        rf"{server.root}/files/11: .+ \(6 times in a row\); 65536 bytes are in {tmp_path}/a\.zip\.part, "
        "the same command continues there once the network or the server is back",
        message,
    )
    assert server.ranges == [None, *["bytes=65536-"] * 5]
    assert pauses == [1, 2, 4, 8, 16]
    server.always = Answer()
    download(tmp_path, server.base, [A])
    assert server.ranges[6:] == ["bytes=65536-"]
    assert right(tmp_path)


def test_starting_again_and_again_is_no_progress(tmp_path: Path, server: Figshare) -> None:
    server.answers = [Answer(ranges=False, only=length) for length in (200_000, 70_000, 140_000) * 2]
    assert "6 times in a row" in refused(tmp_path, server.base)
    assert len(server.ranges) == 6


def test_a_stalled_connection_is_left(tmp_path: Path, server: Figshare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figshare, "TIMEOUT", (5, 0.2))
    server.answers = [Answer(only=100_000, stall=True), Answer(only=0, stall=True), Answer(mute=True)]
    begun = time.monotonic()
    download(tmp_path, server.base, [A])
    assert time.monotonic() - begun < 10  # the server would wait for a minute
    assert server.ranges == [None, *["bytes=65536-"] * 3]
    assert right(tmp_path)


def test_nobody_listens(tmp_path: Path, pauses: list[float]) -> None:
    with socket.socket() as taken:  # bound and not listening: no other process gets the port
        taken.bind(("127.0.0.1", 0))
        message = refused(tmp_path, f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert "Connection refused (6 times in a row); 0 bytes are in" in message
    assert len(pauses) == 5


ODD = ["?", "-7", "9" * 4301, "Wed, 21 Oct 999999999999 07:28:00 GMT"]


@pytest.mark.parametrize(
    ("asked", "pause"),
    [("7", 7), ("0", 1), ("999999", 120), *((odd, 1) for odd in ODD)],
    ids=lambda value: str(value)[:9],
)
@pytest.mark.parametrize("status", [429, 503])
def test_told_to_wait(status: int, asked: str, pause: int, tmp_path: Path, server: Figshare, pauses) -> None:
    server.answers = [Answer(status=status, headers={"Retry-After": asked})]
    download(tmp_path, server.base, [A])
    assert right(tmp_path)
    assert pauses == [pause]


@pytest.mark.parametrize(("ahead", "shortest", "longest"), [(50, 40, 50), (-50, 1, 1), (10**6, 120, 120)])
def test_told_until_when_to_wait(ahead: int, shortest: int, longest: int, tmp_path, server, pauses) -> None:
    server.answers = [Answer(status=429, headers={"Retry-After": formatdate(time.time() + ahead, usegmt=True)})]
    download(tmp_path, server.base, [A])
    assert right(tmp_path)
    assert shortest <= pauses[0] <= longest


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_stays_busy(status: int, tmp_path: Path, server: Figshare, pauses: list[float]) -> None:
    part = a_part(tmp_path, WHOLE[:1000])
    server.always = Answer(status=status)
    assert re.search(rf"answered {status} .+ \(6 times in a row\); 1000 bytes are in", refused(tmp_path, server.base))
    assert part.read_bytes() == WHOLE[:1000]
    assert pauses == [1, 2, 4, 8, 16]


@pytest.mark.parametrize("status", [202, 204, 401, 403, 404, 410, 416])
def test_a_refusal_is_final(status: int, tmp_path: Path, server: Figshare, pauses: list[float]) -> None:
    server.always = Answer(status=status)
    assert re.fullmatch(
        rf"{server.root}/files/11: answered {status} .+; check the address, or fetch a\.zip with a browser "
        rf"from https://doi\.org/10\.6084/m9\.figshare\.1512427 into {tmp_path}",
        refused(tmp_path, server.base),
    )
    assert len(server.ranges) == 1
    assert not pauses


@pytest.mark.parametrize(
    ("path", "why"), [("/loop/{id}", "Exceeded 30 redirects"), ("/local/{id}", "file:///etc/passwd")]
)
def test_redirects_to_nowhere(path: str, why: str, tmp_path: Path, server: Figshare) -> None:
    message = refused(tmp_path, server.root + path)
    assert message.startswith(f"{server.root}{path.format(id=11)}: can't be fetched (")
    assert why in message


def test_wrong_bytes_once(tmp_path: Path, server: Figshare, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers = [Answer(corrupt=True)]
    download(tmp_path, server.base, [A])
    assert server.ranges == [None, None]
    assert right(tmp_path)
    assert re.search(rf"^a\.zip: md5 \w{{32}} instead of {A.md5}, thrown away$", capsys.readouterr().err, re.MULTILINE)


def test_wrong_bytes_always(tmp_path: Path, server: Figshare) -> None:
    server.always = Answer(corrupt=True)
    found = hashlib.md5(bytes(byte ^ 1 for byte in WHOLE)).hexdigest()
    message = refused(tmp_path, server.base)
    assert f"/files/11: a.zip came with md5 {found} instead of {A.md5}, twice; try another network" in message
    assert server.ranges == [None, None]
    assert os.listdir(tmp_path) == [".lock"]


def test_what_came_before_a_failure_stays(tmp_path: Path, server: Figshare) -> None:
    server.answers = [Answer(), Answer(status=404)]
    with pytest.raises(UserError, match=r"b\.mat"):
        download(tmp_path, server.base, FILES)
    assert right(tmp_path)
    download(tmp_path, server.base, FILES)
    assert server.paths[4:] == ["/files/22", "/storage/b.mat"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk(tmp_path: Path, server: Figshare) -> None:
    (tmp_path / "a.zip.part").symlink_to("/dev/full")
    assert refused(tmp_path, server.base) == (
        f"{tmp_path}: No space left on device; mend that and run the same command again, it continues"
    )


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=rf"^{tmp_path}/file: File exists; mend that"):
        download(tmp_path / "file", "http://127.0.0.1:1")


def test_a_folder_in_the_way(tmp_path: Path, server: Figshare) -> None:
    (tmp_path / "a.zip.part").mkdir()
    assert refused(tmp_path, server.base).startswith(f"{tmp_path}/a.zip.part: Is a directory; mend that")
