"""What a table of scores comes to, told by its rows as they go by."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from serve.drift import Drift
from serve.reference import Reference
from serve.session import Classifier, Scores
from sslbt.errors import UserError

BINS = 20  # of confidence, from 0 to 1
SLICES = 20_000  # at most that drift is told by


class Summary:
    """Counts over all rows.

    Attributes:
        about: what the model's file says of itself.
        files: of the input; a file of several slices has as many rows.
        rows: all of them.
        failed: rows that have no class, since their picture could not be had or scored.
        abstained: rows whose class is not to be relied on; those that failed are not among them.
        labels: rows of each class, by its name.
        confidence: for each class, (2, BINS) rows by confidence: those answered, those abstained.
        mean_confidence: of the rows that have a class.
        scored, seconds: how many files were scored in this call, and how long it took.
        drift: what rows that tell their features are like; None where the model's file holds nothing to compare with.
        no_drift: why there is none, in a sentence.
    """

    def __init__(self, classifier: Classifier) -> None:
        self.about = classifier.metadata
        self.files = self.scored = 0
        self.seconds = 0.0
        self.drift, self.no_drift = None, "the model's file holds nothing to tell drift by; export the model again"
        try:
            if reference := Reference.from_metadata(classifier.metadata, classifier.channels):
                self.drift = Drift(reference, SLICES)
        except UserError as error:  # scores are the same without
            self.no_drift = str(error)
        self.rows = self.failed = self.abstained = 0
        self.labels = Counter(dict.fromkeys(classifier.classes, 0))
        self.confidence = {name: np.zeros((2, BINS), int) for name in classifier.classes}
        self._sum = 0.0

    @property
    def mean_confidence(self) -> float:
        return self._sum / max(1, self.rows - self.failed)

    def add(self, table: pa.Table) -> None:
        """Count further rows: columns label, p_<class>, confidence, abstain, strangeness, features."""
        labels = table["label"].to_numpy()
        confidence = table["confidence"].to_numpy().astype(float)
        abstain = table["abstain"].to_numpy()
        self.rows += len(labels)
        for name, counts in self.confidence.items():
            own = labels == name
            self.labels[name] += int(own.sum())
            self.abstained += int(abstain[own].sum())
            self._sum += confidence[own].sum()
            for place, chosen in enumerate((own & ~abstain, own & abstain)):
                counts[place] += np.histogram(confidence[chosen], BINS, (0, 1))[0]
        self.failed = self.rows - self.labels.total()
        whole = table.filter(pc.is_valid(table["features"]))
        if self.drift and len(whole):
            probabilities = np.column_stack([whole[f"p_{name}"].to_numpy() for name in self.labels])
            features = np.stack(whole["features"].to_numpy())
            self.drift.add(Scores(probabilities, whole["strangeness"].to_numpy(), features))

    def __str__(self) -> str:
        each = ", ".join(f"{name} {count}" for name, count in self.labels.items())
        said = f"{_counted(self.rows, 'slice')} of {_counted(self.files, 'file')}: {each}; {self.abstained} uncertain"
        pace = f", {self.scored / self.seconds:.0f} files/s" if self.scored > 1 else ""
        return f"{said}; {self.failed} could not be scored{pace}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
