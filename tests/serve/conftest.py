"""A stand-in for an exported classifier, slices to score, and servers in processes of their own."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
import uvicorn
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from pydicom import Dataset, dcmwrite, uid
from pydicom.dataset import FileMetaDataset
from starlette.types import ASGIApp

from serve.current import Current, Model
from serve.server import Impatient
from serve.session import Classifier
from sslbt.data.matlab import write_mat

CLASSES = ("meningioma", "glioma", "pituitary")
METADATA = {
    "classes": json.dumps(CLASSES),
    "plausible_above": "0.5",  # one class alone, or none
    "guarantee": "0.9",
    "strange_above": "1.9",
    "run_id": "0123456789abcdef0123456789abcdef",
    "version": "0.1.0",
    "data_digest": "d1",
    "split_hash": "s1",
    "temperature": "1.0",
    "synthetic": "true",
}


@pytest.fixture(scope="session")
def write_tiny() -> Callable[..., Path]:
    """Write a tiny ONNX file of the contract, of pixels scaled to [0, 1].

    Probabilities are softmax(W [mean, power] + b); the strangeness is mean + power.
    """

    def write(path: Path, metadata: dict[str, str] = METADATA, output: str = "probabilities") -> Path:
        nodes = [
            helper.make_node("ReduceMin", ["image", "axes"], ["low"], keepdims=1),
            helper.make_node("ReduceMax", ["image", "axes"], ["high"], keepdims=1),
            helper.make_node("Sub", ["image", "low"], ["above"]),
            helper.make_node("Sub", ["high", "low"], ["range"]),
            helper.make_node("Div", ["above", "range"], ["unit"]),
            helper.make_node("ReduceMean", ["unit", "axes"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["unit", "unit"], ["square"]),
            helper.make_node("ReduceMean", ["square", "axes"], ["power"], keepdims=0),
            helper.make_node("Unsqueeze", ["mean", "last"], ["mean_column"]),
            helper.make_node("Unsqueeze", ["power", "last"], ["power_column"]),
            helper.make_node("Concat", ["mean_column", "power_column"], ["features"], axis=1),
            helper.make_node("Gemm", ["features", "weight", "bias"], ["logits"]),
            helper.make_node("Softmax", ["logits"], [output], axis=1),
            helper.make_node("Add", ["mean", "power"], ["strangeness"]),
        ]
        constants = {
            "axes": np.array([1, 2], np.int64),
            "last": np.array([1], np.int64),
            "weight": np.array([[14, -9, 2], [-6, 4, 9]], np.float32),
            "bias": np.array([-1.5, 1.5, 0.0], np.float32),
        }
        graph = helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", "height", "width"])],
            [
                helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", len(CLASSES)]),
                helper.make_tensor_value_info("strangeness", TensorProto.FLOAT, ["batch"]),
                helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 2]),
            ],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return path

    return write


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, write_tiny: Callable[..., Path]) -> Path:
    return write_tiny(tmp_path_factory.mktemp("model") / "classifier.onnx")


@pytest.fixture(scope="session")
def classifier(model: Path) -> Classifier:
    return Classifier.load(model)


@pytest.fixture(scope="session")
def current(classifier: Classifier) -> Current:
    return Current(Model(classifier, "tiny", "1"))


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """(96, 80) int16: a disc on noise, not symmetric, so that a transposed reading would show."""
    y, x = np.mgrid[-1:1:96j, -1:1:80j]
    disc = np.where(np.hypot(x, y - 0.2) < 0.6, 800, 0)
    return (disc + np.random.default_rng(0).integers(0, 200, disc.shape)).astype(np.int16)


@pytest.fixture(scope="session")
def mat(tmp_path_factory: pytest.TempPathFactory, pixels: np.ndarray) -> bytes:
    """A .mat file as the dataset stores it."""
    path = tmp_path_factory.mktemp("mat") / "1.mat"
    write_mat(path, pixels, 1, "100360", pixels > 500)
    return path.read_bytes()


@pytest.fixture(scope="session")
def png(pixels: np.ndarray) -> bytes:
    """The same slice as an 8-bit PNG file."""
    buffer = io.BytesIO()
    Image.fromarray((pixels // 4).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def jpeg(pixels: np.ndarray) -> bytes:
    """The same slice as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray((pixels // 4).astype(np.uint8)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def dicom(pixels: np.ndarray) -> bytes:
    """The same slice as a DICOM file, 16 bits."""
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    file.SOPClassUID, file.SOPInstanceUID, file.Modality = uid.MRImageStorage, uid.generate_uid(), "MR"
    file.Rows, file.Columns = pixels.shape
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PixelRepresentation = 1, "MONOCHROME2", 0
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit = 15
    file.PixelData = pixels.astype("<u2").tobytes()
    buffer = io.BytesIO()
    dcmwrite(buffer, file, enforce_file_format=True)
    return buffer.getvalue()


@dataclass(frozen=True)
class Server:
    """A server in a process of its own."""

    process: subprocess.Popen
    address: str


@pytest.fixture(scope="session")
def start() -> Iterator[Callable[..., Server]]:
    """Start servers, each given as a command for a free port, and end them with all their children."""
    servers = []

    def start(command: Callable[[int], list[str]]) -> Server:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        # `mlflow models serve` starts uvicorn by name: it is beside this Python, activated or not.
        paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        process = subprocess.Popen(command(port), start_new_session=True, env=os.environ | {"PATH": paths})
        server = Server(process, f"http://127.0.0.1:{port}")
        servers.append(server)
        deadline = time.monotonic() + 120
        while not healthy(server.address):
            assert server.process.poll() is None, "the server ended before it was ready"
            assert time.monotonic() < deadline, "the server was not ready in time"
            time.sleep(0.1)
        return server

    yield start
    for server in servers:
        with suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()


@pytest.fixture(scope="session")
def served() -> Callable[..., AbstractContextManager[int]]:
    """An app in a real server of this process; gives its port."""

    @contextmanager
    def served(app: ASGIApp) -> Iterator[int]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = uvicorn.Server(uvicorn.Config(app, http=Impatient, log_level="warning"))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            yield listener.getsockname()[1]
            server.should_exit = True
            thread.join(20)

    return served


def healthy(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
def start_service(start: Callable[..., Server], model: Path) -> Callable[[], Server]:
    """Start our own service, with a limit of 1 MiB a request."""
    code = """
import sys
from pathlib import Path
from serve.app import create_app
from serve.current import Current, Model
from serve.server import run
from serve.session import Classifier
current = Current(Model(Classifier.load(Path(sys.argv[1])), "tiny", "1"))
run(create_app(current, max_bytes=2**20), "127.0.0.1", int(sys.argv[2]))
"""
    return lambda: start(lambda port: [sys.executable, "-c", code, str(model), str(port)])
