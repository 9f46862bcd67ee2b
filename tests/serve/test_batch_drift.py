"""Drift is told all scores of a batch in order, also of those that an earlier call scored before it was killed."""

import numpy as np
import onnx
import pandas as pd
import pytest
from PIL import Image

from serve import batch, batch_summary
from serve.batch import score
from serve.reference import KEY


@pytest.fixture
def pictures(tmp_path):
    """150 PNG of 20 x 20 pixels, and a file that is none among them."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = np.random.default_rng(1)
    arrays = [noise.integers(0, noise.integers(9, 255), (20, 20)).astype(np.uint8) for _ in range(150)]
    for number, pixels in enumerate(arrays):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "75.jpg").write_bytes(b"no picture")
    return arrays


class Told:
    """What drift was told, in place of `serve.drift.Drift`."""

    def __init__(self, reference: str, window: int) -> None:
        assert reference == "a reference"
        self.scores = []

    def add(self, scores) -> None:
        self.scores.append(scores)

    def assert_is_of(self, expected) -> None:
        for name in ("probabilities", "strangeness", "features"):
            whole = np.concatenate([getattr(scores, name) for scores in self.scores])
            np.testing.assert_allclose(whole, getattr(expected, name), rtol=1e-5, atol=1e-6)


@pytest.fixture
def with_reference(monkeypatch):
    monkeypatch.setattr(batch_summary.Reference, "from_metadata", lambda metadata, channels: "a reference")
    monkeypatch.setattr(batch_summary, "Drift", Told)


@pytest.mark.usefixtures("with_reference")
def test_drift_is_told_all_scores(tmp_path, model, classifier, pictures, monkeypatch):
    expected = classifier.scores(pictures)
    score(model, tmp_path / "pictures", tmp_path / "whole.csv").drift.assert_is_of(expected)

    monkeypatch.setattr(batch, "ROWS", 20)
    rows = batch._rows

    def interrupted(classifier, name, *rest):
        if name == "90.png":
            raise KeyboardInterrupt
        return rows(classifier, name, *rest)

    with monkeypatch.context() as broken:
        broken.setattr(batch, "_rows", interrupted)
        with pytest.raises(KeyboardInterrupt):
            score(model, tmp_path / "pictures", tmp_path / "again.csv")
    again = score(model, tmp_path / "pictures", tmp_path / "again.csv")
    assert (again.scored, again.files) == (71, 151)
    again.drift.assert_is_of(expected)
    assert list(pd.read_csv(tmp_path / "again.csv")) == list(pd.read_csv(tmp_path / "whole.csv"))  # no further column


@pytest.mark.usefixtures("with_reference")
def test_of_very_many_files_drift_is_told_some(tmp_path, model, classifier, pictures, monkeypatch):
    monkeypatch.setattr(batch, "DRIFT_FILES", 50)
    (tmp_path / "pictures" / "75.jpg").unlink()
    summary = score(model, tmp_path / "pictures", tmp_path / "scores.csv")
    summary.drift.assert_is_of(classifier.scores(pictures[::3]))


def test_a_file_without_a_reference_or_with_a_damaged_one_scores_all_the_same(tmp_path, model, pictures, write_tiny):
    older = score(model, tmp_path / "pictures", tmp_path / "scores.csv")
    metadata = {one.key: one.value for one in onnx.load(model).metadata_props}
    damaged = write_tiny(tmp_path / "damaged.onnx", metadata | {KEY: "bm8gYXJyYXlz"})
    other = score(damaged, tmp_path / "pictures", tmp_path / "others.csv")
    assert (older.drift, other.drift) == (None, None)
    assert "holds nothing" in older.no_drift
    assert "damaged" in other.no_drift
    assert (tmp_path / "scores.csv").read_bytes() == (tmp_path / "others.csv").read_bytes()
