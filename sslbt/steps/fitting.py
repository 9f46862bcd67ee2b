"""One training of a classifier: the added layers first, then with what is not frozen of the encoder."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor, nn

from sslbt.config import Finetune
from sslbt.data.cache import Cache
from sslbt.data.splits import Split, some
from sslbt.evaluation import figures
from sslbt.evaluation.features import logits
from sslbt.evaluation.metrics import Predictions, headline
from sslbt.nn.encoder import Encoder
from sslbt.nn.heads import Classifier
from sslbt.steps.common import schedule_of
from sslbt.steps.teaching import Taught
from sslbt.tracking.run import Run
from sslbt.training.feed import Feed
from sslbt.training.head import fit_head
from sslbt.training.loop import train
from sslbt.training.tasks import Classify

SCRATCH = "none"
MOST_SPREAD = 4096  # slices; features and their spread are known well enough from so many


class Watch:
    """Headline figures on validation patients at ten epochs, for the curves."""

    def __init__(self, slices: Tensor, split: Split, epochs: int) -> None:
        self.epochs = set(np.linspace(0, epochs - 1, 10).astype(int))
        table = split.table.iloc[split.rows("validation")]
        self.slices, self.labels = slices, table.label.to_numpy()
        self.families, self.files = table.family.to_numpy(), table.file.to_numpy()

    def __call__(self, epoch: int, model: nn.Module) -> dict[str, float]:
        if epoch not in self.epochs:
            return {}
        return {f"validation/{name}": value for name, value in headline(self.predictions(model)).items()}

    def predictions(self, model: nn.Module, temperature: float = 1) -> Predictions:
        """What a classifier answers for the validation slices."""
        probabilities = softmax(logits(model, self.slices) / temperature, axis=1)
        return Predictions(self.labels, probabilities, self.families, self.files)


@dataclass(frozen=True)
class Fitting:
    """What every training of a classifier in a run has in common."""

    cfg: Finetune
    cache: Cache
    split: Split
    feed: Feed
    size: int
    watch: Watch
    run: Run

    def fit(self, encoder: Encoder, taught: Taught, first: bool = False) -> Classifier:
        """Train a classifier on this encoder, which changes with it.

        Args:
            encoder: pretrained or new.
            taught: what is learnt from.
            first: another training follows, and this one has half the epochs, after which it guesses as well as after
                all. Its figures are logged under `first/`.
        """
        cfg = self.cfg.model_copy(update={"epochs": max(1, self.cfg.epochs // 2)}) if first else self.cfg
        model = Classifier(encoder.to(self.feed.device), len(self.cache.classes)).to(self.feed.device)
        if cfg.pretrained != SCRATCH:
            model.freeze(cfg.freeze)
        if cfg.freeze == "all" or cfg.pretrained != SCRATCH:
            self._fit_added_layers(model, taught)

        kind = "first/" if first else ""
        if cfg.freeze == "all":  # the fitted layers are all there is to train
            self.run.metrics({kind + name: value for name, value in self.watch(0, model).items()}, step=0)
            return model
        task = Classify(model, self.feed, taught.rows, taught.labels, cfg.batch)
        schedule = schedule_of(cfg, task.steps)
        folder = self.run.unfinished / "first" if first else self.run.unfinished
        state = train(task, schedule, folder, [self.watch], self.run.report(schedule, kind))
        picture = figures.curves([epoch.metrics for epoch in state.history])
        self.run.figure(f"pictures/{'first_' if first else ''}curves.png", picture)
        return model

    def _fit_added_layers(self, model: Classifier, taught: Taught) -> None:
        """Fit the head to the frozen features of what is learnt from, evenly picked where it is much."""
        spread, shown = some(self.split.rows("train"), MOST_SPREAD), some(np.arange(len(taught.rows)), MOST_SPREAD)
        labels = torch.from_numpy(taught.labels[shown])
        fit_head(model, self.cache.load(spread, self.size), self.cache.load(taught.rows[shown], self.size), labels)
