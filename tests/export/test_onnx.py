import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import sslbt
from serve import session
from sslbt.data.preprocess import Preprocess, resize
from sslbt.evaluation.saliency import saliency
from sslbt.export.onnx import EXPLAIN, FORMAT, OUTPUTS, SALIENCY

FACTS = ("run_id", "pretrained", "code_version", "data_digest", "split_hash")
SAME = {"atol": 1e-4, "rtol": 0}
Draw = Callable[..., np.ndarray]
Answer = Callable[[np.ndarray], np.ndarray]


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("side", [(17, 300), (512, 512), (256, 256), (33, 129), (600, 64), (96, 96)])
def test_the_file_answers_as_torch_at_any_size(
    exported: Any, theirs: Answer, draw: Draw, side: tuple[int, int], batch: int
) -> None:
    image = draw(batch, *side)
    found = theirs(image)
    assert found.shape == (batch, 3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found, exported.ours(image), **SAME)


def test_the_small_network_tells_pictures_apart(theirs: Answer, draw: Draw) -> None:
    found = theirs(draw(20, 128, 128))  # were all answers alike, equality with torch would mean little
    assert found.std(axis=0).max() > 0.05
    assert len(set(found.argmax(axis=1))) > 1


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e9])
def test_the_file_answers_as_torch_at_any_scale(exported: Any, theirs: Answer, draw: Draw, scale: float) -> None:
    image = draw(2, 200, 150) * np.float32(scale)
    np.testing.assert_allclose(theirs(image), exported.ours(image), **SAME)
    np.testing.assert_allclose(theirs(image), theirs(draw(2, 200, 150)), atol=1e-3)


def test_an_offset_changes_nothing(theirs: Answer, draw: Draw) -> None:
    image = draw(3, 180, 180)
    for moved in (image + 100, 7 * image - 1000, image * 0.01):
        np.testing.assert_allclose(theirs(moved), theirs(image), atol=1e-3)
    assert np.abs(theirs(image**2) - theirs(image)).max() > 0.01  # though it does look at the greys


def test_a_slice_is_scored_the_same_alone_and_in_company(theirs: Answer, draw: Draw) -> None:
    image = draw(5, 200, 150)
    alone = np.concatenate([theirs(own[None]) for own in image])
    np.testing.assert_allclose(theirs(image), alone, **SAME)


def test_a_flat_picture_gives_numbers(exported: Any, theirs: Answer) -> None:
    for value in (0, 5):
        image = np.full((1, 64, 64), value, np.float32)
        assert np.isfinite(theirs(image)).all()
        np.testing.assert_allclose(theirs(image), exported.ours(image), **SAME)


def test_the_temperature_is_inside(exported: Any, theirs: Answer, draw: Draw) -> None:
    image = draw(3, 100, 100)
    with torch.no_grad():
        logits = exported.model.classifier(resize(Preprocess()(torch.from_numpy(image)), 96)).numpy()
    found = np.log(theirs(image)) * exported.about["temperature"]
    np.testing.assert_allclose(np.diff(found), np.diff(logits), atol=2e-3)


def test_the_strangeness_is_that_of_the_outlier_network(exported: Any, draw: Draw) -> None:
    image = draw(4, 90, 120)
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    (found,) = session.run(["strangeness"], {"image": image})
    with torch.no_grad():
        expected = exported.model.outlier(Preprocess()(torch.from_numpy(image))).numpy()
    assert expected.std() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_confidence_features_and_doubt_follow_from_the_rest(exported: Any, draw: Draw) -> None:
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    found = dict(zip(OUTPUTS, session.run(OUTPUTS, {"image": draw(40, 128, 128)}), strict=True))
    np.testing.assert_array_equal(found["confidence"], found["probabilities"].max(axis=1))
    alone = (found["probabilities"] >= exported.about["plausible_above"]).sum(axis=1) == 1
    np.testing.assert_array_equal(found["abstain"], ~alone | (found["strangeness"] > 1.25))
    assert set(found["abstain"]) == {False, True}
    with torch.no_grad():
        slices = resize(Preprocess()(torch.from_numpy(draw(40, 128, 128))), 96)
        expected = exported.model.classifier.encoder.pooled(slices).numpy()
    np.testing.assert_allclose(found["features"], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("side", [(96, 96), (333, 50), (200, 301)])
def test_saliency_is_that_of_the_class_found(exported: Any, draw: Draw, side: tuple[int, int]) -> None:
    image = draw(15, *side)
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    found = dict(zip(OUTPUTS, session.run(OUTPUTS, {"image": image, EXPLAIN: np.array(True)}), strict=True))
    slices = resize(Preprocess()(torch.from_numpy(image)), 96)
    expected = saliency(exported.model.classifier, slices, found["probabilities"].argmax(axis=1))
    assert found[SALIENCY].shape == (15, 96, 96)
    assert found[SALIENCY].dtype == np.float32
    # A ReLU that gets nearly zero is turned on or off by rounding, and a place of a few maps with it.
    apart = np.abs(found[SALIENCY] - expected).mean(axis=(1, 2))
    assert np.median(apart) < 1e-5
    assert apart.max() < 5e-3
    other = saliency(exported.model.classifier, slices, (found["probabilities"].argmax(axis=1) + 1) % 3)
    assert np.abs(found[SALIENCY] - other).mean(axis=(1, 2)).min() > 0.01


def test_saliency_is_computed_only_if_asked_for(exported: Any, draw: Draw) -> None:
    graph = onnx.load(exported.path).graph
    assert not [node.name for node in graph.node if node.op_type == "ConvTranspose"]
    (choice,) = (node for node in graph.node if node.op_type == "If")
    branch = {own.name: own.g for own in choice.attribute}
    assert [node.op_type for node in branch["else_branch"].node] == ["Constant"]
    inside = {node.op_type for node in branch["then_branch"].node}
    assert "ConvTranspose" in inside
    assert "Conv" not in inside  # what the answer is made of is not computed again
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    image = draw(3, 64, 64)
    silent = session.run(OUTPUTS, {"image": image})
    assert silent[-1].shape == (0, 96, 96)
    for one, other in zip(silent[:-1], session.run(OUTPUTS, {"image": image, EXPLAIN: np.array(True)}), strict=False):
        np.testing.assert_array_equal(one, other)


def test_no_weight_is_held_twice(exported: Any) -> None:
    model, graph = exported.model, onnx.load(exported.path).graph
    weights = sum(weight.numel() for weight in model.state_dict().values())
    assert sum(int(np.prod(tensor.dims)) for tensor in graph.initializer) < 1.05 * weights


def test_the_file_names_no_place_of_this_machine(exported: Any) -> None:
    assert b"site-packages" not in exported.path.read_bytes()
    assert str(Path(sslbt.__file__).parent).encode() not in exported.path.read_bytes()


def test_the_file_says_what_it_is(exported: Any) -> None:
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    (image,), outputs = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type) == ("image", "tensor(float)")
    assert {own.name: own.type for own in outputs} == dict.fromkeys(OUTPUTS, "tensor(float)") | {
        "abstain": "tensor(bool)"
    }
    assert all(isinstance(length, str) for length in image.shape)  # every axis is free
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == exported.about["classes"]
    assert {name: facts[name] for name in FACTS} == {name: exported.about[name] for name in FACTS}
    assert float(facts["temperature"]) == 1.7
    thresholds = [float(facts[name]) for name in ("plausible_above", "guarantee", "strange_above")]
    assert thresholds == [0.3, 0.9, 1.25]
    assert facts["synthetic"] == "true"
    assert facts["version"] == sslbt.__version__
    assert "research use only" in facts["license"]
    assert "trained on" not in facts["license"]  # whatever that was, the file can't know


def test_the_file_is_whole_in_itself(exported: Any) -> None:
    assert [file.name for file in exported.path.parent.iterdir()] == [exported.path.name]
    model = onnx.load(exported.path)
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, [(own.domain, own.version) for own in model.opset_import]) == (10, [("", 20)])


def test_its_format_is_the_one_that_the_service_reads(exported: Any) -> None:
    assert session.FORMAT == FORMAT
    assert session.Classifier.load(exported.path).metadata["format"] == str(FORMAT)
