"""The reference for drift that an exported file gets."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch

from serve.drift import Drift
from serve.reference import KEY, SLICES, Reference
from serve.session import Classifier
from sslbt.data.cache import Cache, prepare
from sslbt.data.phantom import make_sample
from sslbt.data.source import Source
from sslbt.data.splits import Split, make_split
from sslbt.export.onnx import Deployed, export
from sslbt.nn import heads
from sslbt.nn.encoder import Encoder
from sslbt.nn.outlier import Outlier
from sslbt.steps.reference import store_reference, unseen_rows
from sslbt.steps.register import raw_slices


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("data")
    make_sample(folder, patients=15, size=64)
    return Source(str(folder))


@pytest.fixture(scope="module")
def cache(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSLBT_HOME", str(tmp_path_factory.mktemp("home")))
        return prepare(source)


@pytest.fixture
def split(cache: Cache) -> Split:
    return make_split(cache.table, "patient", cache.classes)


@pytest.fixture(scope="module")
def exported(cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    facts = {"size": 64, "classes": list(cache.classes), "run_id": "0" * 32, "pretrained": "none", "temperature": 1.0}
    facts |= {"plausible_above": 0.5, "guarantee": 0.9, "code_version": "a", "data_digest": "d", "split_hash": "s"}
    facts |= {"synthetic": True}
    classifier = heads.Classifier(Encoder(8), len(cache.classes))
    path = tmp_path_factory.mktemp("export") / "classifier.onnx"
    export(Deployed(classifier, Outlier(), facts), facts, path)
    return path


@pytest.fixture
def file(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(exported, tmp_path))


def facts_of(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_the_file_gets_a_reference_and_answers_as_before(
    file: Path, source: Source, cache: Cache, split: Split
) -> None:
    before, graph = facts_of(file), onnx.load(file).graph
    store_reference(file, {"split_hash": split.hash}, cache, split, partial(raw_slices, source))
    after = facts_of(file)
    assert {name: value for name, value in after.items() if name != KEY} == before
    assert onnx.load(file).graph == graph

    classifier = Classifier.load(file)
    reference = Reference.from_metadata(after, classifier.channels)
    assert reference is not None
    rows = np.flatnonzero(split.table.part != "train")
    scores = classifier.scores([pixels for _, pixels in raw_slices(source, cache.table.iloc[rows])])
    assert len(reference.found) == len(rows)
    np.testing.assert_allclose(np.sort(reference.values[:, 1]), np.sort(scores.strangeness), rtol=1e-4, atol=1e-4)

    drift = Drift(reference)
    while drift.report().slices < 200:
        drift.add(scores)
    assert max(own.ratio for name, own in drift.report().quantities.items() if name != "classes") < 0.5  # of itself


def test_only_families_that_did_not_train_are_asked(split: Split) -> None:
    test = np.flatnonzero(split.table.part == "test")
    both = np.flatnonzero(split.table.part != "train")
    assert unseen_rows(split, {"split_hash": split.hash}).tolist() == both.tolist()
    assert unseen_rows(split, {"split_hash": "of another"}).tolist() == test.tolist()
    crossing = split.table.assign(part=np.where(np.arange(len(split.table)) % 2, "train", "test"))
    assert not len(unseen_rows(Split("slices", crossing), {"split_hash": "of another"}))


def test_no_family_is_the_measure_of_all() -> None:
    families = ["one"] * (3 * SLICES) + ["other"] * 5
    table = pd.DataFrame({"file": range(len(families)), "patient": "", "family": families, "label": 0, "part": "test"})
    rows = unseen_rows(Split("none", table), {"split_hash": ""})
    assert table.family.iloc[rows].value_counts().to_dict() == {"one": SLICES, "other": 5}


def test_without_training_slices_there_is_none(
    file: Path, source: Source, cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    split = make_split(cache.table, "none", cache.classes)
    store_reference(file, {"split_hash": split.hash}, cache, split, partial(raw_slices, source))
    assert KEY not in facts_of(file)
    assert "no reference for drift is stored" in capsys.readouterr().err
