"""Data that are not the data set: what a hospital has."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from PIL import Image

from sslbt.data.cache import prepare
from sslbt.data.formats import read
from sslbt.data.matlab import CLASSES, write_mat
from sslbt.data.source import Source
from sslbt.data.splits import make_split


@pytest.fixture
def pictures(tmp_path, phantoms):
    """The phantoms as 16-bit PNG in folders of four classes, the patient in the file's name."""
    for path in phantoms.glob("[0-9]*.mat"):
        found = next(read(path.read_bytes(), path.name))
        second = found.label == "glioma" and int(found.patient.strip("PAB")) % 2
        folder = tmp_path / "pictures" / ("astrocytoma" if second else found.label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(found.pixels.astype(np.uint16)).save(folder / f"{found.patient}_{path.stem}.png")
    return tmp_path / "pictures"


def test_other_classes_go_from_png_to_onnx(place, pictures):
    data = ("--data", pictures, "--patient-pattern", "^([^_]+)_")
    place.succeed("sslbt", "prepare", *data)
    place.succeed("sslbt", "finetune", *data, "--preset", "tiny", "--labels", "16")
    (finetune,) = place.runs("tags.stage = 'finetune'")
    place.succeed("sslbt", "evaluate", *data, "--model", finetune.info.run_id)
    place.succeed("sslbt", "register")
    place.succeed("sslbt", "score", "--input", pictures, "--output", place.folder / "scores.csv")
    (register,) = place.runs("tags.stage = 'register'")
    onnx = place.client.download_artifacts(register.info.run_id, "onnx/classifier.onnx")
    metadata = onnxruntime.InferenceSession(onnx).get_modelmeta().custom_metadata_map
    classes = ["meningioma", "glioma", "pituitary", "astrocytoma"]
    assert json.loads(metadata["classes"]) == classes
    scores = pd.read_csv(place.folder / "scores.csv")
    assert len(scores) == len(list(pictures.rglob("*.png")))
    assert [name for name in scores if name.startswith("p_")] == [f"p_{name}" for name in classes]
    np.testing.assert_allclose(scores.filter(like="p_").sum(axis=1), 1, atol=1e-4)
    (evaluation,) = place.runs("tags.stage = 'evaluate'")
    assert "test/recall_astrocytoma" in evaluation.data.metrics
    (run,) = place.runs("tags.stage = 'prepare'")
    report = place.client.download_artifacts(run.info.run_id, "report.html")
    assert "astrocytoma" in Path(report).read_text(encoding="utf-8")

    # Judged on data with fewer classes, in another folder: by name, not by place.
    few = place.folder / "few"
    shutil.copytree(pictures / "astrocytoma", few / "astrocytoma")
    shutil.copytree(pictures / "pituitary", few / "pituitary")
    words = ("--patient-pattern", "^([^_]+)_", "--split", "none", "--model", finetune.info.run_id)
    code, said = place.run("sslbt", "evaluate", "--data", few, *words)
    assert code == 2
    assert "it has learnt from" in said
    for path in few.rglob("*.png"):
        path.rename(path.with_name(f"new{path.name}"))
    code, said = place.run("sslbt", "evaluate", "--data", few, *words)
    assert code == 0, said
    (run,) = place.runs("tags.split = 'none' and attributes.status = 'FINISHED'")
    assert {name for name in run.data.metrics if name.startswith("test/recall")} == {
        "test/recall_astrocytoma",
        "test/recall_pituitary",
    }


def test_one_picture_in_two_parts_stops_training_and_is_shown(place, tmp_path, phantoms):
    folder = shutil.copytree(phantoms, tmp_path / "data")
    cache = prepare(Source(str(folder)))
    table = make_split(cache.table, "patient", cache.classes).table
    seen, unseen = (table[table.part == part].iloc[0] for part in ("train", "test"))
    copied = next(read((folder / seen.file).read_bytes(), seen.file)).pixels
    label = CLASSES.index(cache.classes[unseen.label]) + 1
    write_mat(folder / unseen.file, copied + 7, label, unseen.patient, copied > copied.mean())

    code, said = place.run("sslbt", "finetune", "--data", folder, "--preset", "tiny")
    assert code == 2
    assert "Traceback" not in said
    for word in (seen.file, seen.patient, unseen.file, unseen.patient, "the same picture"):
        assert word in said.splitlines()[-1]
    (run,) = place.runs()
    assert run.info.status == "FAILED"
    assert run.data.metrics["audit/leaking_pairs"] == 1
    assert "leaks" in run.data.tags["mlflow.note.content"]
    assert {"audit/pairs.png", "audit/pairs.csv", "audit/audit.json"} <= {
        item.path for item in place.client.list_artifacts(run.info.run_id, "audit")
    }

    code, said = place.run("sslbt", "prepare", "--data", folder)
    assert code == 0
    assert "WARNING: nothing will be trained on this" in said

    # The remedy: both slices get one patient's number. The picture is then there twice, so one of them goes.
    (tmp_path / "who.csv").write_text(f"file,patient\n{unseen.file},{seen.patient}\n")
    words = ("--data", folder, "--annotations", tmp_path / "who.csv", "--preset", "tiny")
    code, said = place.run("sslbt", "finetune", *words, "--on-bad", "skip")
    assert code == 0, said
    assert f"left out: {unseen.file}" in said or f"left out: {seen.file}" in said


def test_one_bad_file_is_skipped_only_if_asked(place, tmp_path, phantoms):
    folder = shutil.copytree(phantoms, tmp_path / "data")
    (folder / "3.mat").write_bytes((folder / "3.mat").read_bytes()[:900])
    code, said = place.run("sslbt", "prepare", "--data", folder)
    assert code == 2
    assert "3.mat: truncated" in said
    code, said = place.run("sslbt", "prepare", "--data", folder, "--on-bad", "skip")
    assert code == 0
    assert "left out: 3.mat: truncated" in said
    assert "1 left out" in said
    run = max(place.runs("tags.stage = 'prepare'"), key=lambda run: run.info.start_time)
    assert run.data.metrics["data/refused"] == 1
    report = place.client.download_artifacts(run.info.run_id, "report.html")
    shown = Path(report).read_text(encoding="utf-8")
    assert ">3.mat<" in shown
    assert "truncated or not a file of the dataset" in shown
