from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from sslbt.export.onnx import Deployed, export
from sslbt.nn.encoder import Encoder
from sslbt.nn.heads import Classifier
from sslbt.nn.outlier import Outlier

ABOUT = {
    "classes": ["meningioma", "glioma", "pituitary"],
    "run_id": "0123456789abcdef",
    "pretrained": "fedcba9876543210",
    "size": 96,
    "code_version": "abc123",
    "data_digest": "d1",
    "split_hash": "s1",
    "temperature": 1.7,
    "plausible_above": 0.3,
    "guarantee": 0.9,
    "synthetic": True,
}


@dataclass(frozen=True)
class Exported:
    """A small network whose answers differ from slice to slice, and the file made of it."""

    model: Deployed
    path: Path
    about: dict

    def ours(self, image: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self.model(torch.from_numpy(image))[0].numpy()


def draw_pictures(batch: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Raw pictures (batch, height, width): blobs over noise on a dark ground, as of a scanner."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    pictures = []
    for _ in range(batch):
        picture = generator.gamma(2, 10, (height, width))
        for cy, cx, spread, bright in generator.random((6, 4)):
            picture += 900 * bright * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (0.002 + 0.05 * spread))
        pictures.append(picture)
    return np.stack(pictures).astype(np.float32)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    torch.manual_seed(0)
    classifier = Classifier(Encoder(8), 3)
    outlier = Outlier()
    outlier.above.fill_(1.25)
    model = Deployed(classifier, outlier, ABOUT)
    with torch.no_grad():
        for seed in range(30):  # batch statistics of such pictures
            model(torch.from_numpy(draw_pictures(8, 96, 96, seed)))
        linear = classifier.head[-1]  # and answers that differ between them
        logits = model.eval()(torch.from_numpy(draw_pictures(32, 96, 96, seed=99)))[0].log() * model.temperature
        scale = 2 / (logits - logits.mean(dim=1, keepdim=True)).std(dim=0).mean()
        linear.weight.mul_(scale)
        linear.bias.copy_(scale * (linear.bias - logits.mean(dim=0)))
    path = tmp_path_factory.mktemp("export") / "net.onnx"
    export(model, ABOUT, path)
    return Exported(model, path, ABOUT)


@pytest.fixture(scope="session")
def theirs(exported: Exported) -> Callable[[np.ndarray], np.ndarray]:
    """What ONNX Runtime answers."""
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    return lambda image: session.run(["probabilities"], {"image": image})[0]


@pytest.fixture(scope="session")
def draw() -> Callable[..., np.ndarray]:
    return draw_pictures
