"""`register`: the best evaluated classifier to ONNX, checked, into the registry, and into service if it holds."""

import shutil
from collections.abc import Iterable, Iterator
from functools import partial

import mlflow
import numpy as np
import pandas as pd

from sslbt.config import Evaluate, Register
from sslbt.data.cache import prepare
from sslbt.data.files import iterate
from sslbt.data.formats import pictures
from sslbt.data.source import Source, locate
from sslbt.data.splits import make_split
from sslbt.errors import UserError
from sslbt.export.onnx import Deployed, export
from sslbt.export.parity import check
from sslbt.steps.promote import decide
from sslbt.steps.reference import store_reference
from sslbt.steps.told import PREDICTIONS
from sslbt.steps.variant import offer_smaller
from sslbt.terminal import say
from sslbt.tracking import registry
from sslbt.tracking.models import CLASSIFIER, ONNX, checkpoint_file
from sslbt.tracking.run import CONFIG, Run
from sslbt.tracking.store import get_run
from sslbt.training import checkpoint


def register(cfg: Register, run: Run) -> None:
    """Find the best evaluation, export its classifier, prove that the file equals the network, register, promote."""
    best = find(cfg, run)
    say(f"best by {cfg.metric}: {best.info.run_name} ({best.data.metrics.get(cfg.metric, float('nan')):.3f})")
    source = best.data.params[CONFIG + "model"]
    file = checkpoint_file(source, CLASSIFIER)
    classifier, about = checkpoint.load_classifier(file)
    deployed = Deployed(classifier, checkpoint.load_outlier(file), about)
    test = registry.predictions_of(best.info.run_id, PREDICTIONS)

    with run.artifact(CLASSIFIER) as path:  # with its weights here, the address of the version is enough to judge it
        shutil.copyfile(file, path)
    with run.artifact(ONNX) as path:
        export(deployed, about, path)
        data = source_of(best)
        cache = prepare(data)
        asked = cache.table[cache.table.file.isin(test.file)]
        split = make_split(cache.table, best.data.tags["split"], cache.classes)
        store_reference(path, about, cache, split, partial(raw_slices, data))
        parity = check(deployed, path, (pixels for _, pixels in raw_slices(data, asked)))
        if parity.slices != len(test):
            raise UserError(
                f"{parity.slices} of {len(test)} test slices found in the data; was it moved since evaluate?"
            )
        say(f"ONNX equals torch on {parity.slices} test slices: at most {parity.difference:.1e} apart")
        run.metrics({"parity/slices": float(parity.slices), "parity/difference": parity.difference})
        tags = {"evaluation": best.info.run_id, "classifier": about["run_id"], "pretrained": about["pretrained"]}
        tags |= {key: best.data.tags[key] for key in ("data_digest", "split_hash", "labels", "way", "synthetic")}
        offer_smaller(path, split, cache, labelled(raw_slices(data, asked), test, about["classes"]), run)
        version = registry.log_model(path, cfg.name, tags)
    run.describe(f"register {cfg.name} version {version.version}", **tags)
    say(f"{cfg.name} version {version.version} is registered; {ONNX} in the run {run.id} is its file for any runtime")
    decide(cfg.name, version, cfg.metric, run)


def find(cfg: Register, run: Run) -> mlflow.entities.Run:
    """The evaluation asked for, or the best of this run's experiment."""
    if cfg.run:
        chosen = get_run(cfg.run)
        if chosen.data.tags.get("stage") != "evaluate" or chosen.info.status != "FINISHED":
            raise UserError(f"run={cfg.run}: {chosen.info.run_name} is no finished evaluation")
        return chosen
    best = registry.find_best(get_run(run.id).info.experiment_id, cfg.metric)
    for name in best.left_out:
        say(f"left out, judged on other test patients or data: {name}")
    if best.left_out_count > len(best.left_out):
        say(f"and {best.left_out_count - len(best.left_out):,} more")
    return best.run


def source_of(evaluation: mlflow.entities.Run) -> Source:
    """The data an evaluation was about."""
    known = {name: evaluation.data.params.get(CONFIG + name, "") for name in Evaluate.model_fields}
    return Evaluate.build(**{name: value for name, value in known.items() if value}).source


def labelled(
    slices: Iterable[tuple[str, np.ndarray]], test: pd.DataFrame, classes: list[str]
) -> Iterator[tuple[int, np.ndarray]]:
    """The same with labels for names: by the classifier's order of classes, which need not be the data's."""
    label_of = dict(zip(test.file, map(classes.index, test["class"]), strict=True))
    yield from ((label_of[name], pixels) for name, pixels in slices)


def raw_slices(source: Source, table: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """Name and pixels of the slices of these rows of the cache, as the source holds them."""
    named = dict(zip(table.path, table.file, strict=True))
    holders = {path.rpartition("#")[0] for path in named} | set(named)  # slices of a volume: its name, "#", a number
    for name, read in iterate(locate(source)):
        if name in holders:
            yield from ((named[path], pixels) for path, pixels in pictures(read(), name) if path in named)
