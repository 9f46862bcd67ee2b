"""Two trainings, one after the other, in one fine-tuning."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import torch

from sslbt.config import Finetune
from sslbt.data.phantom import make_sample
from sslbt.nn.encoder import Encoder
from sslbt.nn.outlier import Outlier
from sslbt.steps import finetune as under_test
from sslbt.steps.finetune import finetune
from sslbt.tracking.models import CLASSIFIER
from sslbt.tracking.run import Silent
from sslbt.tracking.telling import Silence
from sslbt.training import checkpoint
from sslbt.training.loop import Schedule
from sslbt.training.state import Epoch


class Told(Silence):
    """Writes down what is trained; interrupts the training after its first epoch if it is to."""

    def __init__(self, epochs: list[str], kind: str, interrupt: bool) -> None:
        self.epochs, self.kind, self.interrupt = epochs, kind, interrupt

    def epoch(self, epoch: Epoch) -> None:
        self.epochs.append(f"{self.kind}{epoch.number}")
        if self.interrupt:
            raise KeyboardInterrupt


class Kept(Silent):
    """A run in a folder, whose second training may be interrupted."""

    def __init__(self, folder: Path, interrupt: bool = False) -> None:
        super().__init__("run", folder / "unfinished")
        self.folder, self.interrupt, self.epochs, self.tables = folder, interrupt, [], {}

    def table(self, path: str, table: pd.DataFrame) -> None:
        self.tables[path] = table

    @contextmanager
    def artifact(self, path: str) -> Iterator[Path]:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        yield place

    def report(self, schedule: Schedule, kind: str = "") -> Told:
        return Told(self.epochs, kind, self.interrupt and not kind)


@pytest.fixture
def twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Finetune:
    """From a small encoder with random weights; nothing tells what is no brain MRI, which would take a minute."""
    monkeypatch.setenv("SSLBT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(under_test, "no_brain", lambda cache, split: Outlier().eval())
    make_sample(tmp_path / "phantoms", patients=36, size=64)
    torch.manual_seed(0)
    encoder = tmp_path / "encoder.safetensors"
    checkpoint.save_encoder(encoder, Encoder(8), {"size": 32, "way": "contrastive", "seen": []})
    given = {"data": str(tmp_path / "phantoms"), "preset": "tiny", "pretrained": str(encoder)}
    return Finetune.build(**given, labels="1p", learn_from="twice")


def weights(run: Kept) -> dict[str, torch.Tensor]:
    return checkpoint.load(run.folder / CLASSIFIER)[0]


def test_interrupted_in_the_second_training_it_goes_on_there(tmp_path: Path, twice: Finetune) -> None:
    undisturbed = Kept(tmp_path / "undisturbed")
    finetune(twice, undisturbed)
    assert undisturbed.epochs == ["first/0", "0", "1"]

    interrupted = Kept(tmp_path / "interrupted", interrupt=True)
    with pytest.raises(KeyboardInterrupt):
        finetune(twice, interrupted)
    goes_on = Kept(tmp_path / "interrupted")
    finetune(twice, goes_on)
    assert interrupted.epochs + goes_on.epochs == undisturbed.epochs
    expected = weights(undisturbed)
    assert weights(goes_on).keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(goes_on).items())

    once, again = (undisturbed.tables[f"labels/{name}.csv"] for name in ("learnt_from", "learnt_from_again"))
    labelled = set(undisturbed.tables["labels/labels.csv"].patient)
    assert len(labelled) == 3
    assert labelled < set(once.patient)
    assert once.patient.nunique() < again.patient.nunique()
    about = checkpoint.load(undisturbed.folder / CLASSIFIER)[1]
    assert set(about["known_files"]) == set(again.file[again.patient.isin(labelled)])


def test_where_everybody_is_labelled_there_is_one_training(tmp_path: Path, twice: Finetune) -> None:
    run = Kept(tmp_path)
    finetune(twice.model_copy(update={"labels": "all"}), run)
    assert run.epochs == ["0", "1"]
    assert "labels/learnt_from_again.csv" not in run.tables
