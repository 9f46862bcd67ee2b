"""What is put on top of the encoder."""

import torch
from torch import Tensor, nn

from sslbt import parallel
from sslbt.nn.encoder import Encoder


class Projection(nn.Module):
    """The two layers between features and contrastive loss, thrown away afterwards (Chen et al. 2020, SimCLR).

    Args:
        channels: of the features, and of the layer in between.
        out: length of a projection; 128 as in the paper.
    """

    def __init__(self, channels: int, out: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels, channels, bias=False),
            nn.BatchNorm1d(channels),
            nn.ReLU(inplace=True),
            nn.Linear(channels, out),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels) to (batch, out), each row of length 1."""
        return nn.functional.normalize(self.layers(features), dim=1)


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014) of rows of features, drawn for the whole batch of which this is a share."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, features: Tensor) -> Tensor:
        """(rows, channels) to the same; outside of training nothing changes."""
        if not self.training:
            return features
        drawn = torch.rand(len(features) * parallel.size(), features.shape[1])
        kept = parallel.share(drawn).to(features.device) >= self.probability
        return features * kept / (1 - self.probability)


class Classifier(nn.Module):
    """Encoder, mean over positions, and the added layers: normalise each channel, drop some, weigh the rest.

    Args:
        encoder: pretrained or new.
        classes: how many to tell apart.
        dropout: share of the channels that a training step goes without.
    """

    def __init__(self, encoder: Encoder, classes: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(
            nn.BatchNorm1d(encoder.channels, affine=False), Dropout(dropout), nn.Linear(encoder.channels, classes)
        )
        self.frozen: list[nn.Module] = []

    def freeze(self, part: str) -> None:
        """Keep what the encoder has learnt: `none` of it, `half` (stem and first two stages) or `all`.

        Raises:
            KeyError: another part.
        """
        encoder = self.encoder
        lower = [encoder.stem, *list(encoder.blocks)[: len(encoder.blocks) // 2]]
        parts: dict[str, list[nn.Module]] = {"none": [], "half": lower, "all": [encoder]}
        self.frozen = parts[part]
        for module in self.frozen:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> "Classifier":
        """As always, but what is frozen keeps its batch statistics too."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def forward(self, slices: Tensor) -> Tensor:
        """(batch, 1, size, size) in [0, 1] to logits (batch, classes)."""
        return self.head(self.encoder.pooled(slices))
