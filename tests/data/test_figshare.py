"""A download arrives, once, from wherever it is, and is continued."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from figshare_server import CONTENTS, FILES, WHOLE, A, Answer, Figshare, a_part, refused, right

from sslbt.data import figshare
from sslbt.data.figshare import download

pytestmark = pytest.mark.usefixtures("pauses")  # nothing sleeps


def test_everything_arrives_once(tmp_path: Path, server: Figshare) -> None:
    folder = tmp_path / "new" / "folder"
    assert download(folder, server.base, FILES) == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENTS | {".lock": b""}
    assert server.paths == ["/files/11", "/storage/a.zip", "/files/22", "/storage/b.mat"]
    assert server.ranges == [None, None]
    assert server.encodings == {"identity"}
    download(folder, server.base, FILES)
    assert len(server.paths) == 4


def test_only_what_is_missing_is_fetched(tmp_path: Path, server: Figshare) -> None:
    (tmp_path / "a.zip").write_bytes(b"verified when it got its name")
    download(tmp_path, server.base, FILES)
    assert server.paths == ["/files/22", "/storage/b.mat"]
    assert (tmp_path / "a.zip").read_bytes() == b"verified when it got its name"


def test_a_finished_folder_needs_neither_server_nor_writing(tmp_path: Path) -> None:
    for name, data in CONTENTS.items():
        (tmp_path / name).write_bytes(data)
    download(tmp_path, "http://127.0.0.1:1/", FILES)
    assert sorted(os.listdir(tmp_path)) == ["a.zip", "b.mat"]


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("/mirror", "/mirror/a.zip"),
        ("/mirror/", "/mirror/a.zip"),
        ("/mirror/{name}", "/mirror/a.zip"),
        ("/{id}/of/{name}", "/11/of/a.zip"),
        ("/files/{id}", "/files/11"),
    ],
)
def test_forms_of_the_address(template: str, path: str, tmp_path: Path, server: Figshare) -> None:
    download(tmp_path, server.root + template, [A])
    assert server.paths[0] == path
    assert right(tmp_path)


@pytest.mark.parametrize("base", ["ftp://127.0.0.1/x", "file:///etc/{name}", "/srv/mirror", "httpx://a", ""])
def test_other_kinds_of_address(base: str, tmp_path: Path) -> None:
    assert refused(tmp_path, base) == f"{base}: not a web address; give one that starts with https:// or http://"


@pytest.mark.parametrize("host", ["[bad", "h:99999", "a b", ".x.org", "a" * 70 + ".org", ""])
def test_addresses_that_cannot_be(host: str, tmp_path: Path, pauses: list[float]) -> None:
    assert re.fullmatch(
        rf"http://{re.escape(host)}/a\.zip: can't be fetched \(.+\); check the address",
        refused(tmp_path, f"http://{host}/{{name}}"),
    )
    assert not pauses


def test_a_part_is_continued(tmp_path: Path, server: Figshare) -> None:
    a_part(tmp_path, WHOLE[:123_456])
    download(tmp_path, server.base, [A])
    assert server.ranges == ["bytes=123456-"]
    assert right(tmp_path)


def test_an_empty_part_is_no_range(tmp_path: Path, server: Figshare) -> None:
    a_part(tmp_path, b"")
    download(tmp_path, server.base, [A])
    assert server.ranges == [None]
    assert right(tmp_path)


def test_a_part_that_is_complete_is_not_fetched_again(tmp_path: Path, server: Figshare) -> None:
    a_part(tmp_path, WHOLE)
    download(tmp_path, server.base, [A])
    assert server.ranges == ["bytes=300000-"]
    assert right(tmp_path)


@pytest.mark.parametrize("wrong", [WHOLE + b"more", bytes(300_000), bytes(1000)], ids=["longer", "equal", "shorter"])
def test_a_part_that_is_wrong_is_thrown_away(wrong: bytes, tmp_path: Path, server: Figshare) -> None:
    a_part(tmp_path, wrong)
    download(tmp_path, server.base, [A])
    assert server.ranges == [f"bytes={len(wrong)}-", None]
    assert right(tmp_path)


def test_a_server_without_ranges_sends_the_whole(tmp_path: Path, server: Figshare) -> None:
    a_part(tmp_path, WHOLE[:1000])
    server.always = Answer(ranges=False)
    download(tmp_path, server.base, [A])
    assert server.ranges == ["bytes=1000-"]
    assert right(tmp_path)


def test_another_range_than_asked_for_is_not_appended(tmp_path: Path, server: Figshare) -> None:
    a_part(tmp_path, WHOLE[:1000])
    server.answers = [Answer(wrong_range=True)]
    download(tmp_path, server.base, [A])
    assert server.ranges == ["bytes=1000-", None]
    assert right(tmp_path)


def test_a_range_nobody_asked_for(tmp_path: Path, server: Figshare) -> None:
    server.always = Answer(status=206, wrong_range=True)
    assert "answered with another part of the file (6 times in a row); 0 bytes" in refused(tmp_path, server.base)
    assert len(server.ranges) == 6


def shares(err: str) -> list[int]:
    lines = [re.fullmatch(r"downloading a\.zip: (\d+) % of 0\.3 MB", line) for line in err.splitlines()]
    assert all(lines)
    return [int(line[1]) for line in lines if line]


def test_plain_lines_tell_how_far_it_is(tmp_path: Path, server: Figshare, monkeypatch, capsys) -> None:
    monkeypatch.setattr(figshare, "CHUNK", 1000)
    download(tmp_path, server.base, [A])
    assert shares(capsys.readouterr().err) == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    (tmp_path / "a.zip").unlink()
    a_part(tmp_path, WHOLE[:200_000])
    download(tmp_path, server.base, [A])
    assert shares(capsys.readouterr().err) == [70, 80, 90, 100]


def test_a_length_nobody_told(tmp_path: Path, server: Figshare, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers = [Answer(sized=False)]
    download(tmp_path, server.base, [A])
    assert right(tmp_path)
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(tmp_path: Path, server: Figshare, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    a_part(tmp_path, WHOLE[:150_000])
    download(tmp_path, server.base, [A])
    bars = re.findall(r"downloading a\.zip: +(\d+)%\|.*?\| (\d+k)/300k", terminal.getvalue())
    assert bars[0] == ("50", "150k")
    assert bars[-1] == ("100", "300k")
    assert " % of " not in terminal.getvalue()


SCRIPT = """
import sys
from pathlib import Path
from sslbt.data.figshare import Remote, download
folder, base, *files = sys.argv[1:]
print("ready", flush=True)
download(Path(folder), base, [Remote(*file.split()) for file in files])
"""


@pytest.fixture
def start(tmp_path: Path, server: Figshare) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Begins the same download in another process."""
    processes: list[subprocess.Popen[str]] = []

    def begin() -> subprocess.Popen[str]:
        files = [f"{file.name} {file.id} {file.md5}" for file in FILES]
        command = [sys.executable, "-c", SCRIPT, str(tmp_path), server.base, *files]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT", "SIGTERM"])
def test_a_killed_download_is_continued(how: str, tmp_path: Path, server: Figshare, start) -> None:
    server.answers = [Answer(only=200_000, stall=True)]
    process, part = start(), tmp_path / "a.zip.part"
    wait_for(lambda: part.exists() and part.stat().st_size > 100_000)
    process.send_signal(getattr(signal, how))
    assert process.wait(10) != 0
    assert sorted(os.listdir(tmp_path)) == [".lock", "a.zip.part"]
    have = part.stat().st_size
    assert part.read_bytes() == WHOLE[:have]
    download(tmp_path, server.base, FILES)
    assert server.ranges == [None, f"bytes={have}-", None]
    assert right(tmp_path)


def test_processes_wait_for_each_other(tmp_path: Path, server: Figshare, start) -> None:
    server.answers = [Answer(only=100_000, stall=True)]  # time for the others to come, then it is cut
    processes = [start() for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    wait_for(lambda: (tmp_path / "a.zip.part").exists())
    time.sleep(0.5)
    assert server.ranges == [None]
    server.go_on.set()
    for process in processes:
        assert process.wait(20) == 0, process.stderr.read()
    assert server.ranges == [None, "bytes=65536-", None]
    assert right(tmp_path)
    assert (tmp_path / "b.mat").read_bytes() == CONTENTS["b.mat"]
