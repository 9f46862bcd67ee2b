"""How good both ways are on unseen patients, beside from-scratch training and controls: the table of docs/results.md.

    python benchmarks/accuracy.py DATA                               # hours from nothing, on the figshare slices
    python benchmarks/accuracy.py DATA --folds 1,2                   # a share of it; another process has --folds 3,4,5
    python benchmarks/accuracy.py DATA --table-only --out docs       # tables, accuracy.png and results.json
    python benchmarks/accuracy.py DATA --budgets 12,12-suggested     # twelve `suggest` asks for, beside twelve drawn

DATA is what `sslbt prepare` takes. Folds are split=patient:1 to 5, whose test families are disjoint; draws are seeds,
which choose the labels and start the network. Encoders, one a fold and way, and answers are kept in
$SSLBT_HOME/accuracy/PRESET (or --folder): what is there is not made again, so that the command goes on after a kill,
and --folds, --ways, --budgets and --draws share the work among processes (OMP_NUM_THREADS=1 for each). An encoder made
elsewhere goes to encoders/contrastive-patient-1.safetensors in that folder. `scratch` brings the other controls along.
Tables and picture show what was asked for, of each budget the draws that all methods have; results.json also holds what
they come from. Both files lie in the folder too, unless --out says where.
"""

import argparse
import sys
from collections.abc import Callable
from itertools import islice, product
from pathlib import Path

from accuracy_answers import PRETRAININGS, SCRATCH, SUGGESTED, Answer, Plan, Study
from accuracy_table import report

from sslbt.data.cache import prepare
from sslbt.data.source import Source, cache_folder
from sslbt.data.splits import FOLDS, make_split
from sslbt.errors import UserError
from sslbt.evaluation.metrics import Predictions
from sslbt.parameters import PRESETS
from sslbt.steps.controls import DUMB, with_the_labels
from sslbt.steps.finetune import finetune
from sslbt.steps.judge import NAMES, Judge
from sslbt.terminal import say
from sslbt.tracking.models import CLASSIFIER
from sslbt.training import checkpoint

BUDGETS, DRAWS = ("12", "123", "all"), 5


def work(study: Study, plan: Plan) -> None:
    """Make every answer that is asked for and not there yet."""
    for fold, way, labels in product(plan.folds, plan.ways, plan.budgets):
        for draw in plan.draws_of(labels):
            if way in PRETRAININGS:
                study.encoder(fold, way)
            answers = [Answer(fold, name, labels, draw) for name in ((way, *DUMB) if way == SCRATCH else (way,))]
            if not all(study.has(answer) for answer in answers):
                say(f"patient:{fold}, {NAMES[way]}, {labels} labels, draw {draw}")
                found = classify(study, answers[0])
                for answer in answers:
                    study.keep(answer, found[answer.method])


def classify(study: Study, answer: Answer) -> dict[str, Predictions]:
    """Fine-tune and ask about the test slices, as the entry points do; beside from-scratch training the controls."""
    config = study.finetuning(answer)
    with study.run(config) as run:
        finetune(config, run)
        judge = Judge(*checkpoint.load_classifier(run.unfinished / CLASSIFIER), study.cache, study.splits[answer.fold])
        found = {answer.method: judge.predictions}
        if answer.method == SCRATCH:
            dumb = islice(with_the_labels(judge), len(DUMB))  # shuffled labels, which come next, are about an encoder
            found |= {name: judge.truth_of(judge.rows, probabilities) for name, (probabilities,) in dumb}
        return found


def open_study(given: argparse.Namespace) -> Study:
    """The data, preset, folds and folder that the command line names."""
    folder = (given.folder or cache_folder() / "accuracy" / given.preset).expanduser()
    cache = prepare(Source(given.data))
    splits = {int(fold): make_split(cache.table, f"patient:{fold}", cache.classes) for fold in given.folds}
    return Study(folder, folder / "encoders", given.data, given.preset, cache, splits)


def several(known: list[str]) -> Callable[[str], list[str]]:
    """Reads a list with commas, all of it among those known."""

    def read(given: str) -> list[str]:
        names = given.split(",")
        if strange := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"no {strange[0]}; there are {','.join(known)}")
        return names

    return read


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--preset", default="standard", choices=PRESETS)
    parser.add_argument("--folder", type=Path, help="where answers are kept [$SSLBT_HOME/accuracy/PRESET]")
    parser.add_argument("--out", type=Path, help="where accuracy.png and results.json go [the same folder]")
    parser.add_argument("--table-only", action="store_true", help="make no answer")
    shares = {
        "folds": [str(1 + fold) for fold in range(FOLDS)],
        "ways": list(NAMES),
        "budgets": list(BUDGETS),
        "draws": [str(draw) for draw in range(DRAWS)],
    }
    for name, usual in shares.items():
        known = [*usual, SUGGESTED] if name == "budgets" else usual
        parser.add_argument(f"--{name}", type=several(known), default=usual, help=f"[{','.join(usual)}]")
    given = parser.parse_args(words)
    plan = Plan([int(fold) for fold in given.folds], given.ways, given.budgets, [int(draw) for draw in given.draws])
    try:
        study = open_study(given)
        if not given.table_only:
            work(study, plan)
        report(study, plan, given.out or study.folder)
    except UserError as error:
        sys.exit(f"accuracy: {error}")


if __name__ == "__main__":
    main()
