import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sslbt.nn.encoder import Encoder
from sslbt.pretext.pairs import Contrast, Pairs
from sslbt.tracking.telling import Silence
from sslbt.training.feed import Feed
from sslbt.training.loop import Schedule, best_device, train
from sslbt.training.tasks import Compare


def test_the_bare_step_does_what_a_step_of_the_loop_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    from job import Step

    torch.manual_seed(0)
    names = np.arange(24).astype(str)
    table = pd.DataFrame({"file": names, "patient": names, "family": names, "label": 0})
    feed = Feed(torch.randint(256, (24, 32, 32), dtype=torch.uint8), names, best_device())
    task = Compare(Contrast(Encoder(8), "ntxent", 0.2), feed, np.arange(24), Pairs(table, "views"), 8, 8)
    twin = copy.deepcopy(task)
    ready = []
    monkeypatch.setattr(task, "ready", lambda pairs: ready.append(twin.ready(pairs)) or ready[-1])

    state = train(task, Schedule(1, 1, 1e-3), tmp_path, [], Silence())
    loss = Step(twin, 1e-3)(*ready[0])

    assert loss.item() == pytest.approx(state.history[0].metrics["train/loss"], rel=1e-6)
    after = twin.model.state_dict()
    for name, tensor in task.model.state_dict().items():
        torch.testing.assert_close(after[name], tensor, msg=lambda found, name=name: f"{name}: {found}")
