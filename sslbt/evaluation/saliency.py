"""Where a classifier looks: LayerCAM (Jiang et al. 2021, IEEE TIP 30) at the encoder's first stage.

Each place of the stage's feature map counts with its activation times the positive part of the gradient there: what
spoke for the class, at half the picture's resolution. Strided convolutions leave a grid in it, softened by averaging
over neighbours: of the map, since averages of the gradient show what is bright rather than what counts. The gradient
is written out below as transposed convolutions, exact for this network, so that it runs without autograd and can be
part of an exported graph.
"""

from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslbt.nn.encoder import Block, Encoder
from sslbt.nn.heads import Classifier

BATCH = 32
FIRST = 2  # blocks of the first stage; on real slices later stages, coarser, point at the tumour less often
NEIGHBOURS = 5  # places across to average over; more points a little better and tells less of what counts


@torch.no_grad()
def saliency(model: Classifier, slices: Tensor, targets: np.ndarray) -> np.ndarray:
    """What spoke for the class `targets` (n,) in slices (n, 1, size, size): (n, size, size) float32 in [0, 1]."""
    device = next(model.parameters()).device
    model.eval()
    parts = zip(slices.split(BATCH), torch.as_tensor(targets).split(BATCH), strict=True)
    return torch.cat([layer_cam(model, part.to(device), own.to(device)).cpu() for part, own in parts]).numpy()


def random_weights(model: Classifier, slices: Tensor, targets: np.ndarray, seeds: int = 5) -> np.ndarray:
    """The same of untrained networks of the same build; the slices take turns among the seeds.

    A map worth looking at differs from this (Adebayo et al. 2018, arXiv:1810.03292).
    """
    device = next(model.parameters()).device
    maps = np.empty((len(slices), *slices.shape[2:]), np.float32)
    for seed in range(min(seeds, len(slices))):
        torch.manual_seed(seed)
        untrained = Classifier(Encoder(model.encoder.width), _linear(model).out_features)
        maps[seed::seeds] = saliency(untrained.to(device), slices[seed::seeds], targets[seed::seeds])
    return maps


def layer_cam(model: Classifier, slices: Tensor, targets: Tensor) -> Tensor:
    """Maps of a batch, (batch, size, size), each with 1 as its maximum (all zero where nothing spoke for the class)."""
    encoder = model.encoder
    blocks = cast(list[Block], list(encoder.blocks.children())[FIRST:])
    outputs = [encoder.blocks[:FIRST](encoder.begin(slices))]
    hidden = []
    for block in blocks:
        hidden.append(block.convs[:3](outputs[-1]))
        outputs.append((block.convs[3:](hidden[-1]) + block.shortcut(outputs[-1])).relu())
    places = outputs[-1].shape[2] * outputs[-1].shape[3]
    gradient = (_of_logit(model, targets) / places)[:, :, None, None].expand_as(outputs[-1])
    for block, inner, output in zip(blocks[::-1], hidden[::-1], outputs[:0:-1], strict=True):
        gradient = _through(block, gradient * (output > 0), inner)
    spoke = (outputs[0] * gradient.relu()).sum(dim=1, keepdim=True)
    smooth = F.avg_pool2d(spoke, NEIGHBOURS, 1, NEIGHBOURS // 2, count_include_pad=False)
    maps = F.interpolate(smooth, slices.shape[2:], mode="bilinear")[:, 0]
    return maps / maps.amax(dim=(1, 2), keepdim=True).clamp_min(1e-30)


def _of_logit(model: Classifier, targets: Tensor) -> Tensor:
    """Gradient of the target's logit less the mean of all by the pooled features, (batch, channels)."""
    weights = _linear(model).weight
    return (weights - weights.mean(dim=0))[targets] * _scale(model.head[0])


def _through(block: Block, gradient: Tensor, hidden: Tensor) -> Tensor:
    """From the gradient by a block's sum to that by its input; `hidden` is what its first ReLU gave."""
    inner = _through_conv(block.convs[3:], gradient) * (hidden > 0)
    past = gradient if isinstance(block.shortcut, nn.Identity) else _through_conv(block.shortcut, gradient)
    return _through_conv(block.convs[:2], inner) + past


def _through_conv(layers: nn.Module, gradient: Tensor) -> Tensor:
    """Back through a convolution and the normalisation that follows it, the first two of `layers`."""
    conv, norm, *_ = layers.children()
    assert isinstance(conv, nn.Conv2d)
    if not isinstance(norm, nn.Identity):  # in an exported graph the convolution holds it already
        gradient = gradient * _scale(norm)[:, None, None]
    # A stride of two halves even sides: their last row and column, in the middle of no window, come back as padding.
    added = conv.stride[0] - 1
    return F.conv_transpose2d(gradient, conv.weight, None, conv.stride, conv.kernel_size[0] // 2, added)


def _scale(norm: nn.Module) -> Tensor:
    """What batch normalisation multiplies each channel by, in evaluation."""
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    return scale * norm.weight if norm.affine else scale


def _linear(model: Classifier) -> nn.Linear:
    layer = model.head[-1]
    assert isinstance(layer, nn.Linear)
    return layer
