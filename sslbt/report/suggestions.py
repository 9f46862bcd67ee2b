"""The page of suggested slices: what a person who is to label them needs to see."""

from pathlib import PurePath

import numpy as np

from sslbt.data.cache import Cache
from sslbt.data.splits import Split
from sslbt.report.page import Picture, grey, render

WIDTH = 256  # as large as the cache holds them


def suggestions(cache: Cache, split: Split, rows: np.ndarray, source: str, encoder: str, filled_in: str) -> str:
    """A self-contained HTML page.

    Args:
        cache: the dataset.
        split: whose training slices were asked of.
        rows: the suggested ones, in the order of the CSV.
        source: where the slices come from, as the user called it.
        encoder: by whose features they were picked, as the user called it.
        filled_in: the CSV's name.
    """
    table = cache.table.iloc[rows]
    asked = split.table.iloc[split.rows("train")]
    return render(
        "suggestions.html.jinja",
        f"Slices to label: {PurePath(source).name or source}",
        cache.synthetic,
        [("data", cache.digest), ("split", f"{split.name} {split.hash}"), ("from", source), ("encoder", encoder)],
        numbers=[
            ("slices to label", len(rows)),
            ("of patient families", table.family.nunique()),
            ("slices to choose from", len(asked)),
            ("their families", asked.family.nunique()),
        ],
        filled_in=filled_in,
        slices=[_slice(cache, row) for row in rows],
    )


def _slice(cache: Cache, row: int) -> tuple[Picture, str, str]:
    """Picture, file and patient."""
    file, patient = cache.table.file[row], cache.table.patient[row]
    return grey(cache.pixels[row], file, WIDTH), file, patient or "unknown"
