"""How long `evaluate` takes, and how often its 95 % intervals hold the truth.

    python benchmarks/metrics.py                     # seconds, on one core
    python benchmarks/metrics.py --coverage 300      # so many simulated tests of 34 patients at each skill

Simulated patients have 5 to 30 slices, and answers of a patient are alike: their scores share a part. What a figure
really is comes from 20,000 patients of the same kind. The coverage is that in `sslbt.evaluation.intervals`.
"""

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is imported: one core

import time

import numpy as np
import pandas as pd
from ending import in_a_sentence
from scipy.special import softmax

from sslbt.evaluation.measures import everything, of_slices_and_patients
from sslbt.evaluation.metrics import Metrics, Predictions, evaluate, paired_table

CLASSES = ("meningioma", "glioma", "pituitary")
SIZES = ((3_064, 233), (100_000, 7_600))  # slices, patients: the whole set, and a large hospital
TEST = (12, 12, 10)  # patients of each class
SKILLS = (2.0, 3.5, 4.5, 7.0)  # how much higher the score of the true class is
FIGURES = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc", "macro_auprc", "ece", "brier")
SHOWN = (*FIGURES, "recall_glioma", "specificity_glioma", *(f"patient_{name}" for name in FIGURES if name != "ece"))
SHARED = 0.7  # of the variance of two classifiers' scores


def answers(
    generator: np.random.Generator, patients: np.ndarray, skills: list[float], slices: int = 0
) -> list[Predictions]:
    """Of one classifier or of several on the same slices; patients (patients,) are their classes."""
    count = len(patients)
    family = np.repeat(np.arange(count), generator.integers(5, 31, count))
    if slices:
        family = np.append(np.arange(count), generator.integers(0, count, slices - count))
    labels = patients[family]

    def noise() -> np.ndarray:
        return generator.normal(0, 1, (len(family), 3)) + generator.normal(0, 1.5, (count, 3))[family]

    common, found = noise(), []
    for skill in skills:
        scores = SHARED**0.5 * common + (1 - SHARED) ** 0.5 * noise() + skill * np.eye(3)[labels]
        found.append(Predictions(labels, softmax(scores, axis=1), family, np.arange(len(family))))
    return found


def seconds(slices: int, patients: int) -> tuple[float, float]:
    """Of `evaluate` and of `paired_table`."""
    ours, theirs = answers(np.random.default_rng(0), np.arange(patients) % 3, [3.5, 3.5], slices)
    times = [time.perf_counter()]
    evaluate(ours, CLASSES)
    times.append(time.perf_counter())
    paired_table(ours, theirs, CLASSES)
    times.append(time.perf_counter())
    return times[1] - times[0], times[2] - times[1]


def truth(patients: np.ndarray, skill: float) -> Metrics:
    """What the figures of such a classifier are on very many such patients."""
    many = np.tile(patients, 20_000 // len(patients))
    (own,) = answers(np.random.default_rng(1), many, [skill])
    whole = np.ones((1, len(many)))
    figures = of_slices_and_patients(everything, own.labels, own.families, own.probabilities, whole, CLASSES)
    return {name: float(values[0]) for name, values in figures.items()}


def coverage(patients: np.ndarray, skill: float, rounds: int) -> pd.DataFrame:
    """Of each figure: the truth, how often its interval holds it, how wide that is, and how often a paired comparison
    of two classifiers that are equally good finds a difference at p < 0.05."""
    true, found = truth(patients, skill), []
    for number in range(rounds):
        ours, theirs = answers(np.random.default_rng([2, number]), patients, [skill, skill])
        figures = evaluate(ours, CLASSES)
        p = paired_table(ours, theirs, CLASSES).set_index("name").p
        for name in SHOWN:
            low, high = figures[f"{name}_ci_low"], figures[f"{name}_ci_high"]
            found.append((name, true[name], low <= true[name] <= high, high - low, p[name] < 0.05))
    table = pd.DataFrame(found, columns=["figure", "truth", "coverage", "width", "apart"])
    return table.groupby("figure", sort=False).mean()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--coverage", type=int, default=0, metavar="ROUNDS")
    rounds = parser.parse_args().coverage
    for skill in SKILLS if rounds else ():
        table = coverage(np.repeat(range(3), TEST), skill, rounds)
        print(f"\nskill {skill}\n{table.to_string(float_format='{:.3f}'.format)}", flush=True)
    for slices, patients in () if rounds else SIZES:
        alone, paired = seconds(slices, patients)
        print(f"{slices:7} slices of {patients:5} patients: evaluate {alone:6.2f} s, paired_table {paired:6.2f} s")


if __name__ == "__main__":
    with in_a_sentence():
        main()
