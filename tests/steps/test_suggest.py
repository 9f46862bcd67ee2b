"""Suggesting on phantoms: what is written, that no label is looked at, and that the CSV comes back as labels."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from stores import client_of, tracking_at

from sslbt.cli import main
from sslbt.data.cache import prepare
from sslbt.data.formats import read
from sslbt.data.labels import labels_of
from sslbt.data.phantom import make_sample
from sslbt.data.source import Source
from sslbt.data.splits import make_split
from sslbt.nn.encoder import Encoder
from sslbt.tracking import run as tracking
from sslbt.training.checkpoint import save_encoder


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    make_sample(folder, patients=15, size=32)
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return client_of(f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db")


@pytest.fixture
def world(store, tmp_path, monkeypatch):
    """A folder of one's own to work in, an encoder in it that has seen nobody."""
    monkeypatch.setenv("SSLBT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tracking, "SAMPLED_AFTER", 0.0)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_encoder(tmp_path / "encoder.safetensors", Encoder(4), {"size": 32, "seen": [], "way": "contrastive"})
    with tracking_at(store.tracking_uri):
        yield tmp_path


def suggest(*words: object) -> int:
    return main(["suggest", "--pretrained", "encoder.safetensors", *map(str, words)])


@pytest.fixture
def unlabelled(phantoms, tmp_path) -> list[str]:
    """The phantoms as PNG, the patient in the name, the class nowhere; the words that name them."""
    folder = tmp_path / "png"
    folder.mkdir()
    for path in phantoms.glob("[0-9]*.mat"):
        found = next(read(path.read_bytes(), path.name))
        Image.fromarray(found.pixels.astype(np.uint16)).save(folder / f"{found.patient}_{path.stem}.png")
    (tmp_path / "none.csv").write_text("file,class\n")
    return ["--data", str(folder), "--patient-pattern", "^([^_]+)_", "--annotations", str(tmp_path / "none.csv")]


def test_training_slices_of_as_many_families_are_written_and_shown(world, phantoms, store):
    assert suggest("--data", phantoms, "--count", 6, "--output", "mine/six.csv") == 0
    table = pd.read_csv(world / "mine" / "six.csv", dtype=str, keep_default_na=False)
    assert list(table) == ["file", "patient", "class"]
    assert len(table) == 6
    assert set(table["class"]) == {""}
    cache = prepare(Source(str(phantoms)))
    split = make_split(cache.table, "patient", cache.classes)
    own = split.table.set_index("file").loc[table.file]
    assert set(own.part) == {"train"}
    assert own.family.nunique() == 6
    assert own.patient.tolist() == table.patient.tolist()
    page = (world / "mine" / "six.html").read_text(encoding="utf-8")
    assert all(file in page for file in table.file)

    (run,) = store.search_runs(["0"], "tags.stage = 'suggest'", max_results=1)
    logged = Path(store.download_artifacts(run.info.run_id, "suggestions"))
    assert (logged / "suggested.html").read_text(encoding="utf-8") == page
    assert (logged / "suggested.csv").read_text() == (world / "mine" / "six.csv").read_text()
    assert run.data.metrics["suggested/families"] == 6
    assert run.data.tags["data_digest"] == cache.digest


def test_the_filled_in_csv_is_taken_as_labels(world, phantoms):
    assert suggest("--data", phantoms, "--count", 9) == 0
    cache = prepare(Source(str(phantoms)))
    split = make_split(cache.table, "patient", cache.classes)
    table = pd.read_csv("suggested.csv", dtype=str, keep_default_na=False)
    truth = cache.table.set_index("file")["class"]
    table.assign(**{"class": truth[table.file].to_numpy()}).to_csv("filled.csv", index=False)
    rows, labels = labels_of(split, "filled.csv", 0, cache.classes)
    assert sorted(split.table.file.iloc[rows]) == sorted(table.file)
    assert labels.tolist() == split.table.label.iloc[rows].tolist()


def test_what_is_labelled_makes_no_difference(world, phantoms, unlabelled):
    assert suggest(*unlabelled, "--output", "bare.csv") == 0
    bare = pd.read_csv("bare.csv", dtype=str)
    assert bare.patient.nunique() == 12
    files = sorted(path.name for path in (world / "png").glob("*.png"))
    patients = sorted({file.split("_")[0] for file in files})
    names = {patient: "ab"[number % 2] for number, patient in enumerate(patients)}
    labelled = pd.DataFrame({"file": files, "class": [names[file.split("_")[0]] for file in files]})
    labelled.to_csv(world / "all.csv", index=False)
    assert suggest(*unlabelled[:-1], world / "all.csv", "--split", "none", "--output", "told.csv") == 0
    assert Path("told.csv").read_text() == Path("bare.csv").read_text()


def test_mistakes_are_told_in_a_sentence(world, phantoms, capsys):
    def said(*words: object) -> str:
        assert suggest(*words) == 2
        return capsys.readouterr().err.splitlines()[-1]

    assert "there are" in said("--data", phantoms, "--count", 5000)
    assert "give a smaller number" in said("--data", phantoms, "--count", 5000)
    Path("filled.csv").write_text("file,class\n1.mat,glioma\n")
    assert "output=filled.csv: is there already" in said("--data", phantoms, "--output", "filled.csv")
    assert Path("filled.csv").read_text() == "file,class\n1.mat,glioma\n"
    assert "neither a checkpoint file" in said("--data", phantoms, "--pretrained", "gone")

    cache = prepare(Source(str(phantoms)))
    test = make_split(cache.table, "patient", cache.classes).table.query("part == 'test'")
    seen = list(zip(test.file, test.family, strict=True))
    save_encoder(world / "leaky.safetensors", Encoder(4), {"size": 32, "seen": seen, "way": "contrastive"})
    assert "it has learnt from" in said("--data", phantoms, "--pretrained", "leaky.safetensors")
    assert not Path("suggested.csv").exists()
    assert not Path("suggested.html").exists()


def test_slices_of_nobody_known_can_be_asked_of(world, unlabelled):
    shutil.copytree(world / "png", world / "anonymous")
    words = ("--data", world / "anonymous", "--annotations", world / "none.csv")
    assert suggest(*words) == 2
    assert suggest(*words, "--split", "none", "--count", 5) == 0
    table = pd.read_csv("suggested.csv", dtype=str, keep_default_na=False)
    assert set(table.patient) == {""}
    assert table.file.nunique() == 5
