"""The whole way on a team's server: train, evaluate, register, promote, roll back, trace, score."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import onnxruntime
import pandas as pd
import pytest
from mlflow import MlflowClient
from place import Place
from stores import tracking_at
from team import ADMIN, postgres_programs, team_server

from sslbt.data.formats import decode

NAME = "brain-tumor-classifier"
CHAMPION = f"models:/{NAME}@champion"


@dataclass(frozen=True)
class Team:
    """The store's address and a folder in which a member of the team works."""

    address: str
    place: Place  # its processes

    def run(self, *words: object) -> str:
        return self.place.succeed(*words)

    @property
    def aliases(self) -> dict[str, str]:
        return MlflowClient(self.address).get_registered_model(NAME).aliases


@pytest.fixture(scope="module")
def team(tmp_path_factory) -> Iterator[Team]:
    if postgres_programs() is None:
        assert "SSLBT_NEVER_SKIP" not in os.environ, "PostgreSQL is missing"
        pytest.skip("needs PostgreSQL, Debian's package postgresql")
    folder = tmp_path_factory.mktemp("team")
    with pytest.MonkeyPatch.context() as patch, team_server(folder) as address:
        for key, value in ADMIN.items():
            patch.setenv(key, value)
        own = ADMIN | {"MLFLOW_TRACKING_URI": address, "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false"}
        yield Team(address, Place(folder, own))


@pytest.fixture(scope="module")
def registered(team: Team, phantoms: Path) -> str:
    """What was said when a classifier had been trained, evaluated and registered."""
    team.run("sslbt", "finetune", "--data", phantoms, "--preset", "tiny", "--labels", "12")
    client = MlflowClient(team.address)
    (finetuned,) = client.search_runs(["0"], "tags.stage = 'finetune'")
    team.run("sslbt", "evaluate", "--data", phantoms, "--model", finetuned.info.run_id)
    return team.run("sslbt", "register")


def test_a_version_goes_into_service_and_back(team: Team, registered: str) -> None:
    assert f"{NAME} version 1 is champion: none was in service" in registered
    (run,) = MlflowClient(team.address).search_runs(["0"], "tags.stage = 'register'")
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")  # through the server, not by a path
    assert run.data.tags["asked_by"] == "admin"
    (evaluation,) = MlflowClient(team.address).search_runs(["0"], "tags.stage = 'evaluate'")
    said = team.run("sslbt", "register", "--run", evaluation.info.run_id)
    assert f"{NAME} version 2 is champion: not clearly below the champion" in said
    assert team.aliases == {"champion": "2", "challenger": "2", "previous": "1"}
    team.run("sslbt", "rollback")
    assert team.aliases == {"champion": "1", "challenger": "2", "previous": "2"}
    assert f"{NAME} version 2 is champion" in team.run("sslbt", "promote")
    assert team.aliases["champion"] == "2"


def test_a_score_by_address_is_that_of_the_file_and_leads_back(team: Team, registered: str, phantoms: Path) -> None:
    output = team.place.folder / "scores.csv"
    team.run("sslbt", "score", "--model", CHAMPION, "--input", phantoms / "1.mat", "--output", output)
    (row,) = pd.read_csv(output).to_dict("records")
    client = MlflowClient(team.address)
    (run, *_) = client.search_runs(["0"], "tags.stage = 'register'")
    session = onnxruntime.InferenceSession(client.download_artifacts(run.info.run_id, "onnx/classifier.onnx"))
    pixels = decode((phantoms / "1.mat").read_bytes(), "1.mat").astype(np.float32)
    expected = session.run(["confidence"], {"image": pixels[None]})[0][0]
    assert row["confidence"] == pytest.approx(float(expected), abs=1e-5)
    with tracking_at(team.address):
        loaded = mlflow.pyfunc.load_model(CHAMPION)
    (same,) = loaded.predict(pd.DataFrame({"image": [(phantoms / "1.mat").read_bytes()]})).to_dict("records")
    assert same["confidence"] == pytest.approx(row["confidence"], abs=1e-5)
    (finetuned,) = client.search_runs(["0"], "tags.stage = 'finetune'")
    assert row["model_version"] == finetuned.info.run_id
    said = team.run("sslbt", "lineage", row["model_version"])
    for fact in ("data_digest", "split_hash", "code_version"):
        assert finetuned.data.tags[fact] in said
    assert "champion" in said


def test_a_wrong_password_is_told_in_a_sentence(team: Team) -> None:
    stranger = Place(team.place.folder, team.place.variables | {"MLFLOW_TRACKING_PASSWORD": "wrong"})
    code, said = stranger.run("sslbt", "promote")
    assert code == 2
    assert "admin with this password is not known there" in said
    assert "Traceback" not in said
