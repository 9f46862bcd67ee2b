"""The network that both ways of pretraining train and fine-tuning takes over."""

from torch import Tensor, nn


class Encoder(nn.Module):
    """A small one-channel ResNet-18 (He et al. 2016, arXiv:1512.03385) with a 3 x 3 stem and total stride 16.

    Args:
        width: channels of the first stage; the last has eight times as many. 32 gives 2.8 million weights. With fewer
            than 8, oneDNN's AVX2 kernels (torch 2.13, channels-last, 1 x 1, stride 2) write beyond their memory.
    """

    stride = 16

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.width = width
        self.channels = 8 * width
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        blocks = []
        for stage in range(4):
            inside, outside = width * 2 ** max(stage - 1, 0), width * 2**stage
            blocks += [Block(inside, outside, stride=1 if stage == 0 else 2), Block(outside, outside)]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, slices: Tensor) -> Tensor:
        """(batch, 1, size, size) in [0, 1] to the feature map (batch, 8 width, size / 16, size / 16)."""
        return self.blocks(self.begin(slices))

    def begin(self, slices: Tensor) -> Tensor:
        """What the blocks are given, (batch, width, size / 2, size / 2)."""
        return self.stem((slices - 0.25) / 0.25)  # mean and deviation of the figshare set

    def pooled(self, slices: Tensor) -> Tensor:
        """One feature vector a slice, (batch, 8 width): the mean over positions."""
        return self(slices).mean(dim=(2, 3))


class Block(nn.Module):
    """Two 3 x 3 convolutions around a shortcut."""

    def __init__(self, inside: int, outside: int, stride: int = 1) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(inplace=True),
            nn.Conv2d(outside, outside, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outside),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inside, height, width) to (batch, outside, height / stride, width / stride)."""
        return self.convs(x).add_(self.shortcut(x)).relu_()  # in place: memory is what these steps wait for
