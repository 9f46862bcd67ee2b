"""Files that are no classifier though they are ONNX, or say so: refused in a sentence, nothing beside them read."""

import base64
import io
import json
import os
import pickle
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from serve import session
from serve.current import Model
from serve.session import Classifier
from sslbt.errors import UserError

WEIGHT = np.array([[14, -9, 2], [-6, 4, 9]], np.float32)


@pytest.fixture
def graph(model) -> onnx.ModelProto:
    """The tiny classifier, to be changed."""
    return onnx.load(model)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        Classifier.load(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert "export" in said  # the remedy
    assert len(said) < 600
    assert "\n" not in said
    return said


def saved(graph: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "changed.onnx"
    path.write_bytes(graph.SerializeToString())
    return path


def last(graph: onnx.ModelProto, *nodes: onnx.NodeProto, **constants: np.ndarray) -> None:
    """Put nodes between what the strangeness was, now `before`, and the output `strangeness`."""
    (node,) = (node for node in graph.graph.node if "strangeness" in node.output)
    node.output[0] = "before"
    graph.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.graph.node.extend(nodes)


class Evil:
    def __reduce__(self) -> tuple:
        return os.mkdir, (os.environ["CANARY"],)


def test_a_pickle_named_onnx_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setenv("CANARY", str(tmp_path / "canary"))
    path = tmp_path / "model.onnx"
    path.write_bytes(pickle.dumps(Evil()))
    refusal(path)
    assert not (tmp_path / "canary").exists()
    pickle.loads(path.read_bytes())
    assert (tmp_path / "canary").exists()  # it would have been


@pytest.mark.parametrize(
    "place",
    [
        "beside.bin",
        "link.bin",
        "/etc/passwd",
        "../../../../../../etc/passwd",
        "gone.bin",
        "/dev/zero",
        "*/_ORT_MEM_ADDR_/*",
    ],
)
@pytest.mark.parametrize("constant", [False, True])
def test_weights_in_another_file_are_not_read(graph, tmp_path, monkeypatch, place, constant):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside.bin").write_bytes(WEIGHT.tobytes())
    (tmp_path / "link.bin").symlink_to("/etc/passwd")
    (weight,) = (one for one in graph.graph.initializer if one.name == "weight")
    outside = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[2, 3], data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value=place)
    outside.external_data.add(key="length", value="24")
    graph.graph.initializer.remove(weight)
    if constant:
        graph.graph.node.insert(0, helper.make_node("Constant", [], ["weight"], value=outside))
    else:
        graph.graph.initializer.append(outside)
    assert "root:" not in refusal(saved(graph, tmp_path))
    saved(graph, tmp_path).rename(tmp_path / "relative.onnx")
    refusal(Path("relative.onnx"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("classes", json.dumps(["a" * 1_000_000, "b", "c"])),
        ("classes", json.dumps("abc")),
        ("classes", json.dumps({"a": 1, "b": 2, "c": 3})),
        ("classes", json.dumps([1, 2, 3])),
        ("classes", json.dumps([None, None, None])),
        ("classes", json.dumps(["a", "a", "b"])),
        ("classes", json.dumps(["", "a", "b"])),
        ("classes", json.dumps([["a"], ["b"], ["c"]])),
        ("classes", json.dumps(["a\r\nSet-Cookie: x", "b", "c"])),
        ("classes", '["\\ud800", "b", "c"]'),
        ("classes", 100_000 * "["),
        ("classes", "[]"),
        ("plausible_above", "nan"),
        ("plausible_above", "2"),
        ("plausible_above", "{" * 1_000_000),
        ("guarantee", "1e400"),
        ("guarantee", "<b>"),
        ("strange_above", "nan"),
        ("run_id", ""),
        ("run_id", "a\nb"),
        ("version", "x" * 1_000_000),
    ],
)
def test_metadata_that_are_none(write_tiny, classifier, tmp_path, name, value):
    assert "no classifier of sslbt" in refusal(write_tiny(tmp_path / "m.onnx", classifier.metadata | {name: value}))


def test_a_class_may_be_called_anything_else(write_tiny, classifier, tmp_path):
    names = ["<script>alert(1)</script>", "=1+1", "Gliom\u00a0Grad II, 膠質瘤"]
    own = Classifier.load(write_tiny(tmp_path / "m.onnx", classifier.metadata | {"classes": json.dumps(names)}))
    assert list(own.classes) == names


def test_operators_of_somebody_else_and_endless_functions(graph, tmp_path):
    last(graph, helper.make_node("Run", ["before"], ["strangeness"], domain="evil"))
    graph.opset_import.append(helper.make_opsetid("evil", 1))
    refusal(saved(graph, tmp_path))
    again = helper.make_node("Run", ["x"], ["y"], domain="evil")
    versions = [helper.make_opsetid("", 20), helper.make_opsetid("evil", 1)]
    graph.functions.append(helper.make_function("evil", "Run", ["x"], ["y"], [again], versions))
    refusal(saved(graph, tmp_path))


def test_a_file_that_loops_for_ever_is_given_up(graph, tmp_path, monkeypatch):
    same = [helper.make_node("Identity", [f"{name}_in"], [f"{name}_out"]) for name in ("on", "value")]
    on, value = (TensorProto.BOOL, []), (TensorProto.FLOAT, ["n"])
    body = helper.make_graph(
        same,
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("on_in", *on),
            helper.make_tensor_value_info("value_in", *value),
        ],
        [helper.make_tensor_value_info("on_out", *on), helper.make_tensor_value_info("value_out", *value)],
    )
    loop = helper.make_node("Loop", ["turns", "yes", "before"], ["strangeness"], body=body)
    last(graph, loop, turns=np.array(2**62), yes=np.array(True))
    monkeypatch.setattr(session, "TRIAL_SECONDS", 1.0)
    began = time.monotonic()
    assert "no classifier of sslbt" in refusal(saved(graph, tmp_path))
    assert 0.9 < time.monotonic() - began < 20


def test_more_memory_than_there_is(graph, tmp_path, capfd):
    huge = helper.make_node("ConstantOfShape", ["shape"], ["huge"])
    nodes = [huge, helper.make_node("ReduceMax", ["huge"], ["top"], keepdims=0)]
    last(graph, *nodes, helper.make_node("Add", ["before", "top"], ["strangeness"]), shape=np.array([2**40]))
    refusal(saved(graph, tmp_path))
    assert capfd.readouterr() == ("", "")  # the sentence says it all


def test_answers_of_another_form(graph, tmp_path):
    last(graph, helper.make_node("ReduceSum", ["before"], ["strangeness"], keepdims=0))
    graph.graph.output[1].type.tensor_type.ClearField("shape")
    refusal(saved(graph, tmp_path))


def test_negative_probabilities_that_sum_to_one(graph, tmp_path):
    (node,) = (node for node in graph.graph.node if "probabilities" in node.output)
    node.output[0] = "shares"
    graph.graph.initializer.append(numpy_helper.from_array(np.array([1.5, -1.5, 0], np.float32), "off"))
    graph.graph.node.append(helper.make_node("Add", ["shares", "off"], ["probabilities"]))
    refusal(saved(graph, tmp_path))


def test_pictures_of_one_size_only(graph, tmp_path):
    for length in graph.graph.input[0].type.tensor_type.shape.dim[1:]:
        length.dim_value = 32
    refusal(saved(graph, tmp_path))


REFERENCE = {
    "center": np.zeros(2, np.float32),
    "basis": np.zeros((2, 2), np.float16),
    "shares": np.full(3, 1 / 3, np.float32),
    "found": np.zeros(9, np.uint8),
    "values": np.zeros((9, 3), np.float32),
    "limits": np.ones((6, 4), np.float32),
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("values", np.zeros((8_000_000, 3), np.float32)),  # 96 MB, a hundred thousandth of it in the file
        ("values", np.zeros((4, 3), np.float32)),
        ("found", np.full(9, 7, np.uint8)),
        ("found", np.zeros(9, np.int64)),
        ("limits", np.full((6, 4), np.nan)),
        ("limits", np.ones((0, 4))),
        ("center", np.array(["a", "b"])),
        ("center", np.float32(1)),
        ("more", np.zeros(1)),
    ],
)
def test_a_reference_for_drift_that_is_none(write_tiny, classifier, tmp_path, name, value):
    def told(parts: dict) -> Model:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **parts)
        metadata = classifier.metadata | {"drift_reference": base64.b64encode(buffer.getvalue()).decode()}
        return Model(Classifier.load(write_tiny(tmp_path / "m.onnx", metadata)), "tiny", "1")

    assert told(REFERENCE).drift
    with pytest.raises(UserError, match="reference for drift is damaged"):
        told(REFERENCE | {name: value})
