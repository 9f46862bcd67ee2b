"""What several steps begin or end with."""

from collections.abc import Sequence

import numpy as np

from sslbt.config import Evaluate, Prepare, Training
from sslbt.data.audit import Audit, audit
from sslbt.data.cache import Cache, prepare
from sslbt.data.splits import Split, make_split
from sslbt.errors import UserError
from sslbt.evaluation import figures
from sslbt.tracking.code import code_version
from sslbt.tracking.run import Run


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
            f"split={split.name}, {min(both)} among them; train it with the split it is to be judged on"
        )
