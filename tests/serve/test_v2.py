"""The Open Inference Protocol, asked by Triton's own client, and by hand where a client would not err."""

import base64
import json
import struct

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype


@pytest.fixture(scope="module")
def address(start_service):
    return start_service().address


@pytest.fixture
def client(address):
    with triton.InferenceServerClient(address.removeprefix("http://")) as client:
        yield client


def tensor(values: np.ndarray, binary: bool = True) -> triton.InferInput:
    given = triton.InferInput("image", list(values.shape), np_to_triton_dtype(values.dtype))
    given.set_data_from_numpy(values, binary_data=binary)
    return given


def test_it_says_what_there_is(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("tiny", "2")
    assert not client.is_model_ready("large")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    about = client.get_model_metadata("tiny")
    assert about["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    assert [output["name"] for output in about["outputs"]] == [
        "label",
        "probabilities",
        "confidence",
        "abstain",
        "reason",
    ]
    assert about["parameters"]["classes"] == "meningioma,glioma,pituitary"


@pytest.mark.parametrize("binary", [True, False])
def test_encoded_files_are_scored(client, classifier, mat, png, dicom, pixels, binary):
    files = np.array([mat, png, dicom, b"broken"], object)
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("label", "probabilities", "reason")]
    if not binary:  # JSON has no bytes
        files = np.array([base64.b64encode(file).decode() for file in files], object)
    found = client.infer("tiny", [tensor(files, binary)], outputs=outputs, request_id="7")
    (expected,) = classifier.rows([pixels])
    labels, shares, reasons = (found.as_numpy(name) for name in ("label", "probabilities", "reason"))
    text = (lambda value: value.decode()) if binary else str
    assert [text(label) for label in labels][::2] == [expected["label"]] * 2
    np.testing.assert_allclose(shares[0], classifier.scores([pixels]).probabilities[0], atol=1e-6)
    np.testing.assert_array_equal(shares[0], shares[2])
    assert (text(labels[3]), shares[3].tolist()) == ("", [-1, -1, -1])
    assert text(reasons[3]).startswith("image 3: ")
    assert found.get_response()["id"] == "7"
    assert found.get_response()["model_version"] == "1"


KINDS = [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64]


@pytest.mark.parametrize(
    ("kind", "binary"),
    [(np.float16, True), *((kind, binary) for kind in KINDS for binary in (True, False))],  # FP16 has no JSON
)
def test_raw_pixels_of_any_kind_are_scored(client, classifier, pixels, kind, binary):
    raw = np.stack([pixels // 4, 200 - pixels // 4]).clip(0, 255).astype(kind)
    found = client.infer("tiny", [tensor(raw, binary)], model_version="1")
    expected = classifier.scores(list(raw))
    np.testing.assert_allclose(found.as_numpy("probabilities"), expected.probabilities, atol=1e-6)
    np.testing.assert_allclose(found.as_numpy("confidence"), expected.probabilities.max(axis=1), atol=1e-6)
    assert found.as_numpy("abstain").tolist() == [row["abstain"] for row in classifier.rows(list(raw))]


def test_one_picture_needs_no_batch(client, classifier, pixels):
    found = client.infer("tiny", [tensor(pixels.astype(np.float32))])
    np.testing.assert_allclose(found.as_numpy("probabilities"), classifier.scores([pixels]).probabilities, atol=1e-6)


def test_an_answer_keeps_to_the_extension_byte_by_byte(address, classifier, pixels):
    raw = pixels.astype("<i2").tobytes()
    given = {"name": "image", "datatype": "INT16", "shape": [1, *pixels.shape]}
    head = json.dumps(
        {
            "inputs": [given | {"parameters": {"binary_data_size": len(raw)}}],
            "outputs": [{"name": "label", "parameters": {"binary_data": True}}, {"name": "confidence"}],
        }
    ).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    answer = httpx.post(f"{address}/v2/models/tiny/infer", content=head + raw, headers=headers)
    length = int(answer.headers["inference-header-content-length"])
    said, behind = json.loads(answer.content[:length]), answer.content[length:]
    (expected,) = classifier.rows([pixels])
    label = expected["label"].encode()
    assert behind == struct.pack("<I", len(label)) + label
    assert [output["name"] for output in said["outputs"]] == ["label", "confidence"]
    assert said["outputs"][0]["parameters"] == {"binary_data_size": len(behind)}
    assert said["outputs"][1]["data"] == [pytest.approx(expected["confidence"], abs=1e-6)]


def test_what_is_wrong_is_said(client, pixels):
    wrong = triton.InferInput("picture", [1, 2, 2], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 2, 2), np.float32))
    with pytest.raises(InferenceServerException, match="no input 'picture'"):
        client.infer("tiny", [wrong])
    with pytest.raises(InferenceServerException, match="no output logits"):
        client.infer("tiny", [tensor(pixels)], outputs=[triton.InferRequestedOutput("logits")])
    with pytest.raises(InferenceServerException, match="no model large"):
        client.infer("large", [tensor(pixels)])


HEAD = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 5}}]}


@pytest.mark.parametrize(
    ("body", "length"),
    [
        (b"", None),
        (b"{", None),
        (b"[" * 100_000, None),
        (b"[]", None),
        (b'{"inputs": []}', None),
        (b'{"inputs": [3]}', None),
        (b'{"inputs": {"name": 1}}', None),
        (b'{"inputs": [{"name": "image", "datatype": "FP32", "shape": [2, 2]}]}', None),
        (b'{"inputs": [{"name": "image", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3]}]}', None),
        (b'{"inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, -4], "data": [1, 2, 3, 4]}]}', None),
        (b'{"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 2], "data": [1, 999]}]}', None),
        (b'{"inputs": [{"name": "image", "datatype": "BF16", "shape": [1, 2], "data": [1, 2]}]}', None),
        (b'{"inputs": [{"name": "image", "datatype": "FP32", "shape": [4], "data": [1, 2, 3, 4]}]}', None),
        (b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [3], "data": ["a"]}]}', None),
        (b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": ["x"], "data": ["a"]}]}', None),
        (json.dumps(HEAD).encode(), "7000"),
        (json.dumps(HEAD).encode(), "-3"),
        (json.dumps(HEAD).encode(), str(len(json.dumps(HEAD)))),  # nothing follows
        (json.dumps(HEAD).encode() + b"\xff\xff\xff\xffa", str(len(json.dumps(HEAD)))),  # an element of 4 GB
        (json.dumps(HEAD).encode() + b"\x01\x00\x00\x00a" + b"more", str(len(json.dumps(HEAD)))),
    ],
)
def test_a_request_that_is_none_gives_400(address, body, length):
    headers = {} if length is None else {"Inference-Header-Content-Length": length}
    answer = httpx.post(f"{address}/v2/models/tiny/infer", content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"error"}
    assert "Traceback" not in answer.text
