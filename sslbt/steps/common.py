"""What several steps begin or end with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from sslbt import parallel
from sslbt.config import Evaluate, Prepare, Pretraining, Training
from sslbt.data.audit import Audit, audit
from sslbt.data.cache import Cache, prepare
from sslbt.data.splits import Split, make_split, some
from sslbt.errors import UserError
from sslbt.evaluation import figures
from sslbt.evaluation.features import extract
from sslbt.evaluation.probe import Probe
from sslbt.nn.encoder import Encoder
from sslbt.terminal import say
from sslbt.tracking.code import code_version
from sslbt.tracking.models import ENCODER, LAST_ENCODER
from sslbt.tracking.run import Run
from sslbt.training import checkpoint
from sslbt.training.schedule import Schedule
from sslbt.training.state import LAST, State, weights_of

MOST_WATCHED = 2000  # slices; more tell a probe nothing new and cost time at every look


def open_data(cfg: Training | Evaluate, run: Run, classes: tuple[str, ...] | None = None) -> tuple[Cache, Split]:
    """The prepared slices and who is on which side, both logged.

    Args:
        cfg: which data and split.
        run: where to log.
        classes: of the classifier that is to be judged, in its order; the data may hold fewer.

    Raises:
        UserError: the data can't be used, or one picture is on both sides under the names of two patients.
    """
    cache, split, found = look_at_data(cfg, run, classes)
    if found.stops:
        raise UserError(f"{found.findings[0]}; give both patients one number (annotations), or remove the copies")
    return cache, split


def look_at_data(
    cfg: Prepare | Training | Evaluate, run: Run, classes: tuple[str, ...] | None = None
) -> tuple[Cache, Split, Audit]:
    """The same with what leaks between the parts, which stops nothing here."""
    cache = prepare(cfg.source)
    if classes:
        cache = cache.with_classes(classes)
    split = make_split(cache.table, cfg.split, cache.classes)
    run.dataset(cfg.data, cache, split)
    found = audit(cache, split)
    run.audit(found)
    if len(found.pairs):
        run.figure("audit/pairs.png", figures.similar(cache.pixels, found.pairs))
    return cache, split, found


def schedule_of(cfg: Training, steps: int) -> Schedule:
    """How long and how fast, for a task of so many steps an epoch."""
    return Schedule(
        cfg.epochs, steps, cfg.learning_rate, cfg.schedule, cfg.weight_decay, seed=cfg.seed, compiled=cfg.compile
    )


@dataclass(frozen=True)
class Watched:
    """Validation slices that a pretraining is watched by."""

    slices: Tensor  # (slices, 1, size, size)
    labels: np.ndarray
    families: np.ndarray
    classes: tuple[str, ...]
    probe: Probe


def validation(cache: Cache, split: Split, cfg: Pretraining) -> Watched:
    """Validation slices at the size of training, evenly picked where there are very many, and their probe."""
    rows = some(split.rows("validation"), MOST_WATCHED)
    slices, table = cache.load(rows, cfg.size), split.table.iloc[rows]
    labels, families = table.label.to_numpy(), table.family.to_numpy()
    return Watched(slices, labels, families, cache.classes, Probe(slices, labels, families, cfg.epochs))


def leave_encoder(
    encoder: Encoder, cfg: Pretraining, state: State, watched: Watched, about: dict[str, Any], run: Run
) -> None:
    """Log what a pretraining ends with: curves, a map of its features, the best encoder and the last one."""
    if parallel.rank():
        return  # the first process has the checkpoints
    run.figure("pictures/curves.png", figures.curves([epoch.metrics for epoch in state.history], state.best))
    features = extract(encoder, watched.slices)
    run.figure("pictures/embedding.png", figures.embedding(features, watched.labels, watched.families, watched.classes))
    last = cfg.epochs - 1
    best = last if state.best is None else state.best
    run.metrics({"probe/best_epoch": best + 1, "probe/best_score": state.best_score})
    about |= {"size": cfg.size}
    with run.artifact(ENCODER) as path:
        checkpoint.save_encoder(path, encoder, about | {"epoch": best})
    weights = weights_of(checkpoint.load(run.unfinished / LAST)[0])
    own = {name.removeprefix("encoder."): tensor for name, tensor in weights.items() if name.startswith("encoder.")}
    encoder.load_state_dict(own)
    with run.artifact(LAST_ENCODER) as path:
        checkpoint.save_encoder(path, encoder, about | {"epoch": last})
    say(f"the encoder is in the run {run.id}: finetune and suggest take it as pretrained={run.id}")


def origin(cache: Cache, split: Split, rows: np.ndarray, run: Run) -> dict:
    """What a checkpoint says of where it comes from; `seen` lists the training slices behind it."""
    seen = split.table.iloc[rows]
    return {
        "run_id": run.id,
        "code_version": code_version(),
        "data_digest": cache.digest,
        "synthetic": cache.synthetic,
        "split": split.name,
        "split_hash": split.hash,
        "seen": sorted(zip(seen.file, seen.family, strict=True)),
    }


def refuse_leak(seen: Sequence[Sequence[str]], split: Split, what: str) -> None:
    """Stop where a checkpoint has learnt from test patients (from test slices, where the split is by slices).

    Args:
        seen: file and family of every slice the checkpoint has learnt from.
        what: the checkpoint, as the user called it.
    """
    place = 0 if split.name == "slices" else 1
    test = split.table.iloc[split.rows("test")]
    both = {slice_[place] for slice_ in seen} & set((test.file, test.family)[place])
    if both:
        raise UserError(
            f"{what}: it has learnt from {len(both)} of the test {('slices', 'patients')[place]} of "
            f"split={split.name}, {min(both)} among them; train it with the split it is to be judged on, or, if these "
            "are other people with the same numbers, give annotations with other ones"
        )
