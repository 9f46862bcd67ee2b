"""A batch says of drift what its scores alone say, also where it was begun by a call that was killed."""

import numpy as np
import onnx
import pandas as pd
import pytest
from PIL import Image

from serve import batch
from serve.batch import score
from serve.drift import KEY, Drift, Reference


@pytest.fixture
def pictures(tmp_path):
    """150 PNG of 20 x 20 pixels."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = np.random.default_rng(1)
    arrays = [noise.integers(0, noise.integers(9, 255), (20, 20)).astype(np.uint8) for _ in range(150)]
    for number, pixels in enumerate(arrays):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "75.jpg").write_bytes(b"no picture")
    return arrays


@pytest.fixture
def with_reference(tmp_path, model, classifier, write_tiny):
    """The tiny classifier, with a reference for drift in its file."""
    noise = np.random.default_rng(0)
    known = classifier.scores([noise.integers(0, 9, (20, 20)) ** 2 for _ in range(80)])
    reference = Reference.of(classifier.classes, known, np.arange(80) // 8, known.features)
    metadata = {one.key: one.value for one in onnx.load(model).metadata_props}
    return write_tiny(tmp_path / "classifier.onnx", metadata | {KEY: reference.to_metadata()}), reference


def test_drift_is_that_of_all_scores(tmp_path, with_reference, classifier, pictures, monkeypatch):
    model, reference = with_reference
    expected = Drift(reference, window=1000)
    expected.add(classifier.scores(pictures))
    whole = score(model, tmp_path / "pictures", tmp_path / "whole.csv")
    assert whole.drift.report() == expected.report()

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
    assert again.drift.report() == expected.report()
    assert list(pd.read_csv(tmp_path / "again.csv")) == list(pd.read_csv(tmp_path / "whole.csv"))  # no further column


def test_of_very_many_files_drift_is_told_by_some(tmp_path, with_reference, classifier, pictures, monkeypatch):
    model, reference = with_reference
    monkeypatch.setattr(batch, "DRIFT_FILES", 50)
    (tmp_path / "pictures" / "75.jpg").unlink()
    expected = Drift(reference)
    expected.add(classifier.scores(pictures[::3]))
    assert score(model, tmp_path / "pictures", tmp_path / "scores.csv").drift.report() == expected.report()


def test_an_older_file_says_nothing_of_drift(tmp_path, model, pictures):
    assert score(model, tmp_path / "pictures", tmp_path / "scores.csv").drift is None
