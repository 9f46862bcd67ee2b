"""Answers for test slices and the encoders behind them, kept in a folder: what is there is not made again."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from filelock import FileLock

from sslbt.config import Data, Finetune, PretrainContrastive, PretrainEncoder, Training
from sslbt.data.cache import Cache
from sslbt.data.splits import Split
from sslbt.errors import UserError
from sslbt.evaluation.metrics import Predictions, read_table
from sslbt.steps.controls import DUMB
from sslbt.steps.finetune import labelled
from sslbt.steps.judge import NAMES
from sslbt.steps.pretrain_contrastive import pretrain_contrastive
from sslbt.steps.pretrain_encoder import pretrain_encoder
from sslbt.steps.suggest import choose
from sslbt.tracking.code import code_version
from sslbt.tracking.models import ENCODER
from sslbt.tracking.run import Silent, step_key
from sslbt.tracking.telling import Telling
from sslbt.training import checkpoint
from sslbt.training.loop import Report, Schedule

SCRATCH = "scratch"
SUGGESTED = "12-suggested"  # twelve slices that `suggest` asks for by the features of the contrastive way
PRETRAININGS: dict[str, tuple[type[PretrainContrastive | PretrainEncoder], Any]] = {
    "contrastive": (PretrainContrastive, pretrain_contrastive),
    "encoder": (PretrainEncoder, pretrain_encoder),
}


def digest(file: Path) -> str:
    """Of its content."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


@dataclass(frozen=True)
class Answer:
    """Whose answers for the test slices of which fold, learnt from which labels."""

    fold: int
    method: str  # a way, or one of the controls `DUMB`
    labels: str
    draw: int

    @property
    def name(self) -> str:
        return f"{self.method.replace(' ', '_')}-patient-{self.fold}-{self.labels}-{self.draw}"


@dataclass(frozen=True)
class Plan:
    """Which answers are asked for."""

    folds: list[int]
    ways: list[str]  # contrastive, encoder, scratch
    budgets: list[str]
    draws: list[int]

    @property
    def methods(self) -> list[str]:
        """The ways asked for; the other controls come with from-scratch training."""
        return [name for name in NAMES if name in self.ways] + list(DUMB) * (SCRATCH in self.ways)

    def draws_of(self, labels: str) -> list[int]:
        """All labels can be drawn in one way only."""
        return [draw for draw in self.draws if draw == 0 or labels != "all"]

    def answers(self) -> list[Answer]:
        """All of them."""
        cells = product(self.folds, self.methods, self.budgets)
        return [Answer(*cell, draw) for cell in cells for draw in self.draws_of(cell[2])]


class Kept(Silent):
    """A run whose files stay in a folder; the terminal sees how far it is, MLflow nothing."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder.name, folder)

    @contextmanager
    def artifact(self, path: str) -> Iterator[Path]:
        yield self.unfinished / path

    def report(self, schedule: Schedule, kind: str = "") -> Report:
        return Telling(self.metrics, schedule.epochs, schedule.steps_per_epoch, kind)


@dataclass(frozen=True)
class Study:
    """The folder with what is done, and what it is done with."""

    folder: Path
    encoders: Path  # the folder with the pretrained ones
    data: str
    preset: str
    cache: Cache
    splits: dict[int, Split]
    settings: dict[str, Any] = field(default_factory=dict)  # of fine-tuning, where they aren't the preset's

    @contextmanager
    def run(self, config: Training) -> Iterator[Kept]:
        """A run for one step. What it needs to continue with the same code stays after a kill, and goes at the end."""
        run = Kept(self.folder / "unfinished" / step_key(config))
        yield run
        shutil.rmtree(run.unfinished)

    def encoder(self, fold: int, way: str) -> Path:
        """The checkpoint of an encoder pretrained without this fold's test patients; made where there is none.

        Raises:
            UserError: the file in its place comes from another way or another split.
        """
        place = self.encoder_place(fold, way)
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_suffix(".lock")):  # processes that share a fold wait for its encoder
            if not place.exists():
                kind, pretrain = PRETRAININGS[way]
                config = kind.build(data=self.data, split=self.splits[fold].name, preset=self.preset)
                with self.run(config) as run:
                    pretrain(config, run)
                    os.replace(run.unfinished / ENCODER, place)
        about = checkpoint.load(place)[1]
        if (about.get("way"), about.get("split_hash")) != (way, self.splits[fold].hash):
            raise UserError(
                f"{place}: pretrained by way={about.get('way')} on split={about.get('split')} of "
                f"data {about.get('data_digest')}; put another one there, or remove it to have it made"
            )
        return place

    def encoder_place(self, fold: int, way: str) -> Path:
        """Where that checkpoint is looked for: contrastive-patient-1.safetensors."""
        return self.encoders / f"{way}-patient-{fold}.safetensors"

    def finetuning(self, answer: Answer) -> Finetune:
        """The parameters a way is fine-tuned with; controls learn from what from-scratch training learns from."""
        way = answer.method if answer.method in PRETRAININGS else SCRATCH
        suggested = answer.labels == SUGGESTED
        return Finetune.build(
            data=self.data,
            split=self.splits[answer.fold].name,
            preset=self.preset,
            labels=str(self.suggested(answer.fold, answer.draw)) if suggested else answer.labels,
            seed=answer.draw,
            pretrained="none" if way == SCRATCH else str(self.encoder_place(answer.fold, way)),
            **self.settings,
        )

    def suggested(self, fold: int, draw: int) -> Path:
        """A CSV of the slices that `suggest` asks for in a fold, true classes filled in; made where there is none."""
        place = self.folder / "labels" / f"suggested-patient-{fold}-{draw}.csv"
        if not place.exists():
            encoder, about = checkpoint.load_encoder(self.encoder(fold, "contrastive"))
            split = self.splits[fold]
            rows = choose(encoder, about["size"], self.cache, split, 12, draw)
            table = labelled(split, rows, split.table.label.to_numpy()[rows], self.cache.classes)
            place.parent.mkdir(parents=True, exist_ok=True)
            partial = place.with_name(f".partial-{os.getpid()}-{place.name}")
            table.to_csv(partial, index=False)
            os.replace(partial, place)
        return place

    def facts(self, answer: Answer) -> dict[str, Any]:
        """What answers depend on, wherever the data and the folder lie."""
        config = self.finetuning(answer).model_dump(mode="json", exclude={*Data.model_fields, "pretrained"})
        facts = {"data_digest": self.cache.digest, "split_hash": self.splits[answer.fold].hash, "config": config}
        if answer.labels == SUGGESTED:
            config["labels"] = SUGGESTED
            facts["labels"] = digest(self.suggested(answer.fold, answer.draw))
        place = self.encoder_place(answer.fold, answer.method)
        if place.exists():
            facts["encoder"] = digest(place)
        return facts

    def keep(self, answer: Answer, predictions: Predictions) -> None:
        """Write answers, complete or not at all, with what they depend on beside them."""
        place = self._place(answer)
        place.parent.mkdir(parents=True, exist_ok=True)
        about = self.facts(answer) | {"code_version": code_version()}
        place.with_suffix(".json").write_text(json.dumps(about, indent=1))
        partial = place.with_name(f".partial-{place.name}")
        predictions.table(self.cache.classes).to_csv(partial, index=False)
        os.replace(partial, place)

    def has(self, answer: Answer) -> bool:
        """Whether these answers are there.

        Raises:
            UserError: they are, from other data, another encoder or other parameters.
        """
        if not self._place(answer).exists():
            return False
        about = self.about(answer)
        for name, fact in self.facts(answer).items():
            if about.get(name) != fact:
                raise UserError(
                    f"{self._place(answer)}: made with another {name}, {about.get(name)} where {fact} is asked for; "
                    "remove it to have it made again, or give another --folder"
                )
        return True

    def about(self, answer: Answer) -> dict[str, Any]:
        """What answers were made with."""
        return json.loads(self._place(answer).with_suffix(".json").read_text())

    def predictions(self, answer: Answer) -> Predictions:
        """Answers that are there."""
        return Predictions.from_table(read_table(self._place(answer)), self.cache.classes)

    def _place(self, answer: Answer) -> Path:
        return self.folder / "answers" / f"{answer.name}.csv"
