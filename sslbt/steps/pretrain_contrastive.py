"""`pretrain-contrastive`: learn from unlabelled slices which pairs belong together."""

import numpy as np
import torch
from torch import Tensor

from sslbt.config import PretrainContrastive
from sslbt.evaluation import figures
from sslbt.nn.encoder import Encoder
from sslbt.pretext.pairs import Contrast, Pairs
from sslbt.steps.common import leave_encoder, open_data, origin, schedule_of, validation
from sslbt.terminal import say
from sslbt.tracking.run import Run
from sslbt.training.feed import Feed
from sslbt.training.loop import best_device, train
from sslbt.training.tasks import Compare


def pretrain_contrastive(cfg: PretrainContrastive, run: Run) -> None:
    """Pretrain an encoder by telling positive from negative pairs (Chen et al. 2020; Hadsell et al. 2006)."""
    cache, split = open_data(cfg, run)
    run.describe(f"pretrain contrastive, pairs by {cfg.pairs}", way="contrastive")
    if cfg.pairs == "label":
        say("WARNING: pairs=label reads the class of every training slice: few labels are no longer few")
    rows = split.rows("train")
    if cfg.pairs == "label":
        rows = rows[split.table.label.to_numpy()[rows] >= 0]
    pairs = Pairs(split.table.iloc[rows].reset_index(drop=True), cfg.pairs)

    torch.manual_seed(cfg.seed)
    model = Contrast(Encoder(cfg.width), cfg.loss, cfg.temperature)
    task = Compare(model, Feed.of(cache, cfg.size, best_device()), rows, pairs, cfg.num_pairs, cfg.batch)
    show(task, run, cfg.pairs)
    watched = validation(cache, split, cfg)

    schedule = schedule_of(cfg, task.steps)
    state = train(task, schedule, run.unfinished, [watched.probe], run.report(schedule))

    about = {"way": "contrastive", "pairs": cfg.pairs} | origin(cache, split, rows, run)
    leave_encoder(model.encoder, cfg, state, watched, about, run)


def show(task: Compare, run: Run, kind: str) -> None:
    """Log some pairs as the network will see them."""
    generator = np.random.default_rng(0)

    def views(pairs: np.ndarray) -> tuple[Tensor, Tensor]:
        first, second, *_ = task.ready(np.insert(pairs, 2, 0, axis=1))
        return first, second

    positive, negative = (task.pairs.positive(8, generator), task.pairs.negative(8, generator))
    run.figure("pictures/pairs.png", figures.pairs(views(positive), views(negative), kind))
