import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from sslbt.errors import UserError
from sslbt.export.onnx import Deployed
from sslbt.export.parity import TOLERANCE, check, of_one_shape

Draw = Callable[..., np.ndarray]


def pictures(draw: Draw) -> list[np.ndarray]:
    return [draw(1, *side, seed=seed)[0] for seed, side in enumerate([(96, 96), (200, 128), (512, 512)])]


def test_the_file_of_a_network_equals_it(exported: Any, draw: Draw) -> None:
    found = check(exported.model, exported.path, iter(pictures(draw)))
    assert found.slices == 3
    assert 0 <= found.difference < TOLERANCE


def test_pixels_of_any_type_are_compared(exported: Any, draw: Draw) -> None:
    whole = [picture.astype(np.uint16) for picture in pictures(draw)]
    assert check(exported.model, exported.path, whole).slices == 3
    assert check(exported.model, exported.path, []).slices == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("weights", "probabilities, by"),
        ("statistics", "probabilities, by"),
        ("temperature", "probabilities, by"),
        ("size", "probabilities, by"),
        ("outlier", "strangeness, by"),
        ("plausible_above", "whether to abstain"),
        ("strange_above", "whether to abstain"),
    ],
)
def test_another_network_is_refused(exported: Any, draw: Draw, change: str, said: str) -> None:
    other = copy.deepcopy(exported.model)
    torch.manual_seed(0)
    with torch.no_grad():
        if change == "weights":
            for weights in other.classifier.encoder.parameters():
                weights.mul_(1 + 0.05 * torch.randn_like(weights))
        elif change == "statistics":
            other.classifier.encoder.stem[1].running_mean.add_(0.2)
        elif change == "outlier":
            other.outlier.net[-1].bias.add_(0.1)
    if change == "temperature":
        other.temperature *= 1.05
    elif change == "size":
        other = Deployed(other.classifier, other.outlier, exported.about | {"size": 80}).eval()
    elif change == "plausible_above":
        other.plausible_above = 0.99
    elif change == "strange_above":
        other.outlier.above.fill_(-1e9)
    with pytest.raises(UserError, match=rf"net\.onnx: slice \d \(.*\) differs from torch in {said}.*; it is not reg"):
        check(other, exported.path, pictures(draw))


def test_slices_asked_together_are_compared_each_with_its_own(exported: Any, draw: Draw) -> None:
    class OneWrong(Deployed):
        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
            probabilities, *others = super().forward(image)
            probabilities[2:3] = probabilities[2:3].roll(1, dims=1)
            return probabilities, *others

    other = OneWrong(exported.model.classifier, exported.model.outlier, exported.about).eval()
    several = [draw(1, *side, seed=seed)[0] for side in [(200, 128), (96, 96)] for seed in range(4)]
    with pytest.raises(UserError, match=r"slice 3 \(1 x 200 x 128\) differs from torch in probabilities"):
        check(other, exported.path, several)
    assert check(exported.model, exported.path, several).slices == 8
    together = list(of_one_shape([*several, several[0]]))
    assert [own.shape for own in together] == [(4, 200, 128), (4, 96, 96), (1, 200, 128)]
    assert [list(own.ravel()) for group in together for own in group] == [
        list(o.ravel()) for o in [*several, several[0]]
    ]


def test_few_large_slices_are_asked_together() -> None:
    assert [len(own) for own in of_one_shape(np.zeros((3, 2048, 1024)))] == [2, 1]
    assert [len(own) for own in of_one_shape(np.zeros((2, 4096, 2048)))] == [1, 1]


def test_a_map_of_something_else_is_refused(exported: Any, draw: Draw) -> None:
    class Elsewhere(Deployed):
        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
            *others, maps = super().forward(image)
            return *others, maps.roll(1, dims=2)

    other = Elsewhere(exported.model.classifier, exported.model.outlier, exported.about).eval()
    with pytest.raises(UserError, match=r"slice 1 \(.*\) differs from torch in saliency, by"):
        check(other, exported.path, pictures(draw))


def test_a_file_that_answers_with_no_number_is_refused(exported: Any, draw: Draw, tmp_path: Path) -> None:
    broken = onnx.load(exported.path)
    weights = max(broken.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    weights.CopyFrom(numpy_helper.from_array(np.full(list(weights.dims), np.nan, np.float32), weights.name))
    onnx.save_model(broken, tmp_path / "broken.onnx")
    with pytest.raises(UserError, match=r"broken\.onnx: slice 1 \(.*\) differs from torch in .*nan"):
        check(exported.model, tmp_path / "broken.onnx", pictures(draw))


def test_the_slice_that_differs_is_named(exported: Any, draw: Draw) -> None:
    class Sometimes(Deployed):
        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
            probabilities, *others = super().forward(image)
            return (probabilities.flip(1) if image.shape[1] == 200 else probabilities), *others

    ours = exported.model
    other = Sometimes(ours.classifier, ours.outlier, exported.about).eval()
    with pytest.raises(UserError, match=r"slice 2 \(1 x 200 x 128\) differs"):
        check(other, exported.path, pictures(draw))
