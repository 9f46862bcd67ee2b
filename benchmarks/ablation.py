"""What each part of fine-tuning adds: the ablation of docs/results.md.

    python benchmarks/ablation.py DATA                 # after `python benchmarks/accuracy.py DATA --ways contrastive`
    python benchmarks/ablation.py DATA --table-only

Encoders of the contrastive way and answers of the whole recipe are those that `accuracy.py` keeps, and made where they
aren't there. Each variant changes one parameter of fine-tuning, if the preset has it otherwise; its answers are kept in
a folder of its own beside.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from accuracy import BUDGETS, classify, open_study, several
from accuracy_answers import Answer, Study
from accuracy_table import METRICS, above, measured, short, with_interval

from sslbt.data.splits import FOLDS
from sslbt.errors import UserError
from sslbt.evaluation.metrics import Predictions
from sslbt.parameters import PRESETS
from sslbt.terminal import say

WAY = "contrastive"
VARIANTS = {
    "the whole recipe": {},
    "labelled slices alone": {"learn_from": "labels"},
    "all slices of labelled patients": {"learn_from": "patients"},
    "likely patients once": {"learn_from": "all"},
    "likely patients twice": {"learn_from": "twice"},
    "the whole encoder is trained": {"freeze": "none"},
    "none of the encoder is trained": {"freeze": "all"},
}
WHOLE = next(iter(VARIANTS))


def answered(study: Study, labels: str, draws: list[int], make: bool) -> list[list[Predictions]]:
    """Answers by draw and fold; none where one is missing and none is to be made."""
    asked = [[Answer(fold, WAY, labels, draw) for fold in study.splits] for draw in draws]
    for answer in (answer for folds in asked for answer in folds):
        study.encoder(answer.fold, WAY)
        if not study.has(answer):
            if not make:
                return []
            say(f"patient:{answer.fold}, {study.settings or WHOLE}, {labels} labels, draw {answer.draw}")
            study.keep(answer, classify(study, answer)[WAY])
    return [[study.predictions(answer) for answer in folds] for folds in asked]


def table(found: dict[str, list[list[Predictions]]], labels: str) -> str:
    """Markdown: each variant's figures, and how much more they are than those of the whole recipe."""
    lines = ["| | slices | patients | more of slices | more of patients |", "|---|---|---|---|---|"]
    for name, draws in found.items():
        figures = {row["metric"]: short(row["value"]) for row in measured(WAY, labels, draws)}
        cells = [figures[metric] for metric in METRICS]
        if name == WHOLE:
            cells += ["", ""]
        else:
            cells += [with_interval(row, "difference", "+") for row in above(WAY, labels, draws, found[WHOLE])]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--preset", default="standard", choices=PRESETS)
    parser.add_argument("--folder", type=Path, help="where accuracy.py keeps answers [$SSLBT_HOME/accuracy/PRESET]")
    folds = [str(1 + fold) for fold in range(FOLDS)]
    parser.add_argument("--folds", type=several(folds), default=folds, help=f"[{','.join(folds)}]")
    parser.add_argument("--labels", default="12", choices=BUDGETS)
    parser.add_argument("--draws", type=several([str(draw) for draw in range(5)]), default=["0"], help="[0]")
    parser.add_argument("--variants", type=several(list(VARIANTS)), default=list(VARIANTS), help="[all]")
    parser.add_argument("--table-only", action="store_true", help="make no answer")
    given = parser.parse_args(words)
    try:
        whole = open_study(given)
        own = whole.finetuning(Answer(int(given.folds[0]), WAY, given.labels, 0))
        differs = {
            name: any(getattr(own, key) != new for key, new in VARIANTS[name].items()) for name in given.variants
        }
        found = {}
        for name in [WHOLE, *filter(differs.get, given.variants)]:
            changed = [f"{key}-{value}" for key, value in VARIANTS[name].items()]
            place = whole.folder.joinpath("ablation", *changed) if changed else whole.folder
            study = replace(whole, folder=place, settings=VARIANTS[name])
            if answers := answered(study, given.labels, [int(draw) for draw in given.draws], not given.table_only):
                found[name] = answers
        if WHOLE in found:
            print(table(found, given.labels))
    except UserError as error:
        sys.exit(f"ablation: {error}")


if __name__ == "__main__":
    main()
