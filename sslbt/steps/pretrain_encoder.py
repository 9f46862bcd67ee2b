"""`pretrain-encoder`: learn from unlabelled slices by restoring what was hidden."""

import torch
from torch import nn

from sslbt.config import PretrainEncoder
from sslbt.evaluation import figures
from sslbt.evaluation.features import Probe
from sslbt.nn.encoder import Encoder
from sslbt.pretext.masking import Restoration, hidden_error, random_regions
from sslbt.steps.common import open_data, origin
from sslbt.tracking.models import ENCODER
from sslbt.tracking.run import Run
from sslbt.training import checkpoint
from sslbt.training.loop import Schedule, best_device, train
from sslbt.training.tasks import Restore


def pretrain_encoder(cfg: PretrainEncoder, run: Run) -> None:
    """Pretrain an encoder by restoring hidden regions of unlabelled slices (Pathak et al. 2016)."""
    cache, split = open_data(cfg, run)
    run.describe("pretrain encoder", way="encoder")
    rows, watched = split.rows("train"), split.rows("validation")
    validation = cache.load(watched, cfg.size)

    torch.manual_seed(cfg.seed)
    model = Restoration(Encoder(cfg.width), cfg.mask_min, cfg.mask_max)
    task = Restore(model, cache.load(rows, cfg.size).to(best_device()), cfg.batch)
    families = split.table.family.to_numpy()
    probe = Probe(validation, split.table.label.to_numpy()[watched], families[watched], cfg.epochs)
    pictures = Pictures(validation, run, cfg.epochs)

    schedule = Schedule(cfg.epochs, task.steps, cfg.learning_rate, seed=cfg.seed)
    history = train(task, schedule, run.unfinished, [probe, pictures], run.epochs(cfg.epochs))

    run.figure("pictures/curves.png", figures.curves(history))
    with run.artifact(ENCODER) as path:
        checkpoint.save_encoder(
            path, model.encoder, {"size": cfg.size, "way": "encoder"} | origin(cache, split, rows, run)
        )


class Pictures:
    """Restores the same regions of the same validation slices at several epochs, and measures the error there."""

    def __init__(self, slices: torch.Tensor, run: Run, epochs: int) -> None:
        generator_state = torch.get_rng_state()
        torch.manual_seed(0)
        self.hidden = random_regions(len(slices), slices.shape[-1], (0.1, 0.3))
        torch.set_rng_state(generator_state)
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
