"""What `evaluate` finds out about one classifier on one test: measured by the other files here, told by the report."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sslbt.evaluation.metrics import Metrics, Predictions

HEADLINE = "patient_balanced_accuracy"


@dataclass(frozen=True)
class Control:
    """What a dumb method, or the classifier on a spoilt picture, reaches on the same test."""

    name: str  # as people read it, such as "raw pixels"
    about: str  # a sentence: what it is
    metrics: Metrics
    difference: tuple[float, float]  # 95 % interval of classifier less control in HEADLINE, paired over patients


@dataclass(frozen=True)
class Answering:
    """When the classifier answers, and how right it is then."""

    level: float  # the stated guarantee: the sets hold the true class for such a share of new patients' slices
    threshold: float  # a class of at least this probability is in the set; one class alone is an answer
    patients: int  # families the threshold comes from
    covered: tuple[float, float, float]  # share of slices whose set holds the true class, patients weighing the same
    answered: float  # share of test slices with one class in the set
    accuracy: float  # among those
    curve: pd.DataFrame  # coverage, accuracy, accuracy_ci_low, accuracy_ci_high: the surest slices first


@dataclass(frozen=True)
class Shown:
    """A slice to look at."""

    file: str
    family: str
    truth: int
    probabilities: np.ndarray  # (classes,)
    pixels: np.ndarray  # (256, 256) uint8
    saliency: np.ndarray | None  # (size, size) 0 to 1: what spoke for the predicted class
    mask: np.ndarray | None  # (256, 256) bool: where the tumour is


@dataclass(frozen=True)
class Results:
    """Everything about one classifier on one test. Tables may be empty where there was nothing to measure."""

    classes: tuple[str, ...]
    predictions: Predictions  # calibrated
    uncalibrated: np.ndarray  # (slices, classes), probabilities at temperature 1
    metrics: Metrics
    controls: list[Control]
    answering: Answering
    outliers: pd.DataFrame  # kind, pictures, accepted (share that passes as a brain MRI); real slices first
    groups: pd.DataFrame  # by, group, slices, patients, accuracy, accuracy_ci_low, accuracy_ci_high
    robustness: pd.DataFrame  # change, strength, balanced_accuracy, balanced_accuracy_ci_low, balanced_accuracy_ci_high
    saliency: pd.DataFrame  # method (ours first), by, group, slices; FIGURES of localisation with _ci_low, _ci_high
    worst: list[Shown]  # the surest of the wrong answers
    examples: list[Shown]  # right answers, evenly from the classes
