"""Do the sets of plausible classes keep their promise for patients that were not asked to set them?

    python benchmarks/answering.py DATA CLASSIFIER ...

CLASSIFIER is a checkpoint (a run's checkpoint/classifier.safetensors) fine-tuned with split=patient. Validation and
test families, whom no weights have seen, are pooled; 200 times as many as validate are drawn to set temperature and
threshold, and the sets of the others' slices are looked at. Prints the mean share that holds the true class, patients
weighing the same, beside what was promised.
"""

import argparse
from pathlib import Path

import numpy as np
from ending import in_a_sentence
from scipy.special import softmax

from sslbt.data.cache import prepare
from sslbt.data.source import Source
from sslbt.data.splits import make_split
from sslbt.evaluation.answering import over_patients, plausible_above, sets
from sslbt.evaluation.calibration import fit_temperature
from sslbt.evaluation.features import logits
from sslbt.evaluation.metrics import Predictions
from sslbt.steps.common import refuse_leak
from sslbt.training.checkpoint import load_classifier

ROUNDS = 200


def main(data: str, checkpoints: list[Path]) -> None:
    cache = prepare(Source(data))
    split = make_split(cache.table, "patient", cache.classes)
    rows = np.concatenate([split.rows("validation"), split.rows("test")])
    labels, families = (cache.table[name].to_numpy()[rows] for name in ("label", "family"))
    everybody, count = np.unique(families), len(np.unique(split.table.family.iloc[split.rows("validation")]))
    for path in checkpoints:
        model, about = load_classifier(path)
        refuse_leak(about["seen"], split, str(path))
        scores, generator = logits(model, cache.load(rows, about["size"])), np.random.default_rng(0)
        covered = []
        for _ in range(ROUNDS):
            drawn = np.isin(families, generator.choice(everybody, count, replace=False))
            probabilities = softmax(scores / fit_temperature(scores[drawn], labels[drawn]), axis=1)
            answers = Predictions(labels, probabilities, families, families)
            threshold, promised = plausible_above(answers.only(drawn))
            held = sets(probabilities, threshold)[np.arange(len(labels)), labels]
            covered.append(over_patients(held[~drawn], families[~drawn])[0])
        spread = f"{np.mean(covered):.3f} (deviation {np.std(covered):.3f})"
        print(f"{about['way']}, {about['labels']} labels, {about['size']} px: {spread}, promised {promised:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("classifiers", type=Path, nargs="+", metavar="classifier")
    given = parser.parse_args()
    with in_a_sentence():
        main(given.data, [path.expanduser() for path in given.classifiers])
