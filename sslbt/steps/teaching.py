"""Which slices fine-tuning learns from, and as what: a label says more than what its slice is."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import softmax

from sslbt.data.splits import Split, some
from sslbt.errors import UserError
from sslbt.evaluation.features import extract, logits
from sslbt.nn.encoder import Encoder
from sslbt.nn.heads import Classifier
from sslbt.training.feed import Feed
from sslbt.training.propagation import propagate, surest

SHARE = 0.5  # of all patients, whose class is surest, that are learnt from; among these errors are rare
AGAIN = 0.75  # the same for a second time: errors are as rare among so many then
MOST = 20_000  # unlabelled slices that are compared with one another


@dataclass(frozen=True)
class Taught:
    """Row numbers of slices to learn from, and their classes."""

    rows: np.ndarray
    labels: np.ndarray
    known: np.ndarray  # rows whose class the labels tell without any guess
    of_known: np.ndarray  # their labels


def teach(
    learn_from: str, split: Split, rows: np.ndarray, labels: np.ndarray, feed: Feed, encoder: Encoder | None = None
) -> Taught:
    """What is learnt from, where these rows are labelled.

    Args:
        learn_from: `labels`, these rows. `patients`, all training slices of their patients too, since a patient has one
            class. `all`, also slices of those patients that are likely of a class by the features of `encoder`.
            `twice` begins as `all`; see `teach_again`.
        split: who trains.
        rows, labels: the labelled training slices.
        feed: the pixels.
        encoder: whose features tell like patients from others; without such, `all` is `patients`.

    Raises:
        UserError: a patient is labelled as two classes.
    """
    if learn_from == "labels":
        return Taught(rows, labels, rows, labels)
    train, patient = split.rows("train"), split.table.patient.to_numpy(str)
    class_of = dict(zip(patient[rows], labels, strict=True))
    for name, label in zip(patient[rows], labels, strict=True):
        if class_of[name] != label:
            raise UserError(f"patient {name} is labelled as two classes; correct one, or give learn_from=labels")
    known = np.array([row for row in train if patient[row] in class_of])
    of_known = np.array([class_of[patient[row]] for row in known])
    if learn_from == "patients" or encoder is None or len(known) == len(train):
        return Taught(known, of_known, known, of_known)

    looked_at, given = _looked_at(train, known, of_known)
    features = np.concatenate([extract(encoder, feed(batch)) for batch in _batches(looked_at)])
    likely = propagate(features, patient[looked_at], given)
    sure = surest(likely, patient[looked_at], given, SHARE)
    return Taught(looked_at[sure], likely[sure].argmax(axis=1), known, of_known)


def teach_again(taught: Taught, split: Split, feed: Feed, classifier: Classifier) -> Taught:
    """What is learnt from the second time, by what a first classifier says of the training patients.

    A patient is of the class that the mean of its slices' probabilities names, also where `taught` had it otherwise;
    labelled patients keep theirs (self-training: Yarowsky 1995; Lee 2013, "Pseudo-Label"; patients are the units here).
    """
    looked_at, given = _looked_at(split.rows("train"), taught.known, taught.of_known)
    patient = split.table.patient.to_numpy(str)[looked_at]
    asked = np.concatenate([logits(classifier, feed(batch)) for batch in _batches(looked_at)])
    mean = pd.DataFrame(softmax(asked, axis=1)).groupby(patient).transform("mean").to_numpy()
    likely = np.where(given[:, None] >= 0, np.eye(mean.shape[1])[given], mean)
    sure = surest(likely, patient, given, AGAIN)
    return Taught(looked_at[sure], likely[sure].argmax(axis=1), taught.known, taught.of_known)


def _looked_at(train: np.ndarray, known: np.ndarray, of_known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose class may be guessed, those known first, and their classes, -1 where unknown."""
    unknown = some(np.setdiff1d(train, known), MOST)
    return np.concatenate([known, unknown]), np.concatenate([of_known, np.full(len(unknown), -1)])


def _batches(rows: np.ndarray) -> list[np.ndarray]:
    return np.array_split(rows, -(-len(rows) // 512))
