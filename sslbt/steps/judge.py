"""A trained classifier in front of test slices: what it answers, as they are and changed."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax
from torch import Tensor

from sslbt.data.cache import Cache
from sslbt.data.preprocess import resize
from sslbt.data.splits import Split, some
from sslbt.evaluation.features import logits
from sslbt.evaluation.metrics import Predictions
from sslbt.nn.heads import Classifier

NAMES = {"encoder": "encoder way", "contrastive": "contrastive way", "scratch": "from scratch"}
LOOKED_INTO = 600  # slices; what takes long is asked of so many, evenly picked


@dataclass(frozen=True)
class Judge:
    """A classifier, calibrated, and the test part of a split."""

    classifier: Classifier
    about: dict[str, Any]  # what its checkpoint says
    cache: Cache
    split: Split

    @property
    def name(self) -> str:
        return NAMES.get(self.about["way"], self.about["way"])

    @property
    def size(self) -> int:
        return int(self.about["size"])

    @cached_property
    def rows(self) -> np.ndarray:
        """Of the test slices."""
        return self.split.rows("test")

    @cached_property
    def few(self) -> np.ndarray:
        """Of those that long work is done on."""
        return some(self.rows, LOOKED_INTO)

    def table(self, rows: np.ndarray) -> pd.DataFrame:
        """What the cache knows of these slices."""
        return self.cache.table.iloc[rows]

    def slices(self, rows: np.ndarray) -> Tensor:
        """(rows, 1, size, size), as the classifier sees them."""
        return self.cache.load(rows, self.size)

    @cached_property
    def logits(self) -> np.ndarray:
        """Of all test slices, (slices, classes)."""
        return logits(self.classifier, self.slices(self.rows))

    def probabilities(self, slices: Tensor) -> np.ndarray:
        """Calibrated, (n, classes), for slices (n, 1, side, side) of any size."""
        return softmax(logits(self.classifier, resize(slices, self.size)) / self.about["temperature"], axis=1)

    @cached_property
    def predictions(self) -> Predictions:
        """Calibrated answers for all test slices."""
        return self.truth_of(self.rows, softmax(self.logits / self.about["temperature"], axis=1))

    def truth_of(self, rows: np.ndarray, probabilities: np.ndarray) -> Predictions:
        """Anybody's probabilities for these slices with the truth beside them."""
        table = self.table(rows)
        return Predictions(table.label.to_numpy(), probabilities, table.family.to_numpy(str), table.file.to_numpy(str))

    def masks(self, rows: np.ndarray) -> np.ndarray:
        """Where the tumour is, (rows, size, size) bool, at the size the classifier sees."""
        whole = torch.from_numpy(self.cache.masks(rows))[:, None].float()
        return (resize(whole, self.size)[:, 0] > 0.5).numpy()
