"""How much more right one recipe is than another, over folds: where only the figures of a results.json were kept.

    python benchmarks/between_folds.py docs/results_best_encoder.json:encoder docs/results_best_scratch.json:scratch

Each is FILE:WAY. Compares, for each number of labels that both have, the draws and folds that both have: the mean of
each over the folds, and the mean difference with its 95 % interval by Student's t over the folds (Student 1908; the
folds' test families are disjoint, their training families are not, so that it is somewhat too narrow). Where answers
slice by slice are kept, `between.py` pairs over families instead. Prints Markdown.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from accuracy_table import METRICS, short, with_interval
from scipy import stats

from sslbt.errors import UserError

Cells = dict[tuple[str, str], dict[tuple[int, str], float]]  # (labels, metric): (draw, split hash of a fold): figure


def figures(given: str) -> Cells:
    """What a way reached, by draw and fold.

    Raises:
        UserError: no such file, or it does not have this way.
    """
    path, _, way = given.rpartition(":")
    try:
        found = json.loads(Path(path).read_text())
        rows = [row for row in found["figures"] if row["method"] == way]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{given}: not a results.json of accuracy.py and a way, FILE:WAY ({error})") from error
    if not rows:
        raise UserError(
            f"{path} has no {way}, but {', '.join(dict.fromkeys(row['method'] for row in found['figures']))}"
        )
    return {
        (row["labels"], row["metric"]): {
            (draw, fold): figure
            for draw, folds in zip(found["draws"][row["labels"]], row["by_draw_and_fold"], strict=True)
            for fold, figure in zip(found["folds"].values(), folds, strict=True)
        }
        for row in rows
    }


def compared(ours: dict[tuple[int, str], float], theirs: dict[tuple[int, str], float]) -> tuple[str, str, str]:
    """The mean of each over folds and draws of both, and their difference with its interval."""
    both = sorted(ours.keys() & theirs.keys())
    folds = sorted({fold for _, fold in both})
    if len(folds) < 2:
        raise UserError("they have fewer than two folds and draws in common; an interval over folds needs two")
    first, second = (
        np.array([np.mean([own[key] for key in both if key[1] == fold]) for fold in folds]) for own in (ours, theirs)
    )
    low, high = stats.ttest_rel(first, second).confidence_interval(0.95)
    row = {"difference": np.mean(first - second), "ci_low": low, "ci_high": high}
    return short(first.mean()), short(second.mean()), with_interval(row, "difference", "+")


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", metavar="FILE:WAY")
    parser.add_argument("others", metavar="FILE:WAY", nargs="+")
    given = parser.parse_args(words)
    try:
        ours = figures(given.first)
        print(f"| labels | other | {given.first} | other | more, slices | more, patients |\n|---|---|---|---|---|---|")
        for other in given.others:
            theirs = figures(other)
            common = dict.fromkeys(labels for labels, _ in ours if (labels, "accuracy") in theirs)
            if not common:
                raise UserError(f"{given.first} and {other} have no number of labels in common")
            for labels in common:
                slices, patients = (compared(ours[labels, metric], theirs[labels, metric]) for metric in METRICS)
                means = [" / ".join(pair) for pair in zip(slices[:2], patients[:2], strict=True)]
                print(f"| {labels} | {other} | {means[0]} | {means[1]} | {slices[2]} | {patients[2]} |")
    except UserError as error:
        sys.exit(f"between_folds: {error}")


if __name__ == "__main__":
    main()
