"""Contrastive losses over pairs of normalised projections, no pair of one family ever a negative."""

import torch
import torch.nn.functional as F
from torch import Tensor


def nt_xent(first: Tensor, second: Tensor, groups: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross entropy (Chen et al. 2020, SimCLR, eq. 1).

    Row i of `first` and row i of `second` are a positive pair; every row of another group is a negative.

    Args:
        first, second: (pairs, channels), normalised.
        groups: (pairs,) number of the group a pair belongs to; same-group rows are left out of the denominator.
        temperature: smaller weighs the nearest negatives more.

    Returns:
        The mean over all 2 pairs rows, each once as the anchor; 0 where a batch has one group only.
    """
    pairs = len(first)
    both = torch.cat([first, second])
    similarity = both @ both.T / temperature
    twin = torch.arange(2 * pairs, device=both.device).roll(pairs)
    same = groups.repeat(2)[:, None] == groups.repeat(2)[None, :]
    same[torch.arange(2 * pairs), twin] = False
    return F.cross_entropy(similarity.masked_fill(same, -torch.inf), twin)


def margin_loss(first: Tensor, second: Tensor, equal: Tensor, margin: float = 1.0) -> Tensor:
    """Contrastive loss (Hadsell, Chopra & LeCun 2006, eq. 4): equal pairs together, others at least `margin` apart.

    Args:
        first, second: (pairs, channels), normalised.
        equal: (pairs,) bool, true for a positive pair.
        margin: how far apart is far enough; at most 2 can be reached.

    Returns:
        Half the mean over pairs of squared distances, or of what they lack to the margin.
    """
    distance = (first - second).square().sum(dim=1).clamp_min(1e-12).sqrt()
    return torch.where(equal, distance.square(), (margin - distance).clamp_min(0).square()).mean() / 2
