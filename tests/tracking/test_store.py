"""A server that does not answer, or does not know this user, is not taken for an empty store."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError
from stores import tracking_at

from sslbt.cli import main
from sslbt.data.phantom import make_sample
from sslbt.tracking import registry
from sslbt.tracking.store import absent, trouble

NAME = "brain-tumor-classifier"


class Refusing(BaseHTTPRequestHandler):
    """Refuses everything with the server's status."""

    def _refuse(self) -> None:
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.end_headers()
        self.wfile.write(b"no")

    do_GET = do_POST = _refuse

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPServer]:
    """Someone who refuses is the tracking server."""
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with tracking_at(f"http://127.0.0.1:{server.server_port}"):
            yield server
        server.shutdown()


@pytest.mark.parametrize("words", [["promote"], ["rollback"], ["lineage"], ["lineage", "0" * 32], ["register"]])
@pytest.mark.parametrize(
    ("status", "user", "said"),
    [
        (401, "", "it asks who you are; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (401, "ada", "ada with this password is not known there"),
        (403, "ada", "ada may not do this there"),
    ],
)
def test_who_is_refused_is_told_so(
    server: HTTPServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    status: int,
    user: str,
    said: str,
) -> None:
    server.status = status  # type: ignore[attr-defined]
    if user:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert f"sslbt: http://127.0.0.1:{server.server_port}: {said}" in error
    assert "Traceback" not in error


def test_nobody_answers(
    server: HTTPServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    assert main(["lineage"]) == 2
    assert "sslbt: http://127.0.0.1:9: no answer; is the server up" in capsys.readouterr().err


def test_a_champion_that_cant_be_asked_for_is_not_none(server: HTTPServer) -> None:
    server.status = 500  # type: ignore[attr-defined]
    with pytest.raises(MlflowException):
        registry.champion(NAME)


def test_what_is_not_there_is_absent(experiment: str) -> None:
    with pytest.raises(MlflowException) as caught:
        mlflow.MlflowClient().get_run("0" * 32)
    assert absent(caught.value)
    assert trouble(caught.value) == trouble(ValueError("401")) == ""
    assert registry.champion("nothing of this name") is None


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("MLFLOW_EXPERIMENT_ID", "holds no experiment 12345; unset MLFLOW_EXPERIMENT_ID"),
        ("MLFLOW_RUN_ID", "12345: no such run in"),
    ],
)
def test_what_variables_of_mlflow_name_and_is_not_there(
    variable: str,
    said: str,
    experiment: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SSLBT_HOME", str(tmp_path))
    monkeypatch.setattr(mlflow.tracking.fluent, "_active_experiment_id", None)
    monkeypatch.setenv(variable, "12345")
    make_sample(tmp_path / "phantoms", patients=9, size=32)
    for words in (["prepare"], ["pretrain-encoder", "--preset", "tiny"]):
        assert main([*words, "--data", str(tmp_path / "phantoms")]) == 2
        assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_file_that_can_not_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(OperationalError) as caught:
        create_engine(f"sqlite:///{tmp_path}/gone/mlflow.db").connect()
    said = trouble(caught.value)
    assert said.startswith(mlflow.get_tracking_uri())
    assert "can't be opened (unable to open database file)" in said


def test_a_file_that_another_process_keeps_locked_is_said() -> None:
    caught = MlflowException("(sqlite3.OperationalError) database is locked [SQL: BEGIN]")
    assert trouble(caught).endswith(
        "another process keeps it locked; if that one hangs, end it, then give the same command again"
    )
