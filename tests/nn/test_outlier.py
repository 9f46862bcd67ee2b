from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslbt.nn.outlier import Outlier


@pytest.fixture
def outlier() -> Outlier:
    """With statistics and a last layer that make its answers differ."""
    torch.manual_seed(0)
    outlier = Outlier()
    for _ in range(20):
        outlier(torch.rand(16, 1, 256, 256))
    last = outlier.net[-1]
    assert isinstance(last, nn.Linear)
    nn.init.normal_(last.weight)
    outlier.above.fill_(0.7)
    return outlier.eval().requires_grad_(False)


def pictures(count: int) -> Tensor:
    return F.interpolate(torch.rand(count, 1, 9, 9, generator=torch.Generator().manual_seed(1)), (256, 256))


def test_a_score_for_each_picture_whatever_its_company(outlier: Outlier) -> None:
    scores = outlier(pictures(7))
    assert scores.shape == (7,)
    assert scores.std() > 0.1
    torch.testing.assert_close(torch.cat([outlier(one[None]) for one in pictures(7)]), scores, atol=1e-4, rtol=0)


def test_place_counts(outlier: Outlier) -> None:
    assert (outlier(pictures(7)) - outlier(pictures(7).flip(-2))).abs().min() > 0.01


def test_the_threshold_travels_with_the_weights(outlier: Outlier) -> None:
    other = Outlier()
    other.load_state_dict(outlier.state_dict())
    assert float(other.eval().above) == pytest.approx(0.7)
    torch.testing.assert_close(other(pictures(3)), outlier(pictures(3)))


def test_onnx_answers_as_torch_for_any_number(outlier: Outlier, tmp_path: Path) -> None:
    path = tmp_path / "outlier.onnx"
    batch = torch.export.Dim("batch", min=2)
    torch.onnx.export(
        outlier, (pictures(2),), path, input_names=["slices"], dynamic_shapes=({0: batch},), dynamo=True, verbose=False
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 2, 5):
        (found,) = session.run(None, {"slices": pictures(count).numpy()})
        np.testing.assert_allclose(found, outlier(pictures(count)).numpy(), atol=1e-4, rtol=1e-4)
