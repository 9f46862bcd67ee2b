"""`pretrain-encoder`: learn from unlabelled slices by restoring what was hidden."""

import torch
from torch import nn

from sslbt.config import PretrainEncoder
from sslbt.evaluation import figures
from sslbt.nn.encoder import Encoder
from sslbt.pretext.masking import Restoration, hidden_error, random_regions
from sslbt.steps.common import leave_encoder, open_data, origin, schedule_of, validation
from sslbt.tracking.run import Run
from sslbt.training.feed import Feed
from sslbt.training.loop import best_device, train
from sslbt.training.tasks import Restore


def pretrain_encoder(cfg: PretrainEncoder, run: Run) -> None:
    """Pretrain an encoder by restoring hidden regions of unlabelled slices (Pathak et al. 2016)."""
    cache, split = open_data(cfg, run)
    run.describe("pretrain encoder", way="encoder")
    rows = split.rows("train")

    torch.manual_seed(cfg.seed)
    model = Restoration(Encoder(cfg.width), cfg.mask_min, cfg.mask_max)
    task = Restore(model, Feed.of(cache, cfg.size, best_device()), rows, cfg.batch)
    watched = validation(cache, split, cfg)
    pictures = Pictures(watched.slices, run, cfg.epochs)

    schedule = schedule_of(cfg, task.steps)
    state = train(task, schedule, run.unfinished, [watched.probe, pictures], run.report(schedule))

    about = {"way": "encoder"} | origin(cache, split, rows, run)
    leave_encoder(model.encoder, cfg, state, watched, about, run)


class Pictures:
    """Restores the same regions of the same validation slices at several epochs, and measures the error there."""

    def __init__(self, slices: torch.Tensor, run: Run, epochs: int) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.hidden = random_regions(len(slices), slices.shape[-1], (0.1, 0.3))
        self.slices, self.run = slices, run
        self.epochs = {0, epochs // 4, epochs // 2, epochs - 1}

    def __call__(self, epoch: int, model: nn.Module) -> dict[str, float]:
        if epoch not in self.epochs:
            return {}
        device = next(model.parameters()).device
        shown = torch.linspace(0, len(self.slices) - 1, 6).long()
        result = model(self.slices[shown].to(device), self.hidden[shown].to(device))
        figure = figures.restoration(self.slices[shown], result, epoch)
        self.run.figure(f"pictures/restored_epoch_{epoch + 1:04d}.png", figure)
        parts = zip(self.slices.split(128), self.hidden.split(128), strict=True)
        errors = [
            hidden_error(model(part.to(device), where.to(device)).restored, part.to(device), where.to(device))
            * len(part)
            for part, where in parts
        ]
        return {"validation/hidden_mse": float(sum(errors)) / len(self.slices)}
