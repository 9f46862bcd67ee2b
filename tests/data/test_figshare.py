import hashlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from threading import Event, Thread

import pytest

from sslbt.data import figshare
from sslbt.data.figshare import Remote, download
from sslbt.errors import UserError

CONTENTS = {"a.zip": Random(1).randbytes(300_000), "b.mat": Random(2).randbytes(5_000)}
IDS = {"a.zip": 11, "b.mat": 22}
A, B = FILES = [Remote(name, IDS[name], hashlib.md5(data).hexdigest()) for name, data in CONTENTS.items()]
WHOLE = CONTENTS["a.zip"]


@dataclass
class Answer:
    """What the storage does with one request; by default, what it should."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    only: int | None = None  # bytes of the promised body
    stall: bool = False  # then, instead of hanging up
    mute: bool = False
    sized: bool = True
    ranges: bool = True
    wrong_range: bool = False
    corrupt: bool = False


class Figshare(ThreadingHTTPServer):
    """Redirects /files/ID to /storage/NAME, as figshare does, and serves a mirror under other paths."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = f"http://127.0.0.1:{self.server_port}"
        self.base = self.root + "/files/{id}"
        self.answers: list[Answer] = []
        self.always: Answer = Answer()
        self.paths: list[str] = []
        self.ranges: list[str | None] = []  # asked of the storage, in order
        self.encodings: set[str | None] = set()
        self.go_on = Event()


class Handler(BaseHTTPRequestHandler):
    server: Figshare
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def redirect(self, where: str) -> None:
        self.send_response(302)
        self.send_header("Location", where)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        server, path = self.server, self.path.partition("?")[0]
        server.paths.append(path)
        server.encodings.add(self.headers["Accept-Encoding"])
        if path.startswith("/files/"):
            name = next(name for name, number in IDS.items() if path == f"/files/{number}")
            self.redirect(f"{server.root}/storage/{name}?signature=x%2Fy")
        elif path.startswith("/loop/"):
            self.redirect(path)
        elif path.startswith("/local/"):
            self.redirect("file:///etc/passwd")
        else:
            server.ranges.append(self.headers["Range"])
            self.serve(CONTENTS[path.split("/")[-1]], server.answers.pop(0) if server.answers else server.always)

    def serve(self, body: bytes, answer: Answer) -> None:
        first = int(self.headers.get("Range", "bytes=0-")[6:-1]) if answer.ranges else 0
        partial = answer.ranges and "Range" in self.headers
        status = answer.status or (200 if not partial else 206 if first < len(body) else 416)
        if answer.corrupt:
            body = bytes(byte ^ 1 for byte in body)
        rest = body[first:] if status in (200, 206) else b"some words"
        if answer.mute:
            self.server.go_on.wait(60)
        self.send_response(status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if status == 206:
            said = first + 7 if answer.wrong_range else first
            self.send_header("Content-Range", f"bytes {said}-{len(body) - 1}/{len(body)}")
        if answer.sized:
            self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: answer.only])
        self.close_connection = True
        if answer.stall:
            self.server.go_on.wait(60)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Figshare]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Figshare() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.go_on.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it would have waited each time."""
    seconds: list[float] = []
    monkeypatch.setattr(figshare, "sleep", seconds.append)
    return seconds


def refused(folder: Path, base: str) -> str:
    with pytest.raises(UserError) as caught:
        download(folder, base, [A])
    assert not (folder / "a.zip").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def a_part(folder: Path, data: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "a.zip.part").write_bytes(data)
    return folder / "a.zip.part"


def right(folder: Path) -> bool:
    return (folder / "a.zip").read_bytes() == WHOLE and not (folder / "a.zip.part").exists()


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
