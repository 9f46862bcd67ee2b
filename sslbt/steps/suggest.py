"""`suggest`: which slices to label."""

from pathlib import Path

import numpy as np
import pandas as pd

from sslbt.config import Suggest
from sslbt.data.cache import Cache, prepare
from sslbt.data.source import at
from sslbt.data.splits import Split, make_split
from sslbt.errors import UserError
from sslbt.evaluation.features import extract
from sslbt.evaluation.suggesting import stand_for_all
from sslbt.nn.encoder import Encoder
from sslbt.report.suggestions import suggestions
from sslbt.steps.common import refuse_leak
from sslbt.terminal import say
from sslbt.tracking.models import ENCODER, checkpoint_file
from sslbt.tracking.run import Run
from sslbt.training import checkpoint
from sslbt.training.loop import best_device

BATCH = 1024  # slices in memory at a time


def suggest(cfg: Suggest, run: Run) -> None:
    """Write a CSV of slices that stand for all, to be filled in, and a page that shows them; no label is looked at."""
    output = at(cfg.output)
    if output.exists():
        raise UserError(f"output={cfg.output}: is there already, maybe with classes filled in; give another name")
    cache = prepare(cfg.source)
    split = whom_to_ask(cache, cfg.split)
    rows = split.rows("train")
    if cfg.count > len(rows):
        raise UserError(f"count={cfg.count}: there are {len(rows)} slices to choose from; give a smaller number")
    run.describe(f"suggest {cfg.count} slices", pretrained=cfg.pretrained)
    run.dataset(cfg.data, cache, split)

    encoder, about = checkpoint.load_encoder(checkpoint_file(cfg.pretrained, ENCODER))
    refuse_leak(about["seen"], split, f"pretrained={cfg.pretrained}")
    chosen = choose(encoder.to(best_device()), about["size"], cache, split, cfg.count, cfg.seed)

    table = cache.table.iloc[chosen]
    page = suggestions(cache, split, chosen, cfg.data, cfg.pretrained, output.name)
    run.metrics({"suggested/slices": cfg.count, "suggested/families": table.family.nunique()})
    leave(table[["file", "patient"]].assign(**{"class": ""}), page, output, run)
    say(f"{output}: {cfg.count} slices of {table.family.nunique()} families; {output.with_suffix('.html')} shows them")
    used = "labels" if (cache.table.label >= 0).any() else "annotations"
    say(f"fill in its column class, then fine-tune with {used}={output}")


def whom_to_ask(cache: Cache, name: str) -> Split:
    """The split whose training part is asked of: the one of this name, or all slices while none is labelled."""
    if name != "none" and (cache.table.label >= 0).any():
        return make_split(cache.table, name, cache.classes)
    return Split("none", cache.table[["file", "patient", "family", "label"]].assign(part="train"))


def choose(encoder: Encoder, size: int, cache: Cache, split: Split, count: int, seed: int) -> np.ndarray:
    """Row numbers of so many training slices that stand for all, by what the encoder makes of them."""
    rows = split.rows("train")
    return rows[stand_for_all(features(encoder, cache, rows, size), split.table.family.to_numpy()[rows], count, seed)]


def features(encoder: Encoder, cache: Cache, rows: np.ndarray, size: int) -> np.ndarray:
    """What the encoder makes of the slices of these rows, (rows, channels)."""
    parts = np.array_split(rows, -(-len(rows) // BATCH))
    return np.concatenate([extract(encoder, cache.load(part, size)) for part in parts])


def leave(table: pd.DataFrame, page: str, output: Path, run: Run) -> None:
    """The CSV and its page, where they were asked for and in the run."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.with_suffix(".html").write_text(page, encoding="utf-8")
    table.to_csv(output, index=False)
    run.page("suggestions/suggested.html", page)
    run.table("suggestions/suggested.csv", table)
