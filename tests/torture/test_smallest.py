"""Numbers survive a test of one class, one patient, one slice, constant answers and ties."""

import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest
from size import times
from sklearn import metrics as sklearn
from stores import tracking_at

from serve.drift import Drift
from serve.reference import Reference
from serve.session import Classifier, Scores
from sslbt.cli import main
from sslbt.data.formats import decode
from sslbt.data.phantom import make_sample
from sslbt.evaluation.answering import curve, plausible_above
from sslbt.evaluation.calibration import fit_temperature
from sslbt.evaluation.metrics import Predictions, evaluate, paired_table
from sslbt.tracking import run as tracking
from sslbt.tracking.models import onnx_file

CLASSES = ("meningioma", "glioma", "pituitary")


# For each slice its patient, and how many places its class is behind the one answered; a patient has that of the first.
TESTS = {
    "one slice, wrong": [("N1", 1)],
    "one slice, right": [("N1", 0)],
    "one patient": [("N1", 0), ("N1", 0), ("N1", 0)],
    "all wrong": [("N1", 1), ("N2", 2), ("N3", 1)],
}


@pytest.mark.parametrize("name", list(TESTS)[: times(1, len(TESTS))])
def test_the_smallest_tests_have_a_report(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLBT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tracking, "SAMPLED_AFTER", 0.0)
    monkeypatch.chdir(tmp_path)
    folder, rows = tmp_path / "slices", ["file,patient,class"]
    folder.mkdir()
    make_sample(tmp_path / "phantoms", patients=3, size=64)
    slices, released = sorted((tmp_path / "phantoms").glob("[0-9]*.mat")), Classifier.load(onnx_file("released"))
    class_of: dict[str, int] = {}
    right = []
    for path, (patient, behind) in zip(slices, TESTS[name], strict=False):
        shutil.copy(path, folder)
        found = int(released.scores([decode(path.read_bytes(), path.name)]).probabilities.argmax())
        label = class_of.setdefault(patient, (found + behind) % 3)
        rows.append(f"{path.name},{patient},{CLASSES[label]}")
        right.append(found == label)
    (tmp_path / "truth.csv").write_text("\n".join(rows))
    words = ["evaluate", "--split", "none", "--data", str(folder), "--annotations", "truth.csv", "--model", "released"]
    with tracking_at(f"sqlite:///{tmp_path}/mlflow.db") as client:
        assert main(words) == 0
        (run,) = client.search_runs(["0"])
        page = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="report.html"))
    assert run.data.metrics["test/accuracy"] == pytest.approx(np.mean(right))
    assert run.data.metrics["test/accuracy_ci_low"] <= np.mean(right) <= run.data.metrics["test/accuracy_ci_high"]
    assert len(page.read_text()) > 10_000


def degenerate(seed: int) -> Predictions:
    """Few slices of few patients and classes, answers from sure to constant, many of them tied."""
    rng = np.random.default_rng(seed)
    count, classes = int(rng.choice([1, 2, 3, 20])), int(rng.integers(2, 4))
    families = rng.integers(0, rng.choice([1, 2, 9]), count)
    held = rng.permutation(classes)[: rng.integers(1, classes + 1)]
    labels = rng.choice(held, count)
    answers = [
        np.full((count, classes), 1 / classes),
        np.eye(classes)[rng.integers(0, classes, count)],
        np.eye(classes)[labels],
        rng.dirichlet(np.ones(classes), count),
        rng.integers(1, 3, (count, classes)).astype(float),
    ]
    chosen = answers[rng.integers(len(answers))]
    files = np.array([f"{number}.mat" for number in range(count)])
    return Predictions(labels, chosen / chosen.sum(axis=1, keepdims=True), families.astype(str), files)


@pytest.mark.filterwarnings("error")
def test_figures_survive_any_small_test() -> None:
    """As scikit-learn has them, and NaN where undefined; each within its interval."""
    for seed in range(times(40, 3000)):
        given = degenerate(seed)
        labels, probabilities, classes = given.labels, given.probabilities, given.probabilities.shape[1]
        found = evaluate(given, CLASSES[:classes])
        right = given.predicted == labels
        recalls = [right[labels == own].mean() for own in np.unique(labels)]
        assert found["accuracy"] == pytest.approx(right.mean()), seed
        assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls)), seed
        for place, name in enumerate(CLASSES[:classes]):
            own = labels == place
            held = 0 < own.sum() < len(own)
            area = sklearn.roc_auc_score(own, probabilities[:, place]) if held else np.nan
            assert found[f"auroc_{name}"] == pytest.approx(area, nan_ok=True), (seed, name)
            assert found[f"recall_{name}"] == pytest.approx(right[own].mean() if own.any() else np.nan, nan_ok=True)
        for name, value in found.items():
            if not name.endswith(("_ci_low", "_ci_high")):
                low, high = found[f"{name}_ci_low"], found[f"{name}_ci_high"]
                assert np.isnan([value, low, high]).all() or low <= value <= high, (seed, name, low, value, high)
        table = paired_table(given, given, CLASSES[:classes]).set_index("name")
        assert table.difference.fillna(0).abs().max() < 1e-12, seed
        assert table.loc["patient_balanced_accuracy", ["low", "high", "p"]].notna().all(), seed

        threshold, level = plausible_above(given)
        assert 0 <= threshold <= 1, seed
        assert 0 < level <= 0.9, seed
        assert curve(given).notna().all(axis=None), seed
        temperature = fit_temperature(np.log(probabilities.clip(1e-9)), labels)
        assert np.exp(-3) <= temperature <= np.exp(3), seed


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("spread", [0.0, 1e-3, 1.0])
def test_a_reference_survives_scores_that_are_all_alike(spread: float) -> None:
    """One class found, one confidence, features of no width: limits stay finite and nothing drifts from itself."""
    rng = np.random.default_rng(0)
    families = np.repeat([f"P{number}" for number in range(6)], 20)
    features = (1 + spread * rng.normal(size=(120, 8))).astype(np.float32)
    scores = Scores(
        np.tile(np.float32([0.9, 0.05, 0.05]), (120, 1)), np.full(120, -2, np.float32) + np.float32(0), features
    )
    reference = Reference.of(CLASSES, scores, families, scores, families)
    assert np.isfinite(reference.limits).all()
    assert (reference.limits > 0).all()
    drift = Drift(reference)
    drift.add(scores)
    assert not drift.report().drifted
