"""Which slices fine-tuning learns from, and as what: a label says more than what its slice is."""

from dataclasses import dataclass

import numpy as np

from sslbt.data.splits import Split, some
from sslbt.errors import UserError
from sslbt.evaluation.features import extract
from sslbt.nn.encoder import Encoder
from sslbt.training.feed import Feed
from sslbt.training.propagation import propagate, surest

SHARE = 0.5  # of all patients, whose class is surest, that are learnt from; among these errors are rare
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
    unknown = np.setdiff1d(train, known)
    if learn_from == "patients" or encoder is None or not len(unknown):
        return Taught(known, of_known, known, of_known)

    looked_at = np.concatenate([known, some(unknown, MOST)])
    given = np.concatenate([of_known, np.full(len(looked_at) - len(known), -1)])
    batches = np.array_split(looked_at, -(-len(looked_at) // 512))
    features = np.concatenate([extract(encoder, feed(batch)) for batch in batches])
    likely = propagate(features, patient[looked_at], given)
    sure = surest(likely, patient[looked_at], given, SHARE)
    return Taught(looked_at[sure], likely[sure].argmax(axis=1), known, of_known)
