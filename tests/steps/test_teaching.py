from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from sslbt.data.splits import Split
from sslbt.errors import UserError
from sslbt.steps import teaching
from sslbt.steps.teaching import Taught, teach, teach_again

PATIENTS = np.repeat([f"P{i:02}" for i in range(20)], 3)
CLASS = np.repeat(np.arange(20) % 2, 3)
PART = np.where(np.arange(60) < 48, "train", "test")  # sixteen patients train
TABLE = pd.DataFrame({"file": np.arange(60).astype(str), "patient": PATIENTS, "family": PATIENTS, "label": CLASS})
SPLIT = Split("patient", TABLE.assign(part=PART))
ROWS, LABELS = np.array([1, 3]), np.array([0, 1])  # one slice of P00, one of P01


def feed(rows: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(rows)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Whose features are the class, P05's half-way between."""
    points = np.eye(2, 8)[CLASS] + 0.05 * np.random.default_rng(0).normal(size=(60, 8))
    points[15:18] = np.eye(2, 8).mean(axis=0)
    monkeypatch.setattr(teaching, "extract", lambda encoder, slices: points[slices.numpy()])
    return SimpleNamespace()


def test_labels_are_the_labelled_slices_alone() -> None:
    taught = teach("labels", SPLIT, ROWS, LABELS, feed)
    assert taught.rows.tolist() == taught.known.tolist() == [1, 3]
    assert taught.labels.tolist() == taught.of_known.tolist() == [0, 1]


def test_a_patients_other_slices_have_its_class() -> None:
    taught = teach("patients", SPLIT, ROWS, LABELS, feed)
    assert taught.rows.tolist() == taught.known.tolist() == [0, 1, 2, 3, 4, 5]
    assert taught.labels.tolist() == taught.of_known.tolist() == [0, 0, 0, 1, 1, 1]


def test_all_adds_the_half_of_the_patients_whose_class_is_surest(encoder: SimpleNamespace) -> None:
    taught = teach("all", SPLIT, ROWS, LABELS, feed, encoder)
    assert taught.known.tolist() == [0, 1, 2, 3, 4, 5]
    patients = {PATIENTS[row] for row in taught.rows}
    assert len(patients) == 8
    assert {"P00", "P01"} < patients
    assert "P05" not in patients
    assert (PART[taught.rows] == "train").all()
    assert len(taught.rows) == 24
    assert (taught.labels == CLASS[taught.rows]).all()


def test_all_reads_no_label_but_those_given(encoder: SimpleNamespace) -> None:
    hidden = Split("patient", TABLE.assign(part=PART, label=-1))
    assert teach("all", hidden, ROWS, LABELS, feed, encoder).labels.tolist() == (
        teach("all", SPLIT, ROWS, LABELS, feed, encoder).labels.tolist()
    )


def test_without_an_encoder_that_tells_all_is_patients() -> None:
    assert teach("all", SPLIT, ROWS, LABELS, feed).rows.tolist() == [0, 1, 2, 3, 4, 5]


def test_where_every_patient_is_labelled_nothing_is_guessed(encoder: SimpleNamespace) -> None:
    rows = np.arange(0, 48, 3)
    taught = teach("all", SPLIT, rows, CLASS[rows], feed, encoder)
    assert taught.rows.tolist() == list(range(48))
    assert (taught.labels == CLASS[:48]).all()


def test_a_patient_of_two_classes_is_refused() -> None:
    with pytest.raises(UserError, match="patient P00 is labelled as two classes; correct one"):
        teach("patients", SPLIT, np.array([0, 1]), np.array([0, 1]), feed)


@pytest.fixture
def classifier(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Sure of every patient's class but P04's to P07's, and wrong about one of P02's three slices."""
    logits = 3.0 * np.eye(2)[CLASS]
    logits[6] = [0, 0.5]
    logits[12:24] /= 6
    monkeypatch.setattr(teaching, "logits", lambda model, slices: logits[slices.numpy()])
    return SimpleNamespace()


KNOWN = np.arange(6)  # all of P00's and P01's


def again(wrong: int | None = None) -> Taught:
    """After a first time that took the slices of P02 for this class."""
    rows = KNOWN if wrong is None else np.concatenate([KNOWN, [6, 7, 8]])
    return Taught(rows, np.concatenate([CLASS[KNOWN], np.full(len(rows) - 6, wrong)]), KNOWN, CLASS[KNOWN])


def test_the_second_time_three_quarters_of_the_patients_are_learnt_from(classifier: SimpleNamespace) -> None:
    taught = teach_again(again(), SPLIT, feed, classifier)
    patients = {PATIENTS[row] for row in taught.rows}
    assert len(patients) == 12
    assert {"P00", "P01"} < patients
    assert not patients & {"P04", "P05", "P06", "P07"}
    assert (PART[taught.rows] == "train").all()
    assert taught.known.tolist() == KNOWN.tolist()


def test_a_patient_has_the_class_that_its_slices_have_on_average(classifier: SimpleNamespace) -> None:
    taught = teach_again(again(wrong=1), SPLIT, feed, classifier)
    assert dict(zip(taught.rows, taught.labels, strict=True)).items() >= {6: 0, 7: 0, 8: 0}.items()
    assert (taught.labels == CLASS[taught.rows]).all()


def test_labelled_patients_keep_their_class(classifier: SimpleNamespace) -> None:
    told_otherwise = Taught(KNOWN, 1 - CLASS[KNOWN], KNOWN, 1 - CLASS[KNOWN])
    taught = teach_again(told_otherwise, SPLIT, feed, classifier)
    assert (taught.labels == np.where(np.isin(taught.rows, KNOWN), 1 - CLASS[taught.rows], CLASS[taught.rows])).all()


def test_the_second_time_reads_no_label_but_those_given(classifier: SimpleNamespace) -> None:
    hidden = Split("patient", TABLE.assign(part=PART, label=-1))
    assert teach_again(again(), hidden, feed, classifier).labels.tolist() == (
        teach_again(again(), SPLIT, feed, classifier).labels.tolist()
    )
