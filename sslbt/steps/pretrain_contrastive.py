"""`pretrain-contrastive`: learn from unlabelled slices which pairs belong together."""

import numpy as np
import torch
from torch import Tensor

from sslbt.config import PretrainContrastive
from sslbt.evaluation import figures
from sslbt.evaluation.features import Probe
from sslbt.nn.encoder import Encoder
from sslbt.pretext.pairs import Contrast, Pairs
from sslbt.steps.common import open_data, origin
from sslbt.terminal import say
from sslbt.tracking.models import ENCODER
from sslbt.tracking.run import Run
from sslbt.training import checkpoint
from sslbt.training.augment import STRONG
from sslbt.training.loop import Schedule, best_device, train
from sslbt.training.tasks import Compare


def pretrain_contrastive(cfg: PretrainContrastive, run: Run) -> None:
    """Pretrain an encoder by telling positive from negative pairs (Chen et al. 2020; Hadsell et al. 2006)."""
    cache, split = open_data(cfg, run)
    run.describe(f"pretrain contrastive, pairs by {cfg.pairs}", way="contrastive")
    if cfg.pairs == "label":
        say("WARNING: pairs=label reads the class of every training slice: few labels are no longer few")
    rows, watched = split.rows("train"), split.rows("validation")
    if cfg.pairs == "label":
        rows = rows[split.table.label.to_numpy()[rows] >= 0]
    slices = cache.load(rows, cfg.size)
    pairs = Pairs(split.table.iloc[rows].reset_index(drop=True), cfg.pairs)
    show(slices, pairs, cfg.pairs, run)

    torch.manual_seed(cfg.seed)
    model = Contrast(Encoder(cfg.width), cfg.loss, cfg.temperature)
    task = Compare(model, slices.to(best_device()), pairs, cfg.num_pairs, cfg.batch)
    labels, families = split.table.label.to_numpy(), split.table.family.to_numpy()
    probe = Probe(cache.load(watched, cfg.size), labels[watched], families[watched], cfg.epochs)

    schedule = Schedule(cfg.epochs, task.steps, cfg.learning_rate, seed=cfg.seed)
    history = train(task, schedule, run.unfinished, [probe], run.epochs(cfg.epochs))

    run.figure("pictures/curves.png", figures.curves(history))
    about = {"size": cfg.size, "way": "contrastive", "pairs": cfg.pairs} | origin(cache, split, rows, run)
    with run.artifact(ENCODER) as path:
        checkpoint.save_encoder(path, model.encoder, about)


def show(slices: Tensor, pairs: Pairs, kind: str, run: Run) -> None:
    """Log some pairs as the network will see them."""
    torch.manual_seed(0)
    generator = np.random.default_rng(0)

    def views(rows: np.ndarray) -> tuple[Tensor, Tensor]:
        first, second = torch.from_numpy(rows).T
        return STRONG(slices[first]), STRONG(slices[second])

    run.figure(
        "pictures/pairs.png",
        figures.pairs(views(pairs.positive(8, generator)), views(pairs.negative(8, generator)), kind),
    )
