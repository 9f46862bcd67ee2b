"""`finetune`: a classifier on a pretrained encoder, from few labels."""

import copy
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from sslbt import parallel
from sslbt.config import Finetune
from sslbt.data.cache import Cache
from sslbt.data.labels import labels_of
from sslbt.data.source import cache_folder, once
from sslbt.data.splits import Split
from sslbt.evaluation import answering, figures, outliers
from sslbt.evaluation.calibration import fit_temperature
from sslbt.evaluation.features import logits
from sslbt.nn.encoder import Encoder
from sslbt.nn.outlier import Outlier
from sslbt.steps.common import open_data, origin, refuse_leak
from sslbt.steps.fitting import SCRATCH, Fitting, Watch
from sslbt.steps.released import released_no_brain
from sslbt.steps.teaching import teach, teach_again
from sslbt.terminal import say
from sslbt.tracking.code import code_digest
from sslbt.tracking.models import CLASSIFIER, ENCODER, RELEASED, checkpoint_file
from sslbt.tracking.run import Run
from sslbt.training import checkpoint
from sslbt.training.feed import Feed
from sslbt.training.loop import best_device

TELLS_PATIENTS_APART = ("contrastive",)  # what restoring teaches has to be fine-tuned before it says who is alike
OUTLIER_FILE = "outlier.safetensors"


def finetune(cfg: Finetune, run: Run) -> None:
    """Put new layers on an encoder and train both on the labelled slices.

    Validation patients are watched, calibrate the probabilities afterwards and say when not to answer; no epoch is
    chosen by them, since probabilities fitted to the very patients that an epoch was chosen by would be too sure.
    """
    cache, split = open_data(cfg, run)
    torch.manual_seed(cfg.seed)
    encoder, before = pretrained_encoder(cfg, split)
    run.describe(
        f"finetune {before['way']}, {cfg.labels} labels",
        way=before["way"],
        labels=cfg.labels,
        pretrained=cfg.pretrained,
    )
    rows, labels = labels_of(split, cfg.labels, cfg.seed, cache.classes)
    run.table("labels/labels.csv", labelled(split, rows, labels, cache.classes))

    shown = figures.slices_by_class(cache.pixels[rows], labels, cache.classes, " that are labelled")
    run.figure("pictures/labelled_slices.png", shown)

    feed = Feed.of(cache, before["size"], best_device())
    alike = encoder.to(feed.device) if before["way"] in TELLS_PATIENTS_APART else None
    taught = parallel.from_first(lambda: teach(cfg.learn_from, split, rows, labels, feed, alike))
    run.table("labels/learnt_from.csv", labelled(split, taught.rows, taught.labels, cache.classes))
    watch = Watch(cache.load(split.rows("validation"), before["size"]), split, cfg.epochs)
    fitting = Fitting(cfg, cache, split, feed, before["size"], watch, run)
    if cfg.learn_from == "twice" and len(taught.rows) > len(taught.known):  # somebody's class was guessed
        say(f"the first of two trainings, from {len(taught.rows)} slices")
        first = fitting.fit(copy.deepcopy(encoder), taught, first=True)
        taught = parallel.from_first(lambda: teach_again(taught, split, feed, first))
        run.table("labels/learnt_from_again.csv", labelled(split, taught.rows, taught.labels, cache.classes))
        say(f"the second, from {len(taught.rows)} slices")
    model = fitting.fit(encoder, taught)

    if parallel.rank():
        return  # the first process sees to the rest
    temperature = fit_temperature(logits(model, watch.slices), watch.labels)
    plausible_above, guarantee = answering.plausible_above(watch.predictions(model, temperature))
    outlier = released_no_brain(cache, split) if cfg.pretrained == RELEASED else no_brain(cache, split)
    run.metrics(
        {
            "validation/temperature": temperature,
            "validation/plausible_above": plausible_above,
            "validation/guarantee": guarantee,
            "validation/strange_above": float(outlier.above),
        }
    )
    facts = {
        "size": before["size"],
        "way": before["way"],
        "classes": cache.classes,
        "labels": cfg.labels,
        "labelled_files": list(split.table.file.iloc[rows]),
        "learn_from": cfg.learn_from,
        "known_files": list(split.table.file.iloc[taught.known]),
        "known_labels": taught.of_known.tolist(),
        "pretrained": cfg.pretrained,
        "temperature": temperature,
        "plausible_above": plausible_above,
        "guarantee": guarantee,
        "training_slices": len(split.rows("train")),
        "validation_families": len(np.unique(watch.families)),
    }
    # Where not to answer was learnt from every slice of these patients, labelled or not.
    lineage = origin(cache, split, np.flatnonzero(split.table.part.isin(["train", "validation"])), run)
    lineage["seen"] = sorted({tuple(slice_) for slice_ in [*lineage["seen"], *before["seen"]]})
    with run.artifact(CLASSIFIER) as path:
        checkpoint.save_classifier(path, model, outlier, facts | lineage)
    say(f"the classifier is in the run {run.id}: evaluate takes it as model={run.id}")


def labelled(split: Split, rows: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> pd.DataFrame:
    """Files, patients and classes of these rows, to be logged."""
    return split.table.iloc[rows][["file", "patient", "family"]].assign(**{"class": np.array(classes)[labels]})


def pretrained_encoder(cfg: Finetune, split: Split) -> tuple[Encoder, dict]:
    """The encoder to start from, and what its checkpoint says; a new one for `pretrained=none`."""
    if cfg.pretrained == SCRATCH:
        return Encoder(cfg.width), {"size": cfg.size, "way": "scratch", "seen": []}
    encoder, about = checkpoint.load_encoder(checkpoint_file(cfg.pretrained, ENCODER))
    refuse_leak(about["seen"], split, f"pretrained={cfg.pretrained}")
    return encoder, about


def no_brain(cache: Cache, split: Split) -> Outlier:
    """What tells pictures that are no brain MRI; fitted once for all classifiers that learn from these patients."""
    place = cache_folder() / f"outlier-{cache.digest}-{split.hash}-{code_digest()}"

    def fit(folder: Path) -> None:
        say("learning what is no brain MRI, about a minute")
        checkpoint.save(folder / OUTLIER_FILE, outliers.fit(cache.pixels, split).state_dict(), {})

    outlier = Outlier()
    outlier.load_state_dict(checkpoint.load(once(place, fit) / OUTLIER_FILE)[0])
    return outlier.eval()
