"""The same numbers whatever does not matter: batches, threads, processes, the order of files, the way of asking."""

import base64
import os
import random
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from fastapi.testclient import TestClient
from makers import png
from size import times

from serve.app import create_app
from serve.batch import score
from serve.current import Current, Model
from serve.pyfunc import TumourClassifier
from serve.session import Classifier
from sslbt.data import reading
from sslbt.data.cache import Cache, prepare
from sslbt.data.formats import decode
from sslbt.data.phantom import make_sample
from sslbt.data.source import Source
from sslbt.data.splits import make_split
from sslbt.evaluation.suggesting import stand_for_all
from sslbt.nn.encoder import Encoder
from sslbt.nn.heads import Classifier as Network
from sslbt.pretext.masking import Restoration
from sslbt.pretext.pairs import Contrast, Pairs
from sslbt.tracking.models import onnx_file
from sslbt.training.feed import Feed
from sslbt.training.loop import train
from sslbt.training.propagation import propagate
from sslbt.training.schedule import Schedule
from sslbt.training.tasks import Classify, Compare, Restore

SILENT = SimpleNamespace(begin=lambda *_: None, step=lambda *_: None, epoch=lambda _: None, end=lambda: None)
CLASSES = ("meningioma", "glioma", "pituitary")
ROUNDING = 2e-6  # of probabilities in float32, whose sums ONNX Runtime orders by the batch


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """21 patients, about 120 slices of 64 x 64, and as many of them as are looked at elsewhere."""
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    make_sample(folder, patients=21, size=64)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def own_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLBT_HOME", str(home))


@pytest.fixture(scope="module")
def slices(phantoms: Path) -> list[Path]:
    return sorted(phantoms.glob("[0-9]*.mat"))[: times(65, 120)]


@pytest.fixture(scope="module")
def released() -> Classifier:
    return Classifier.load(onnx_file("released"))


@pytest.fixture(scope="module")
def pictures(slices: list[Path]) -> list[np.ndarray]:
    return [decode(path.read_bytes(), path.name) for path in slices]


@pytest.fixture(scope="module")
def alone(released: Classifier, pictures: list[np.ndarray]) -> np.ndarray:
    """Probabilities of each picture asked alone."""
    return np.concatenate([released.scores([picture]).probabilities for picture in pictures])


def test_a_score_depends_neither_on_batch_nor_threads_nor_order(
    released: Classifier, pictures: list[np.ndarray], alone: np.ndarray
) -> None:
    assert alone.std(axis=0).min() > 0.01  # were all alike, order would not show
    two = Classifier.load(onnx_file("released"), threads=2)
    order = np.random.default_rng(0).permutation(len(pictures))
    for classifier in (released, two):
        for batch in (1, 2, 7, 64):
            parts = [order[first : first + batch] for first in range(0, len(order), batch)]
            asked = [classifier.scores([pictures[place] for place in part]).probabilities for part in parts]
            np.testing.assert_allclose(np.concatenate(asked), alone[order], rtol=0, atol=ROUNDING)


def test_every_way_of_asking_gives_one_answer(
    slices: list[Path], released: Classifier, alone: np.ndarray, tmp_path: Path
) -> None:
    """The table of a batch, the service's three ways, MLflow's model: class, decision and reason to the letter."""
    shuffled = random.Random(1).sample(range(len(slices)), k=20)
    folder = tmp_path / "slices"
    folder.mkdir()
    for place in shuffled:
        shutil.copy(slices[place], folder)
    score(onnx_file("released"), folder, tmp_path / "scores.parquet")
    batch = pd.read_parquet(tmp_path / "scores.parquet").set_index("file")
    assert sorted(batch.index) == sorted(slices[place].name for place in shuffled)

    model = TumourClassifier()
    model.load_context(SimpleNamespace(artifacts={"onnx": str(onnx_file("released"))}))
    contents = [slices[place].read_bytes() for place in shuffled]
    told = {"pyfunc": model.predict(None, pd.DataFrame({"image": contents})).to_dict("records")}
    with TestClient(create_app(Current(Model(released, "released", "1")))) as client:
        files = [("files", (slices[place].name, content)) for place, content in zip(shuffled, contents, strict=True)]
        told["predict"] = client.post("/predict", files=files).json()["predictions"]
        text = pd.Series(contents).map(lambda content: base64.b64encode(content).decode()).tolist()
        told["invocations"] = client.post(
            "/invocations", json={"dataframe_split": {"columns": ["image"], "data": [[one] for one in text]}}
        ).json()["predictions"]
        asked = {"inputs": [{"name": "image", "shape": [len(text)], "datatype": "BYTES", "data": text}]}
        outputs = client.post("/v2/models/released/infer", json=asked).json()["outputs"]
        by_name = {one["name"]: np.array(one["data"]).reshape(one["shape"]) for one in outputs}
        told["v2"] = [
            {name: by_name[name][row] for name in ("label", "confidence", "abstain", "reason")}
            | {f"p_{own}": by_name["probabilities"][row][place] for place, own in enumerate(CLASSES)}
            for row in range(len(text))
        ]
    for way, rows in told.items():
        for place, row in zip(shuffled, rows, strict=True):
            known = batch.loc[slices[place].name]
            for name in ("label", "abstain", "reason"):
                assert row[name] == known[name], (way, slices[place].name, name)
            found = [row[f"p_{name}"] for name in CLASSES]
            np.testing.assert_allclose(found, alone[place], rtol=0, atol=ROUNDING, err_msg=way)
            assert row["confidence"] == pytest.approx(known["confidence"], abs=ROUNDING)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Slices in folders of class and patient, called the same in each."""
    place = tmp_path / "data"
    for number in range(12):
        own = place / CLASSES[number % 3] / f"P{number % 6}"
        own.mkdir(parents=True, exist_ok=True)
        (own / f"{number // 6}.png").write_bytes(png(number))
    return place


def test_prepare_depends_neither_on_order_nor_processes_nor_place(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder, its zip, the folder as another file system lists it, elsewhere; one process or two."""
    whole = prepared(phantoms, tmp_path / "whole")
    names = sorted(path.name for path in phantoms.iterdir())
    random.Random(2).shuffle(names)
    elsewhere, zipped = tmp_path / "else where", tmp_path / "slices.zip"
    elsewhere.mkdir()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            shutil.copy(phantoms / name, elsewhere)
            archive.write(phantoms / name, f"download/{name}")
    walk = os.walk
    monkeypatch.setattr(
        os, "walk", lambda *given, **named: ((*rest, own[::-1]) for *rest, own in walk(*given, **named))
    )
    for workers in (1, 2):
        monkeypatch.setattr(reading, "cores", lambda workers=workers: workers)
        for source in (elsewhere, zipped):
            same(prepared(source, tmp_path / f"{source.stem}{workers}"), whole, ["path"])


def test_a_zip_of_folders_is_the_folder(folders: Path, tmp_path: Path) -> None:
    """Where files are called the same their paths tell them apart: with the zip's own folder around them or not."""
    whole = prepared(folders, tmp_path / "whole")
    assert "glioma/P1/0.png" in set(whole.table.file)
    for around in ("", "download/", "a/b/"):
        zipped = tmp_path / f"{len(around)}.zip"
        with zipfile.ZipFile(zipped, "w") as archive:
            for path in folders.rglob("*.png"):
                archive.write(path, around + path.relative_to(folders).as_posix())
        same(prepared(zipped, tmp_path / f"home{len(around)}"), whole, ["path"])


def prepared(source: Path, home: Path) -> Cache:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSLBT_HOME", str(home))
        return prepare(Source(str(source)))


def same(ours: Cache, theirs: Cache, but: list[str]) -> None:
    assert ours.digest == theirs.digest
    pd.testing.assert_frame_equal(ours.table.drop(columns=but), theirs.table.drop(columns=but))
    np.testing.assert_array_equal(ours.pixels, theirs.pixels)


def tasks(cache: Cache) -> dict[str, object]:
    """Each kind of training on a few slices, small, the same every time it is asked for."""
    torch.manual_seed(7)
    split = make_split(cache.table, "patient", cache.classes)
    rows, feed = split.rows("train"), Feed.of(cache, 32, torch.device("cpu"))
    table, labels = cache.table.iloc[rows], cache.table.label.to_numpy()[rows]
    return {
        "restore": Restore(Restoration(Encoder(8), 0.1, 0.4), feed, rows, 16),
        "ntxent": Compare(Contrast(Encoder(8), "ntxent", 0.2), feed, rows, Pairs(table, "patient"), 64, 16),
        "margin": Compare(Contrast(Encoder(8), "margin", 0.2), feed, rows, Pairs(table, "patient"), 32, 16),
        "classify": Classify(Network(Encoder(8), len(cache.classes)), feed, rows, labels, 16),
    }


@pytest.fixture
def threads() -> Iterator[None]:
    """As many as before, afterwards."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("name", ["restore", "ntxent", "margin", "classify"])
def test_a_seed_and_a_number_of_threads_are_one_training(phantoms: Path, tmp_path: Path, name: str) -> None:
    """Bit for bit."""
    cache = prepare(Source(str(phantoms)))

    def trained(seed: int) -> dict[str, torch.Tensor]:
        task = tasks(cache)[name]
        torch.manual_seed(random.randrange(2**32))  # what was before does not matter
        schedule = Schedule(times(1, 5), task.steps, 1e-3, seed=seed)
        train(task, schedule, tmp_path / f"{random.random()}", [], SILENT)
        return task.model.state_dict()

    for count in range(1, times(1, 2) + 1):
        torch.set_num_threads(count)
        once, again, other = trained(3), trained(3), trained(4)
        assert all(torch.equal(value, again[key]) for key, value in once.items()), f"{count} threads"
        assert not all(torch.equal(value, other[key]) for key, value in once.items()), "the seed does matter"


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("name", ["restore", "ntxent", "margin", "classify"])
def test_more_threads_see_the_same_and_differ_by_rounding(phantoms: Path, name: str) -> None:
    """Sums are added up in another order, so that losses in float32 differ in the last digits; weights then drift."""
    cache, found = prepare(Source(str(phantoms))), []
    for count in (1, 2):
        torch.set_num_threads(count)
        task = tasks(cache)[name]
        task.model.train()
        plan = task.plan(np.random.default_rng(1))
        torch.manual_seed(5)
        batch = task.ready(plan[0])
        found.append((plan, batch, task.loss(*batch).item()))
    (plan, batch, loss), (plan_of_two, batch_of_two, loss_of_two) = found
    np.testing.assert_array_equal(plan, plan_of_two)
    assert all(torch.equal(own, other) for own, other in zip(batch, batch_of_two, strict=True))
    assert loss_of_two == pytest.approx(loss, rel=2e-5)


def test_what_labels_are_spread_to_and_which_are_asked_for_depends_on_no_order(phantoms: Path) -> None:
    cache = prepare(Source(str(phantoms)))
    features = np.random.default_rng(0).normal(size=(len(cache.table), 16)) + 2 * np.eye(16)[cache.table.label]
    patients, files = cache.table.patient.to_numpy(str), cache.table.file.to_numpy(str)
    labels = np.where(np.isin(patients, np.unique(patients)[::4]), cache.table.label, -1)
    likely = propagate(features, patients, labels)
    asked = set(files[stand_for_all(features, patients, 7, seed=0)])
    for seed in range(times(3, 30)):
        order = np.random.default_rng(seed).permutation(len(files))
        again = propagate(features[order], patients[order], labels[order])
        np.testing.assert_allclose(again, likely[order], atol=1e-9, err_msg=f"seed {seed}")
        assert set(files[order][stand_for_all(features[order], patients[order], 7, seed=0)]) == asked, seed
