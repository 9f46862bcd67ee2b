"""Batch normalisation over the whole batch where several processes hold a part of it each."""

import torch
from torch import Tensor, nn

from sslbt import parallel


def synchronised(model: nn.Module) -> nn.Module:
    """The same model; its batch statistics span all processes, where there are several. Weights and names stay."""
    if parallel.size() == 1:
        return model
    if next(model.parameters()).is_cuda:
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.__class__ = SyncedBatchNorm
    return model


class SyncedBatchNorm(nn.BatchNorm1d, nn.BatchNorm2d):
    """On processors, which torch's own SyncBatchNorm leaves out; mean and variance are summed in two passes."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        """(batch, channels, ...) to the same, normalised by the statistics of all processes' batches."""
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        values = input.float()
        over = [0, *range(2, input.dim())]
        count = input.numel() // input.shape[1] * parallel.size()
        shape = [1, -1, *[1] * (input.dim() - 2)]
        mean = parallel.Total.apply(values.sum(over)) / count
        centred = values - mean.view(shape)
        variance = parallel.Total.apply(centred.square().sum(over)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum or 0.1)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum or 0.1)
        normal = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(input.dtype)
