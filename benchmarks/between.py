"""How much more right one recipe is than others, paired over the families of all folds: the differences of results.md.

    python benchmarks/between.py DATA best/contrastive standard/contrastive standard/scratch --budgets 123,all --draws 0

    python benchmarks/between.py DATA standard/contrastive/12-suggested/0 standard/contrastive --budgets 12

Each is PRESET/WAY, whose answers `accuracy.py --preset PRESET --ways WAY` has made, or PRESET/WAY/LABELS/DRAW, one draw
of these labels, which is compared with all draws of the other. The first is compared with each of the others. Prints
Markdown.
"""

import argparse
import sys

from accuracy import BUDGETS, DRAWS, open_study, several
from accuracy_answers import Answer
from accuracy_table import above, with_interval

from sslbt.data.splits import FOLDS
from sslbt.errors import UserError
from sslbt.evaluation.metrics import Predictions


def kept(given: argparse.Namespace, name: str, labels: str) -> list[list[Predictions]]:
    """Answers by draw and fold.

    Raises:
        UserError: one is not there, or the name is none.
    """
    if name.count("/") not in (1, 3):
        raise UserError(f"{name}: give PRESET/WAY or PRESET/WAY/LABELS/DRAW")
    preset, way, *only = name.split("/")
    labels, draws = (only[0], [only[1]] * len(given.draws)) if only else (labels, given.draws)
    study = open_study(argparse.Namespace(**vars(given), preset=preset, folder=None))
    answers = [[Answer(fold, way, labels, int(draw)) for fold in study.splits] for draw in draws]
    for answer in (answer for folds in answers for answer in folds):
        if not study.has(answer):
            raise UserError(f"{study.folder}: {answer.name} is not there; make it with accuracy.py --preset {preset}")
    return [[study.predictions(answer) for answer in folds] for folds in answers]


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("first", metavar="PRESET/WAY")
    parser.add_argument("others", metavar="PRESET/WAY", nargs="+")
    for name, known in {
        "folds": [str(1 + fold) for fold in range(FOLDS)],
        "budgets": list(BUDGETS),
        "draws": [str(draw) for draw in range(DRAWS)],
    }.items():
        parser.add_argument(f"--{name}", type=several(known), default=known, help=f"[{','.join(known)}]")
    given = parser.parse_args(words)
    try:
        print(f"| labels | {given.first} more than | slices | patients |\n|---|---|---|---|")
        for labels in given.budgets:
            ours = kept(given, given.first, labels)
            for other in given.others:
                rows = above(given.first, labels, ours, kept(given, other, labels))
                cells = [with_interval(row, "difference", "+") for row in rows]
                print(f"| {labels} | {other} | " + " | ".join(cells) + " |")
    except UserError as error:
        sys.exit(f"between: {error}")


if __name__ == "__main__":
    main()
