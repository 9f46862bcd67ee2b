"""Test slices as the source holds them, and their labels as the classifier numbers them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sslbt.data.cache import prepare
from sslbt.data.source import Source
from sslbt.steps.register import labelled, raw_slices


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Pixels by path: two PNG of each of two classes, and a TIFF of two pages."""
    monkeypatch.setenv("SSLBT_HOME", str(tmp_path / "home"))
    random = np.random.default_rng(0)
    pixels = {}
    for kind in ("apple", "berry"):
        folder = tmp_path / "data" / kind
        folder.mkdir(parents=True)
        for number in (1, 2):
            own = pixels[f"{kind}/{kind}{number}.png"] = random.integers(0, 255, (40, 30), np.uint8)
            Image.fromarray(own).save(folder / f"{kind}{number}.png")
    first, second = (random.integers(0, 255, (40, 30), np.uint8) for _ in range(2))
    Image.fromarray(first).save(
        tmp_path / "data" / "berry" / "berry3.tiff", save_all=True, append_images=[Image.fromarray(second)]
    )
    return pixels | {"berry/berry3.tiff#1": first, "berry/berry3.tiff#2": second}


def test_slices_asked_for_come_with_their_names_and_pixels(drawn: dict[str, np.ndarray], tmp_path: Path) -> None:
    source = Source(str(tmp_path / "data"), patient_pattern=r"^([a-z]+[0-9])")
    table = prepare(source).table
    assert sorted(table.path) == sorted(drawn)
    asked = table[table.path.isin(["apple/apple2.png", "berry/berry3.tiff#2"])]
    found = dict(raw_slices(source, asked))
    assert found.keys() == set(asked.file)
    for name, path in zip(asked.file, asked.path, strict=True):
        np.testing.assert_array_equal(found[name], drawn[path])


def test_labels_are_those_of_the_classifier_whatever_the_order_of_the_datas_classes() -> None:
    test = pd.DataFrame({"file": ["1", "2", "3"], "class": ["berry", "apple", "berry"]})
    slices = [(name, np.full((2, 2), int(name))) for name in ("3", "2", "1")]
    found = list(labelled(slices, test, ["berry", "apple", "cherry"]))
    assert [label for label, _ in found] == [0, 1, 0]
    assert [int(pixels[0, 0]) for _, pixels in found] == [3, 2, 1]
