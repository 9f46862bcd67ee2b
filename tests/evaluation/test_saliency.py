import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from sslbt.evaluation.saliency import layer_cam, random_weights, saliency
from sslbt.nn.encoder import Encoder
from sslbt.nn.heads import Classifier


def classifier(width: int = 4) -> Classifier:
    """Random weights, and batch normalisations that are not the identity."""
    torch.manual_seed(100)  # none of the seeds of `random_weights`
    model = Classifier(Encoder(width), 3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.2, 0.2)
    return model.eval()


def by_autograd(model: Classifier, slices: Tensor, targets: Tensor) -> Tensor:
    """LayerCAM as its paper defines it, with torch's own gradient, its map averaged over 5 x 5 places."""
    kept = []
    hook = model.encoder.blocks[1].register_forward_hook(lambda module, given, out: kept.append(out) or out.clone())
    logits = model(slices)
    hook.remove()
    score = (logits - logits.mean(dim=1, keepdim=True))[torch.arange(len(slices)), targets].sum()
    (gradient,) = torch.autograd.grad(score, kept)
    spoke = (kept[0] * gradient.relu()).sum(dim=1).detach()
    return nn.functional.avg_pool2d(spoke, 5, 1, 2) / nn.functional.avg_pool2d(torch.ones_like(spoke), 5, 1, 2)


@pytest.mark.parametrize("size", [32, 96])
def test_it_is_layer_cam_by_autograd(size: int) -> None:
    model = classifier()
    slices, targets = torch.rand(5, 1, size, size), torch.tensor([0, 1, 2, 2, 0])
    expected = by_autograd(model, slices, targets)[:, None]
    expected = nn.functional.interpolate(expected, (size, size), mode="bilinear")[:, 0]
    expected = expected / expected.amax(dim=(1, 2), keepdim=True)
    maps = saliency(model, slices, targets.numpy())
    assert maps.shape == (5, size, size)
    assert maps.dtype == np.float32
    assert maps.min() >= 0
    assert maps.max(axis=(1, 2)) == pytest.approx(1)
    np.testing.assert_allclose(maps, expected, atol=1e-4)


def test_it_points_where_the_answer_hinges_on() -> None:
    """All blocks hand their input on, one channel is looked at: brightness speaks for class 1, nothing for class 0."""
    model = Classifier(Encoder(1), 2).eval()
    with torch.no_grad():
        for name, weight in model.encoder.named_parameters():
            if "convs" in name:
                weight.zero_()
            if "shortcut.0" in name:
                weight.fill_(1)
        model.encoder.stem[0].weight.fill_(1 / 9)
        model.head[2].weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(2, 8))
    slices = torch.full((1, 1, 96, 96), 0.2)
    slices[..., 60:64, 28:32] = 1
    against, spoke = saliency(model, slices.expand(2, -1, -1, -1), np.array([0, 1]))
    assert not against.any()
    row, column = np.unravel_index(spoke.argmax(), spoke.shape)
    assert 56 <= row <= 68
    assert 24 <= column <= 36
    assert spoke[52:72, 20:40].sum() == pytest.approx(spoke.sum())


def test_batches_are_joined_in_order_and_the_model_stays_as_it_was() -> None:
    model = classifier()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    slices, targets = torch.rand(70, 1, 32, 32), np.arange(70) % 3
    maps = saliency(model, slices, targets)
    for row in (0, 31, 32, 69):
        np.testing.assert_allclose(maps[row], saliency(model, slices[[row]], targets[[row]])[0], atol=1e-4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not model.training
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())


def test_the_map_depends_on_class_and_weights() -> None:
    """The sanity check of Adebayo et al. 2018, down to the head's weights alone."""
    model = classifier(8)
    slices, targets = torch.rand(10, 1, 64, 64), np.arange(10) % 3
    maps = saliency(model, slices, targets)

    def likeness(others: np.ndarray) -> float:
        return float(np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(maps, others, strict=True)]))

    assert likeness(saliency(model, slices, targets)) == pytest.approx(1)
    assert likeness(saliency(model, slices, (targets + 1) % 3)) < 0.9
    assert likeness(random_weights(model, slices, targets)) < 0.8  # all fade towards the border of noise
    nn.init.normal_(model.head[2].weight)
    assert likeness(saliency(model, slices, targets)) < 0.9


def test_random_weights_follow_from_seeds_not_from_the_model() -> None:
    slices, targets = torch.rand(7, 1, 32, 32), np.arange(7) % 3
    maps = random_weights(classifier(), slices, targets, seeds=2)
    np.testing.assert_array_equal(maps, random_weights(Classifier(Encoder(4), 3), slices, targets, seeds=2))
    torch.manual_seed(1)
    untrained = Classifier(Encoder(4), 3)
    np.testing.assert_allclose(maps[[1, 3, 5]], saliency(untrained, slices[1::2], targets[1::2]), atol=1e-5)


def test_it_fits_into_an_exported_graph(tmp_path) -> None:
    """No gradient is left in it: the service can show the map without torch."""

    class Mapped(nn.Module):
        def __init__(self, model: Classifier) -> None:
            super().__init__()
            self.model = model

        def forward(self, slices: Tensor) -> Tensor:
            return layer_cam(self.model, slices, self.model(slices).argmax(dim=1))

    model, slices = classifier(), torch.rand(3, 1, 64, 64)
    batch = torch.export.Dim("batch", min=1)
    program = torch.onnx.export(
        Mapped(model).eval(), (slices[:2],), input_names=["slices"], dynamic_shapes=({0: batch},), dynamo=True
    )
    program.save(tmp_path / "map.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "map.onnx")
    with torch.no_grad():
        targets = model(slices).argmax(dim=1).numpy()
    np.testing.assert_allclose(
        session.run(None, {"slices": slices.numpy()})[0], saliency(model, slices, targets), atol=1e-4
    )
