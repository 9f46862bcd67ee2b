"""The main job by `mlflow run`: what a user finds afterwards."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest

from sslbt.data.formats import decode
from sslbt.steps.controls import DUMB

STAGES = {"prepare": 1, "pretrain-encoder": 1, "pretrain-contrastive": 1, "finetune": 3, "evaluate": 3}
STAGES |= {"register": 1, "main": 1, "score": 1}
PICTURES = {
    "prepare": {"slices_by_class.png"},
    "pretrain-encoder": {"restored_epoch_0001.png", "restored_epoch_0002.png", "curves.png"},
    "pretrain-contrastive": {"pairs.png", "curves.png"},
    "finetune": {"labelled_slices.png"},
    "evaluate": {"confusion.png", "comparison.png", "reliability.png", "coverage.png"},
    "main": {"comparison.png"},
    "score": {"confidence.png"},
}


def artifacts(place, run, folder):
    return {item.path.removeprefix(f"{folder}/") for item in place.client.list_artifacts(run.info.run_id, folder)}


def test_every_step_is_a_finished_child_with_its_facts(finished):
    place, _ = finished
    runs = place.runs()
    stages = [run.data.tags["stage"] for run in runs]
    assert {stage: stages.count(stage) for stage in stages} == STAGES
    parent = next(run for run in runs if run.data.tags["stage"] == "main")
    for run in runs:
        assert run.info.status == "FINISHED", run.info.run_name
        assert len(run.data.tags["code_version"].removesuffix("-dirty")) == 40
        written = json.loads(Path(place.client.download_artifacts(run.info.run_id, "config.json")).read_text())
        assert {f"config/{name}": str(value) for name, value in written.items()}.items() <= run.data.params.items()
        if run is not parent:
            assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        if run.data.tags["stage"] not in ("main", "register", "score"):
            (used,) = run.inputs.dataset_inputs
            assert used.dataset.digest == run.data.tags["data_digest"]
            assert "split.csv" in artifacts(place, run, "split")
        assert PICTURES.get(run.data.tags["stage"], set()) <= artifacts(place, run, "pictures")
        assert any(name.startswith("system/") for name in run.data.metrics), run.info.run_name


def test_what_makes_a_file_says_in_which_run_it_is(finished):
    place, said = finished
    for run in place.runs():
        if run.data.tags["stage"] in ("pretrain-encoder", "pretrain-contrastive", "finetune", "register"):
            assert f"in the run {run.info.run_id}" in said, run.info.run_name


def test_test_patients_are_in_no_training(finished):
    place, _ = finished
    hashes = set()
    for run in place.runs():
        if run.data.tags["stage"] in ("main", "register", "score"):
            continue
        folder = place.client.download_artifacts(run.info.run_id, "split")
        table = pd.read_csv(f"{folder}/split.csv", dtype=str)
        assert (table.groupby("family").part.nunique() == 1).all()
        assert set(table.part) == {"train", "validation", "test"}
        hashes.add(run.data.tags["split_hash"])
        if run.data.tags["stage"] == "finetune":
            labels = pd.read_csv(place.client.download_artifacts(run.info.run_id, "labels/labels.csv"), dtype=str)
            assert len(labels) == 12
            assert set(labels.file) <= set(table.file[table.part == "train"])
    assert len(hashes) == 1


def test_metrics_come_by_epoch_and_with_intervals_and_controls(finished):
    place, _ = finished
    for run in place.runs("tags.stage = 'finetune'"):
        assert "curves.png" in artifacts(place, run, "pictures")
        assert [point.step for point in place.client.get_metric_history(run.info.run_id, "train/loss")] == [0, 1]
        learnt = pd.read_csv(place.client.download_artifacts(run.info.run_id, "labels/learnt_from.csv"), dtype=str)
        chosen = pd.read_csv(place.client.download_artifacts(run.info.run_id, "labels/labels.csv"), dtype=str)
        assert set(chosen.file) < set(learnt.file)  # a label counts for all slices of its patient
        split = pd.read_csv(place.client.download_artifacts(run.info.run_id, "split/split.csv"), dtype=str)
        half = round(0.5 * split[split.part == "train"].patient.nunique())
        guessed = half if run.data.tags["way"] == "contrastive" else 0  # whose features tell who is alike
        assert learnt.patient.nunique() == max(chosen.patient.nunique(), guessed)
        assert set(chosen.patient) <= set(learnt.patient)
    for run in place.runs("tags.stage = 'evaluate'"):
        metrics = run.data.metrics
        for name in ("accuracy", "balanced_accuracy", "patient_accuracy", "patient_balanced_accuracy"):
            assert (
                0 <= metrics[f"test/{name}_ci_low"] <= metrics[f"test/{name}"] <= metrics[f"test/{name}_ci_high"] <= 1
            )
        for name in ("macro_f1", "macro_auroc", "ece", "brier", "recall_glioma"):
            assert f"test/{name}" in metrics
        assert run.data.params["classifier/labels"] == "12"
        assert run.data.params["classifier/way"] == run.data.tags["way"]
        assert metrics["control/majority/balanced_accuracy"] == pytest.approx(1 / 3)


def test_it_ends_with_a_table_and_what_to_do_next(finished):
    _, said = finished
    ours = ("encoder way", "contrastive way", "from scratch *")
    for name in (*ours, *(f"{control} *" for control in DUMB)):
        assert f"\n{name}" in said
    assert "mlflow ui" in said
    assert "sslbt score --input" in said
    assert "ONNX equals torch" in said


def test_the_best_is_champion_and_its_file_gives_the_scores(finished, phantoms):
    place, _ = finished
    runs = place.runs("tags.stage = 'evaluate'")
    best = max(runs, key=lambda run: run.data.metrics["test/patient_balanced_accuracy"])
    version = place.client.get_model_version_by_alias("brain-tumor-classifier", "champion")
    score = "test/patient_balanced_accuracy"
    champion = place.client.get_run(version.tags["evaluation"])
    assert champion.data.metrics[score] == best.data.metrics[score]
    (register,) = place.runs("tags.stage = 'register'")
    onnx = place.client.download_artifacts(register.info.run_id, "onnx/classifier.onnx")
    session = onnxruntime.InferenceSession(onnx)
    classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
    scores = pd.read_csv(place.folder / "scores.csv").set_index("file")
    assert len(scores) == len(list(phantoms.glob("[0-9]*.mat")))
    for path in sorted(phantoms.glob("[0-9]*.mat"))[:5]:
        pixels = decode(path.read_bytes(), path.name).astype(np.float32)
        expected = session.run(None, {"image": pixels[None]})[0][0]
        row = scores.loc[path.name]
        np.testing.assert_allclose([row[f"p_{name}"] for name in classes], expected, atol=1e-5)
        assert row.label == classes[int(expected.argmax())]


def test_the_same_command_again_reuses_every_step(finished, main_command):
    place, _ = finished
    before = len(place.runs())
    code, said = place.mlflow_run(*main_command, "-P", f"output={place.folder}/again.csv")
    assert code == 0, said
    assert said.count("reusing run") == 10
    assert len(place.runs()) == before + 2  # main and score
    pd.testing.assert_frame_equal(*(pd.read_csv(place.folder / f"{name}.csv") for name in ("scores", "again")))


def test_a_score_leads_back_to_its_data(finished):
    place, _ = finished
    (scored_by,) = set(pd.read_csv(place.folder / "scores.csv").model_version)
    version = place.client.get_model_version_by_alias("brain-tumor-classifier", "champion")
    evaluation, classifier = (place.client.get_run(run) for run in (version.tags["evaluation"], scored_by))
    assert evaluation.data.tags["classifier"] == scored_by
    code, said = place.run("sslbt", "lineage", scored_by)
    assert code == 0, said
    pretrained = classifier.data.params["config/pretrained"]
    facts = [evaluation.info.run_id, scored_by, *([pretrained] if pretrained != "none" else [])]
    facts += [classifier.data.tags[name] for name in ("data_digest", "split_hash", "code_version")]
    for fact in facts:
        assert fact in said
    assert "champion, challenger" in said or "challenger, champion" in said
    assert place.run("sslbt", "lineage", "models:/brain-tumor-classifier@champion") == (0, said)
    (register,) = place.runs("tags.stage = 'register'")
    onnx = place.client.download_artifacts(register.info.run_id, "onnx/classifier.onnx")
    code, of_the_file = place.run("sslbt", "lineage", onnx)
    assert said in of_the_file
