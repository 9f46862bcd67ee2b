"""What `score` leaves in MLflow, and that no store costs a table."""

import json
import shutil
from pathlib import Path

import mlflow
import numpy as np
import onnx
import pandas as pd
import pytest
from PIL import Image
from stores import client_of, tracking_at

from sslbt.cli import main
from sslbt.steps import score as step
from sslbt.tracking import run as tracking

RELEASED = step.onnx_file("released")


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    """An empty store, which takes MLflow seconds to make."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    client_of(f"sqlite:///{path}").search_runs(["0"])
    return path


@pytest.fixture
def store(database, tmp_path, monkeypatch):
    shutil.copy(database, tmp_path)
    monkeypatch.setenv("SSLBT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tracking, "SAMPLED_AFTER", 0.0)
    monkeypatch.chdir(tmp_path)
    with tracking_at(f"sqlite:///{tmp_path}/mlflow.db") as client:
        yield client


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for number in range(12):
        pixels = noise.integers(0, 255, (40, 40), np.uint8)
        Image.fromarray(pixels).resize((160, 160)).save(folder / f"{number}.png")
    (folder / "bad.png").write_bytes(b"no picture")
    return folder


def score(*words: object) -> int:
    return main(["score", "--model", "released", *map(str, words)])


@pytest.mark.parametrize(("output", "small"), [("scores.csv", True), ("scores.csv", False), ("a/b.parquet", False)])
def test_a_run_holds_what_the_table_comes_to(store, pictures, monkeypatch, output, small):
    if not small:
        monkeypatch.setattr(step, "SMALL", 100)
        monkeypatch.setattr(step, "FIRST", 5)
    assert score("--input", pictures, "--output", output) == 0
    table = pd.read_csv(output) if output.endswith("csv") else pd.read_parquet(output)
    (run,) = store.search_runs(["0"])
    about = {one.key: one.value for one in onnx.load(RELEASED).metadata_props}
    good = table[table.label.notna()]
    expected = {
        "files": 13,
        "slices": 13,
        "failed": 1,
        "abstained": good.abstain.sum(),
        "mean_confidence": good.confidence.mean(),
        **{f"share_{name}": (good.label == name).mean() for name in json.loads(about["classes"])},
    }
    for name, value in expected.items():
        assert run.data.metrics[f"score/{name}"] == pytest.approx(value, abs=1e-6), name
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "score pictures"
    assert run.data.params["config/input"] == str(pictures)
    tags = {"stage": "score", "classifier": about["run_id"], "trained_on_data_digest": about["data_digest"]}
    assert tags.items() <= run.data.tags.items()
    assert {item.path for item in store.list_artifacts(run.info.run_id, "pictures")} == {"pictures/confidence.png"}
    (kept,) = store.list_artifacts(run.info.run_id, "scores")
    assert kept.path == (f"scores/{output}" if small else "scores/first_rows.csv")
    logged = pd.read_csv(store.download_artifacts(run.info.run_id, kept.path))
    pd.testing.assert_frame_equal(logged, table if small else table.head(5), check_dtype=False)


def test_without_a_store_the_table_is_there_all_the_same(store, pictures, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    assert score("--input", pictures) == 0
    said = capsys.readouterr().err
    assert "WARNING: scores.csv is complete, but MLflow has no whole run of it (http://127.0.0.1:9: no answer" in said
    assert len(pd.read_csv("scores.csv")) == 13


def test_what_fails_leaves_no_run(store, pictures, tmp_path, capsys):
    assert score("--input", tmp_path / "gone") == 2
    assert "gone: no such folder or file" in capsys.readouterr().err
    assert not store.search_runs(["0"])
