"""What an evaluation leaves: figures that a peer library confirms, a page, and a comparison of several."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn import metrics as peer

from sslbt.data.formats import decode
from sslbt.data.phantom import make_sample

CLASSES = ("meningioma", "glioma", "pituitary")
CHAMPION = "models:/brain-tumor-classifier@champion"


@pytest.fixture(scope="module")
def finished(finished, make_place, tmp_path_factory):
    """The store after the main job, copied: what is run here is nothing that other tests should find."""
    place, said = finished
    copy = make_place(tmp_path_factory.mktemp("copy"))
    shutil.copyfile(place.folder / "mlflow.db", copy.folder / "mlflow.db")
    (copy.folder / "home").symlink_to(place.folder / "home")
    return copy, said


@pytest.fixture(scope="module")
def evaluations(finished):
    place, _ = finished
    return place.runs("tags.stage = 'evaluate' and tags.labels = '12'")


def read(place, run, path):
    return pd.read_csv(place.client.download_artifacts(run.info.run_id, path), dtype={"file": str, "family": str})


def test_runs_are_found_by_what_the_readme_says(finished, evaluations):
    place, _ = finished
    assert len(evaluations) == 3
    found = place.runs(
        "metrics.\"test/patient_balanced_accuracy\" > -1 and tags.labels = '12' and tags.way = 'encoder'"
    )
    assert [run.info.run_name for run in found] == ["evaluate encoder way, 12 labels"]


def test_figures_are_those_of_scikit_learn(finished, evaluations):
    place, _ = finished
    for run in evaluations:
        table, found = read(place, run, "predictions.csv"), run.data.metrics
        scores = table[[f"p_{name}" for name in CLASSES]].to_numpy()
        truth = table["class"].map(CLASSES.index).to_numpy()
        expected = {
            "accuracy": peer.accuracy_score(truth, scores.argmax(1)),
            "balanced_accuracy": peer.balanced_accuracy_score(truth, scores.argmax(1)),
            "macro_f1": peer.f1_score(truth, scores.argmax(1), average="macro"),
            "macro_auroc": peer.roc_auc_score(truth, scores, multi_class="ovr", average="macro"),
            "macro_auprc": peer.average_precision_score(np.eye(3)[truth], scores, average="macro"),
            "recall_glioma": peer.recall_score(truth == 1, scores.argmax(1) == 1),
            "specificity_glioma": peer.recall_score(truth != 1, scores.argmax(1) != 1),
        }
        people = table.groupby("family")[[f"p_{name}" for name in CLASSES]].mean().to_numpy()
        whose = table.groupby("family")["class"].first().map(CLASSES.index)
        expected["patient_balanced_accuracy"] = peer.balanced_accuracy_score(whose, people.argmax(1))
        assert {name: found[f"test/{name}"] for name in expected} == pytest.approx(expected)


def test_answers_follow_the_threshold_of_the_classifier(finished, evaluations):
    place, _ = finished
    for run in evaluations:
        table = read(place, run, "predictions.csv")
        classifier = place.client.get_run(run.data.params["config/model"])
        threshold = classifier.data.metrics["validation/plausible_above"]
        plausible = table[[f"p_{name}" for name in CLASSES]].to_numpy() >= threshold
        assert table.answered.tolist() == (plausible.sum(1) == 1).tolist()
        assert table.plausible.fillna("").tolist() == [" or ".join(np.array(CLASSES)[row]) for row in plausible]
        assert run.data.metrics["test/answered"] == pytest.approx(table.answered.mean())
        assert 0.5 <= run.data.metrics["test/guarantee"] <= 0.9  # 36 patients leave few to validate by


def test_controls_and_what_was_looked_into_are_there(finished, evaluations):
    place, _ = finished
    for run in evaluations:
        names = {name.split("/")[1] for name in run.data.metrics if name.startswith("control/")}
        scratch = {"from_scratch"} if run.data.tags["way"] != "scratch" else set()
        assert names == scratch | {
            "majority",
            "raw_pixels",
            "learnt_from_the_background",
            "ten_intensities",
            "random_encoder",
            "shuffled_labels",
            "tumour_painted_over",
            "as_much_painted_over",
            "background_only",
        }
        assert len(place.client.get_metric_history(run.info.run_id, "robustness/blur")) == 5
        assert {f"saliency/{of}/pointing" for of in ("this_classifier", "untrained_network")} <= run.data.metrics.keys()
        assert run.data.metrics["accepted/real_slices"] > run.data.metrics["accepted/noise"]


def test_the_page_holds_everything_and_loads_nothing(finished, evaluations):
    place, _ = finished
    for run in evaluations:
        page = Path(place.client.download_artifacts(run.info.run_id, "report.html")).read_text()
        for fact in (run.info.run_id, run.data.tags["split_hash"], run.data.tags["data_digest"], "CLAIM"):
            assert fact in page
        assert f"sslbt evaluate --data {run.data.params['config/data']}" in page
        assert "Synthetic phantoms" in page
        assert not re.findall(r'(?:src|href)="(?!data:)', page)
        assert "<script" not in page
        assert len(page) < 5e6


def test_compare_sets_others_beside_the_first(finished, evaluations):
    place, _ = finished
    first, second, third = evaluations
    classifier = third.data.params["config/model"]  # its newest evaluation is meant
    code, said = place.run("sslbt", "compare", first.info.run_id, second.info.run_id, classifier)
    assert code == 0, said
    (run,) = place.runs("tags.stage = 'compare'")
    table = read(place, run, "comparison.csv")
    for metric, rows in table.groupby("metric"):
        values = [one.data.metrics[f"test/{metric}"] for one in evaluations]
        assert rows.value.to_numpy() == pytest.approx(values)
        assert rows.difference.to_numpy()[1:] == pytest.approx(np.array(values[1:]) - values[0])
        assert rows.difference.isna().tolist() == [True, False, False]
        assert (rows.difference_ci_low <= rows.difference)[1:].all()
        assert rows.p[1:].between(0, 1).all()
    for one in evaluations:
        assert one.info.run_name.removeprefix("evaluate ") in said
    assert "differences.png" in [
        Path(item.path).name for item in place.client.list_artifacts(run.info.run_id, "pictures")
    ]


def test_compare_refuses_what_can_not_be_paired(finished, phantoms, evaluations):
    place, _ = finished
    (prepared,) = place.runs("tags.stage = 'prepare'")
    code, said = place.run("sslbt", "compare", evaluations[0].info.run_id, prepared.info.run_id)
    assert code == 2
    assert "is no finished evaluation" in said
    code, said = place.run("sslbt", "compare", evaluations[0].info.run_id)
    assert code == 2
    assert "give two different run ids" in said
    assert not place.runs("attributes.status = 'RUNNING'")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Somebody else's slices: PNG in folders by class, no patient numbers, no masks."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("elsewhere") / "png"
    make_sample(source, patients=9, size=64, seed=7)
    for number, path in enumerate(sorted(source.glob("[0-9]*.mat"))):
        pixels = decode(path.read_bytes(), path.name)
        folder = target / CLASSES[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * (255 / pixels.max())).astype(np.uint8)).save(folder / f"{number}.png")
    return target


def test_a_registered_model_is_judged_on_somebody_elses_slices(finished, elsewhere):
    place, _ = finished
    words = ["-P", "split=none", "-P", f"data={elsewhere}", "-P", f"model={CHAMPION}"]
    code, said = place.mlflow_run("-e", "evaluate", *words)
    assert code == 0, said
    (run,) = [run for run in place.runs("tags.stage = 'evaluate'") if run.data.tags["split"] == "none"]
    assert run.info.status == "FINISHED"
    count = len(list(elsewhere.rglob("*.png")))
    assert f"{count} test slices of {count} patient families, {count} of them of unknown patients" in said
    table = read(place, run, "predictions.csv")
    assert len(table) == count
    assert table.family.is_unique  # nobody knows whose they are
    names = {name.split("/")[1] for name in run.data.metrics if name.startswith("control/")}
    assert names == {"majority", "background_only"}
    assert not any(name.startswith("saliency/") for name in run.data.metrics)
    page = Path(place.client.download_artifacts(run.info.run_id, "report.html")).read_text()
    assert "whose slice it is" in page


def test_training_still_wants_to_know_whose_slices_they_are(place, elsewhere):
    code, said = place.run("sslbt", "finetune", "--data", elsewhere, "--preset", "tiny")
    assert code == 2
    assert "whose slice is it?" in said


def test_scores_say_why_they_abstain(finished, tmp_path):
    place, _ = finished
    noise = np.random.default_rng(0).integers(0, 256, (128, 128), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    Image.fromarray(np.stack([noise, noise.T, 255 - noise], axis=2)).save(tmp_path / "colour.png")
    code, said = place.run("sslbt", "score", "--input", tmp_path, "--output", tmp_path / "scores.csv")
    assert code == 0, said
    rows = pd.read_csv(tmp_path / "scores.csv").set_index("file")
    assert rows.abstain.tolist() == [True, True]
    assert rows.reason["noise.png"].startswith("not a brain MRI as it knows them")
    assert rows.reason["colour.png"].startswith("colour.png: a picture in colours")
