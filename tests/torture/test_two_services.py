"""Two services on one registry and one cache follow every rollback, and lose no request meanwhile."""

import json
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import onnx
import pytest
from place import Place
from size import times
from team import free_port

from serve.current import LOOK_EVERY
from serve.session import Classifier
from sslbt.data.formats import decode
from sslbt.data.phantom import make_sample
from sslbt.tracking.models import onnx_file

NAME = "brain-tumor-classifier"
PLAUSIBLE = {"1": "0.0001", "2": "0.3", "3": "0.3"}  # the first never decides on a class; the third is never in service
LOADING = 30.0  # seconds that asking the registry and loading may take on a busy machine


@dataclass
class Asked:
    """What one client was told: when, by which version, the row."""

    port: int
    answers: list[tuple[float, str, dict]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def ask(self, picture: bytes, ended: threading.Event) -> None:
        with httpx.Client(timeout=60) as client:
            while not ended.is_set():
                try:
                    answer = client.post(f"http://127.0.0.1:{self.port}/predict", content=picture).raise_for_status()
                except httpx.HTTPError as error:
                    self.lost.append(repr(error))
                    continue
                told = answer.json()
                self.answers.append((time.monotonic(), told["model"]["model_version"], told["predictions"][0]))

    def last(self) -> str:
        return self.answers[-1][1] if self.answers else ""


@pytest.fixture
def registry(tmp_path: Path) -> Place:
    """Three versions of the released classifier: 1 in service, 2 before, 3 the challenger."""
    place = Place(tmp_path)
    place.client.create_registered_model(NAME)
    for version, threshold in PLAUSIBLE.items():
        folder = tmp_path / version / "artifacts"
        folder.mkdir(parents=True)
        graph = onnx.load(onnx_file("released"))
        about = {prop.key: prop.value for prop in graph.metadata_props}
        onnx.helper.set_model_props(
            graph, about | {"run_id": version * 32, "plausible_above": threshold, "strange_above": "1e9"}
        )
        onnx.save(graph, folder / "classifier.onnx")
        place.client.create_model_version(NAME, folder.parent.as_uri())
    for alias, version in (("champion", "1"), ("previous", "2"), ("challenger", "3")):
        place.client.set_registered_model_alias(NAME, alias, version)
    return place


def test_two_services_follow_every_rollback(registry: Place) -> None:
    make_sample(registry.folder / "phantoms", patients=3, size=64)
    picture = (registry.folder / "phantoms" / "1.mat").read_bytes()
    expected = {}
    for version in ("1", "2"):
        own = Classifier.load(registry.folder / version / "artifacts" / "classifier.onnx")
        (row,) = own.rows([decode(picture, "1.mat")])
        expected[version] = {name: row[name] for name in ("label", "abstain")}
    assert expected["1"] != expected["2"], "the two can't be told apart"
    clients = [Asked(port) for port in (free_port(), free_port()) for _ in range(2)]
    services = [registry.start("sslbt", "serve", "--port", own.port) for own in clients[::2]]
    ended = threading.Event()
    threads = [threading.Thread(target=own.ask, args=(picture, ended)) for own in clients]
    try:
        for own in clients:
            wait_until(lambda own=own: healthy(own.port), 120)
        for thread in threads:
            thread.start()
        wait_until(lambda: all(own.last() == "1" for own in clients), 60)
        champion, waits = "1", []
        for _ in range(times(1, 10)):
            before = {id(own): len(own.answers) for own in clients}
            code, said = registry.run("sslbt", "rollback")
            moved = time.monotonic()
            assert code == 0, said
            old, champion = champion, "2" if champion == "1" else "1"
            wait_until(lambda champion=champion: all(own.last() == champion for own in clients), LOOK_EVERY + LOADING)
            for own in clients:
                since = own.answers[before[id(own)] :]
                versions = [version for _, version, _ in since]
                assert versions == sorted(versions, key=[old, champion].index)  # one change, never back
                waits.append(next(when for when, version, _ in since if version == champion) - moved)
        answers = sum(len(own.answers) for own in clients)
        print(f"{answers} answers; the last changed {max(waits):.1f} s after the command ended")
    finally:
        ended.set()
        for thread in threads:
            if thread.ident:
                thread.join()
        said = [registry.stop(service, signal.SIGTERM) for service in services]
    assert [own.lost for own in clients] == [[]] * len(clients), said
    assert not [text for text in said if "Traceback" in text or "WARNING" in text]
    for own in clients:
        for _, version, row in own.answers:
            assert version in ("1", "2")  # the third was never champion
            assert {name: row[name] for name in ("label", "abstain")} == expected[version]
    (note,) = (registry.folder / "home" / "served").glob("*.json")
    number, key = json.loads(note.read_text())
    assert number == champion
    assert (note.parent / key / "classifier.onnx").is_file()
    assert not [
        path for path in note.parent.iterdir() if path.name.startswith((".partial", f"{note.stem}.")) and path != note
    ]


def healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.TransportError:
        return False


def wait_until(holds, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)
