"""An optimiser's state among the tensors of a checkpoint."""

import torch
from torch import Tensor

PREFIX = "optimizer."  # no weight is called so


def pack(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Its state as flat tensors, `optimizer.3.exp_avg` and so on: 3 is the weight's number in the optimiser."""
    state = optimizer.state_dict()["state"]
    return {
        f"{PREFIX}{index}.{name}": torch.as_tensor(value) for index, own in state.items() for name, value in own.items()
    }


def unpack(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Undo `pack`. Moments get their weights' memory format: fused steps go by memory, not by index.

    Raises:
        LookupError, ValueError, RuntimeError: the tensors are of an optimiser of other weights.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith(PREFIX):
            index, name = key.removeprefix(PREFIX).split(".")
            like = weights[int(index)]
            own = torch.empty_like(like).copy_(tensor) if tensor.shape == like.shape else tensor
            state.setdefault(int(index), {})[name] = own
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
