"""What several steps begin or end with."""

from collections.abc import Sequence

import numpy as np

from sslbt.data.cache import Cache, prepare
from sslbt.data.splits import Split, make_split
from sslbt.errors import UserError
from sslbt.tracking.code import code_version
from sslbt.tracking.run import Run


def open_data(data: str, split: str, run: Run) -> tuple[Cache, Split]:
    """The prepared slices and who is on which side, both logged."""
    cache = prepare(data)
    parts = make_split(cache.table, split)
    run.dataset(data, cache, parts)
    return cache, parts


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
