"""From the released weights: a classifier from a dozen pictures of one's own, scores, a service; nothing trained first.

The weights here are made of phantoms, by the commands and the script that make the real ones.
"""

import signal
import socket
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from forks import RELEASED, Job
from PIL import Image

from sslbt.data.matlab import read_mat
from sslbt.data.phantom import make_sample

ROOT = Path(__file__).parents[2]
CLASSES = ["meningioma", "glioma", "pituitary"]


@pytest.fixture(scope="module")
def released(make_place, phantoms, tmp_path_factory) -> Path:
    """Pretrained and fine-tuned on all phantoms, and what the release script makes of it."""
    place = make_place(tmp_path_factory.mktemp("released"))
    training = ["--data", phantoms, "--preset", "tiny", "--split", "all"]
    place.succeed("sslbt", "pretrain-contrastive", *training)
    (pretraining,) = place.runs()
    place.succeed("sslbt", "finetune", *training, "--labels", "all", "--pretrained", pretraining.info.run_id)
    checkpoints = [place.client.download_artifacts(pretraining.info.run_id, "checkpoint/encoder.safetensors")]
    (tuning,) = place.runs("tags.stage = 'finetune'")
    checkpoints.append(place.client.download_artifacts(tuning.info.run_id, "checkpoint/classifier.safetensors"))
    said = place.succeed(
        sys.executable, ROOT / "benchmarks" / "release.py", phantoms, *checkpoints, "--folder", place.folder
    )
    assert f"over {len(list(phantoms.glob('[0-9]*.mat')))} slices" in said
    return place.folder


@pytest.fixture(scope="module")
def dozen(tmp_path_factory) -> Path:
    """A slice each of twelve other people as PNG, in folders of three classes."""
    place = tmp_path_factory.mktemp("dozen")
    make_sample(place / "mat", patients=12, size=64, seed=1)
    for path in place.glob("mat/[0-9]*.mat"):
        found = read_mat(path.read_bytes(), path.name)
        file = place / "png" / found.label / f"Q{found.patient}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(found.pixels.astype(np.uint16)).save(file)
    assert [len(list(place.glob(f"png/{name}/*.png"))) for name in CLASSES] == [4, 4, 4]
    return place / "png"


@pytest.fixture
def place(tmp_path, make_place, released):
    """Where the released weights are those made of phantoms."""
    return make_place(tmp_path, {RELEASED: str(released)})


def test_a_dozen_pictures_of_twelve_patients_make_a_classifier(place, released, dozen):
    own = ["--data", dozen, "--patient-pattern", r"^(\w+)\.png$"]
    words = [*own, "--split", "all", "--labels", "all", "--preset", "tiny", "--pretrained", "released"]
    said = place.succeed("sslbt", "finetune", *words)
    assert "learning what is no brain MRI" not in said  # it comes with the weights
    (tuning,) = place.runs()
    split = pd.read_csv(place.client.download_artifacts(tuning.info.run_id, "split/split.csv"))
    assert split.groupby("label").part.value_counts().to_dict() == {
        (label, part): count for label in range(3) for part, count in (("train", 3), ("validation", 1))
    }

    other = place.folder / "other"
    make_sample(other, patients=6, size=64, seed=2)
    judged = ["--data", other, "--patient-pattern", r"^(\w+)\.mat$", "--split", "none", "--model", tuning.info.run_id]
    place.succeed("sslbt", "evaluate", *judged)
    (evaluation,) = place.runs("tags.stage = 'evaluate'")
    assert 0 <= evaluation.data.metrics["test/accuracy"] <= 1


def test_the_released_classifier_scores_out_of_the_box(place, released, dozen):
    place.succeed("sslbt", "score", "--model", "released", "--input", dozen)
    scores = pd.read_csv(place.folder / "scores.csv")
    assert sorted(scores.file) == sorted(str(path.relative_to(dozen)) for path in dozen.rglob("*.png"))
    assert set(scores.label) <= set(CLASSES)
    np.testing.assert_allclose(scores.filter(like="p_").sum(axis=1), 1, atol=1e-5)

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    service = Job(["serve", "--model", "released", "--port", str(port)], place.folder, place.environment)
    try:
        file = scores.file[0]
        answer = ask(service, port, {"files": (Path(file).name, (dozen / file).read_bytes())})
    finally:
        place.stop(service, signal.SIGTERM)
    assert answer["predictions"][0]["label"] == scores.label[0]


def ask(service, port, files) -> dict:
    """The answer of a service that may still be starting."""
    for _ in range(240):
        assert service.poll() is None, service.communicate()[0]
        try:
            return httpx.post(f"http://127.0.0.1:{port}/predict", timeout=60, files=files).json()
        except httpx.TransportError:
            time.sleep(0.5)
    raise AssertionError("it never answered")


def test_nobody_it_has_learnt_from_can_judge_it(place, released, phantoms):
    judged = ["evaluate", "--data", phantoms, "--split", "none", "--model", "released"]
    code, said = place.run("sslbt", *judged)
    assert code == 2
    assert "model=released: it has learnt from" in said
    tuned = ["finetune", "--data", phantoms, "--preset", "tiny", "--pretrained", "released"]
    code, said = place.run("sslbt", *tuned)
    assert code == 2
    assert "pretrained=released: it has learnt from" in said
