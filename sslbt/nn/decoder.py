"""From the encoder's feature map back to a picture."""

from torch import Tensor, nn


class Decoder(nn.Module):
    """Four times: double the side, halve the channels. No shortcuts from the encoder: it has to carry everything."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (8 * width, 4 * width, 2 * width, width):
            layers += [
                nn.Upsample(scale_factor=2, mode="nearest"),
                nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels // 2),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width // 2, 1, 3, padding=1))

    def forward(self, features: Tensor) -> Tensor:
        """(batch, 8 width, side, side) to (batch, 1, 16 side, 16 side)."""
        return self.layers(features)
