"""The page of suggested slices, as its reader sees it."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from reader import Page

from sslbt.data.cache import Cache
from sslbt.data.splits import Split
from sslbt.report.suggestions import suggestions

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def cache() -> Cache:
    """Six slices of four families, row i all of brightness 40 i."""
    pixels = np.broadcast_to(np.arange(0, 240, 40, np.uint8)[:, None, None], (6, 256, 256))
    table = pd.DataFrame(
        {
            "file": ["a.png", "b.png", "c.png", f"{EVIL}.png", "e.png", "f.png"],
            "patient": ["A", "A", "B", "C", "", "D"],
            "family": ["A", "A", "B", "C", "e.png", "D"],
            "class": "secret",
            "label": -1,
        }
    )
    nothing = pd.DataFrame()
    return Cache(pixels, table, nothing, nothing, "d1gest", False, (), Path("nowhere"))


@pytest.fixture
def html(cache: Cache) -> str:
    part = ["train", "train", "train", "train", "train", "test"]
    split = Split("patient:2", cache.table[["file", "patient", "family", "label"]].assign(part=part))
    return suggestions(cache, split, np.array([1, 3, 4]), "/data/mine", "4b6b", "todo.csv")


def test_each_slice_is_shown_with_its_number_file_and_patient(html):
    page = Page(html)
    captions = [text for _, tag, text in page.texts if tag == "figcaption"]
    assert captions == ["b.png, patient A", f"{EVIL}.png, patient C", "e.png, patient unknown"]
    assert [text for _, tag, text in page.texts if tag == "strong"] == ["class", "1", "2", "3"]
    shown = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(own))))
        for own in re.findall(r"data:image/png;base64,([^\"]+)", html)
    ]
    assert [int(np.unique(own).item()) for own in shown] == [40, 120, 160]


def test_it_says_of_how_many_and_what_to_do(html):
    page = Page(html)
    heading = "Slices to label: mine"
    numbers = dict(zip(page.said(heading, "dt"), page.said(heading, "dd"), strict=True))
    assert numbers == {
        **{"data": "d1gest", "from": "/data/mine", "encoder": "4b6b", "split": numbers["split"]},
        **{"slices to label": "3", "of patient families": "3", "slices to choose from": "5", "their families": "4"},
    }
    assert numbers["split"].startswith("patient:2 ")
    assert any("todo.csv" in text for text in page.said(heading, "p"))


def test_it_holds_all_it_shows_runs_nothing_and_tells_no_class(html):
    assert "secret" not in html
    assert "<script" not in html
    assert not re.search(r'(src|href)="(?!data:)', html)
