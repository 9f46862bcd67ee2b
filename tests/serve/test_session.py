import json

import numpy as np
import onnx
import onnxruntime
import pytest

from serve.session import FORMAT, MAX_BATCH, Classifier
from sslbt.errors import UserError


def independent(model, picture):
    """One picture through a session of its own, with ONNX Runtime's defaults."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"image": picture[None].astype(np.float32)})[0][0]


def pictures(count):
    random = np.random.default_rng(1)
    sizes = [(32, 48), (64, 64), (48, 32)]
    kinds = [np.uint8, np.int16, np.float64]
    return [
        (random.beta(1 + i % 5, 2, sizes[i % 3]) * 200).astype(kinds[i % len(kinds)]) for i in range(count)
    ]  # different brightness, so that the classes differ


def test_mixed_sizes_and_types_score_as_each_alone(model, classifier):
    given = pictures(3 * MAX_BATCH + 5)
    found = classifier.scores(given)
    scores, strangeness = found.probabilities, found.strangeness
    assert scores.dtype == strangeness.dtype == np.float32
    np.testing.assert_allclose(scores, [independent(model, picture) for picture in given], atol=1e-6)
    assert len(set(scores.argmax(1))) > 1
    unit = [(one - one.min()) / np.ptp(one) for one in (picture.astype(float) for picture in given)]
    np.testing.assert_allclose(strangeness, [one.mean() + (one**2).mean() for one in unit], atol=1e-5)


def test_no_pictures_no_rows(classifier):
    found = classifier.scores([])
    assert (found.probabilities.shape, found.strangeness.shape, found.features.shape) == ((0, 3), (0,), (0, 2))
    assert list(classifier.rows([])) == []


def test_rows_name_the_class_and_abstain_where_none_is_plausible(model, classifier):
    given = pictures(20)
    rows = list(classifier.rows(given))
    for row, picture in zip(rows, given, strict=True):
        scores = independent(model, picture)
        assert list(row) == ["label", "p_meningioma", "p_glioma", "p_pituitary", "confidence", "abstain", "reason"]
        assert row["label"] == classifier.classes[scores.argmax()]
        assert row["confidence"] == pytest.approx(scores.max(), abs=1e-6)
        assert [row[f"p_{name}"] for name in classifier.classes] == pytest.approx(scores.tolist(), abs=1e-6)
        assert row["abstain"] is bool(scores.max() < 0.5)
        assert row["reason"] == ("no class reaches the 0.50 that makes it plausible" if row["abstain"] else "")
    assert {row["abstain"] for row in rows} == {True, False}


def test_several_plausible_classes_are_named(tmp_path, write_tiny, classifier):
    wide = Classifier.load(write_tiny(tmp_path / "wide.onnx", classifier.metadata | {"plausible_above": "0.2"}))
    for row in wide.rows(pictures(20)):
        plausible = [name for name in wide.classes if row[f"p_{name}"] >= 0.2]
        assert row["abstain"] is (len(plausible) != 1)
        if len(plausible) == 2:
            assert row["reason"] == f"plausible are {plausible[0]} and {plausible[1]}: each reaches 0.20"


def test_a_strange_picture_gets_no_answer_however_sure(classifier):
    white = np.full((32, 32), 200, np.uint8)
    white[0, 0] = 0  # mean and power close to 1: stranger than 1.9
    (row,) = classifier.rows([white])
    assert row["confidence"] > 0.5
    assert row["abstain"] is True
    assert row["reason"] == "not a brain MRI as it knows them (strangeness 2.00; 1.90 would pass)"


def test_a_bad_picture_costs_its_own_row_only(classifier):
    good = pictures(3)
    expected = list(classifier.rows(good))
    rows = list(classifier.rows([good[0], UserError("b.png: broken"), *good[1:]]))
    bad = rows.pop(1)
    assert rows == expected
    assert bad == dict.fromkeys(bad) | {"abstain": True, "reason": "b.png: broken"}


def test_pixels_beyond_float32_are_refused_not_scored(classifier, pixels):
    (row,) = classifier.rows([pixels * 1e300])
    assert row["label"] is None
    assert "float32" in row["reason"]
    json.dumps(row, allow_nan=False)


def test_rows_draw_few_pictures_at_a_time(classifier):
    drawn = []

    def endless():
        while True:
            drawn.append(1)
            yield pictures(1)[0]

    next(classifier.rows(endless()))
    assert len(drawn) == MAX_BATCH


def test_large_pictures_are_drawn_one_by_one(classifier):
    drawn = []
    large = np.arange(4096 * 2048, dtype=np.float32).reshape(4096, 2048)
    rows = classifier.rows(large for _ in range(3) if not drawn.append(1))
    next(rows)
    assert len(drawn) == 1


def test_loading_says_what_is_wrong(tmp_path, write_tiny, model):
    with pytest.raises(UserError, match=r"gone\.onnx: no such file"):
        Classifier.load(tmp_path / "gone.onnx")
    with pytest.raises(UserError, match="no such file"):
        Classifier.load(tmp_path)
    noise = tmp_path / "noise.onnx"
    noise.write_bytes(b"no protobuf" * 100)
    with pytest.raises(UserError, match=r"noise\.onnx: no readable ONNX"):
        Classifier.load(noise)
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(model.read_bytes()[:200])
    with pytest.raises(UserError, match="cut"):
        Classifier.load(cut)


@pytest.mark.parametrize("lacking", ["classes", "plausible_above", "guarantee", "strange_above", "run_id", "version"])
def test_metadata_must_be_there(tmp_path, write_tiny, classifier, lacking):
    metadata = {key: value for key, value in classifier.metadata.items() if key != lacking}
    with pytest.raises(UserError, match=f"no classifier of sslbt .*{lacking}"):
        Classifier.load(write_tiny(tmp_path / "other.onnx", metadata))


def test_another_contract_is_refused(tmp_path, write_tiny, classifier):
    with pytest.raises(UserError, match="no classifier of sslbt"):
        Classifier.load(write_tiny(tmp_path / "logits.onnx", output="logits_softmax"))
    two = classifier.metadata | {"classes": '["a", "b"]'}
    with pytest.raises(UserError, match="no classifier of sslbt"):
        Classifier.load(write_tiny(tmp_path / "two.onnx", two))


def test_files_of_other_versions_are_refused_with_a_remedy(tmp_path, write_tiny, classifier):
    newer = write_tiny(tmp_path / "newer.onnx", classifier.metadata | {"format": str(FORMAT + 1)})
    with pytest.raises(UserError, match=r"newer\.onnx: made by a newer version of sslbt; update sslbt"):
        Classifier.load(newer)
    older = onnx.load(write_tiny(tmp_path / "older.onnx"))
    (features,) = (output for output in older.graph.output if output.name == "features")
    older.graph.output.remove(features)
    onnx.save(older, tmp_path / "older.onnx")
    with pytest.raises(UserError, match=r"older\.onnx: made by an earlier version .* features; export it again with"):
        Classifier.load(tmp_path / "older.onnx")
    Classifier.load(write_tiny(tmp_path / "same.onnx", classifier.metadata | {"format": str(FORMAT)}))
