"""Two processes with half a batch each come to what one comes to with the whole batch, but for rounding."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sslbt import parallel
from sslbt.training import checkpoint

sys.path.insert(0, str(Path(__file__).parent))

from shared import BATCH, NORMS, STEPS, TASKS, seeded

SCRIPT = Path(__file__).parent / "shared.py"


@dataclass
class Found:
    """What each process left, in the order of their numbers."""

    tensors: list[dict[str, Tensor]]
    about: list[dict[str, Any]]
    folder: Path

    def rows(self, name: str) -> Tensor:
        """Of the whole batch."""
        return torch.cat([own[name] for own in self.tensors])


def started(folder: Path, *before: str) -> subprocess.Popen:
    env = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    env |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *before, str(SCRIPT), str(folder)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Found]:
    """By the number of processes."""
    folders = {number: tmp_path_factory.mktemp(f"of-{number}") for number in (1, 2)}
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    processes = [started(folders[1]), started(folders[2], *torchrun)]
    for process in processes:
        said = process.communicate(timeout=240)[0]
        assert process.returncode == 0, said
    left = {}
    for number, folder in folders.items():
        loaded = [checkpoint.load(folder / f"rank-{rank}.safetensors") for rank in range(number)]
        left[number] = Found([tensors for tensors, _ in loaded], [about for _, about in loaded], folder)
    return left


@pytest.fixture
def alone(found: dict[int, Found]) -> Found:
    return found[1]


@pytest.fixture
def both(found: dict[int, Found]) -> Found:
    return found[2]


def test_every_process_knows_who_it_is(alone: Found, both: Found) -> None:
    assert [(about["rank"], about["size"]) for about in both.about] == [(0, 2), (1, 2)]
    assert [(about["rank"], about["size"]) for about in alone.about] == [(0, 1)]


def test_shares_make_up_the_whole_and_everybody_gathers_it(both: Found) -> None:
    whole = seeded((BATCH, 2), 0)
    assert torch.equal(both.rows("share"), whole)
    assert [len(own["share"]) for own in both.tensors] == [BATCH // 2] * 2
    assert all(torch.equal(own["gather"], whole) for own in both.tensors)


def test_the_mean_of_the_gradients_of_what_was_gathered_is_that_of_the_whole(both: Found) -> None:
    whole = seeded((BATCH, 2), 0).requires_grad_()
    (whole * seeded((BATCH, 2), 1)).square().sum().backward()
    # A process's gradient is of its own rows; divided by the number of processes, as averaging does, it is the whole's.
    torch.testing.assert_close(both.rows("gather.gradient") / 2, whole.grad)


def test_means_are_over_processes_and_what_the_first_reads_is_known_to_all(alone: Found, both: Found) -> None:
    assert [own["mean"].tolist() for own in both.tensors] == [[1.5, 10]] * 2
    assert alone.tensors[0]["mean"].tolist() == [1, 10]
    assert {about["first"] for about in [*alone.about, *both.about]} == {"b'of 0'"}
    assert {about["nothing"] for about in [*alone.about, *both.about]} == {None}


def test_a_batch_they_cannot_share_is_refused_by_all_in_one_sentence(alone: Found, both: Found) -> None:
    said = "batch=7: 2 processes can't share it; give a multiple of 2, and more data"
    assert [about["refusal"] for about in both.about] == [said] * 2
    assert alone.about[0]["refusal"] == ""


@pytest.mark.parametrize(
    ("wanted", "available", "size", "batch"), [(8, 100, 2, 8), (8, 7, 2, 6), (9, 5, 3, 3), (64, 3, 1, 3), (4, 4, 4, 4)]
)
def test_a_batch_is_what_was_wanted_or_all_there_are_in_equal_shares(
    monkeypatch: pytest.MonkeyPatch, wanted: int, available: int, size: int, batch: int
) -> None:
    monkeypatch.setattr(parallel, "size", lambda: size)
    assert parallel.shared_batch(wanted, available) == batch


def test_alone_everything_is_as_it_was() -> None:
    rows = torch.rand(4, 2, requires_grad=True)
    assert parallel.share(rows).data_ptr() == parallel.gather(rows).data_ptr() == rows.data_ptr()
    assert np.array_equal(parallel.share(np.arange(3)), [0, 1, 2])


@pytest.mark.parametrize("name", NORMS)
def test_batch_normalisation_is_torch_s_of_the_whole_batch(alone: Found, both: Found, name: str) -> None:
    make, shape = NORMS[name]
    norm = make(shape[1])
    for step in range(2):
        whole = (50 + (1 + step) * seeded(shape, 0)).requires_grad_()
        norm.zero_grad()
        out = norm(whole)
        (out * seeded(shape, 1)).sum().backward()
    assert {about[name] for about in both.about} == {"SyncedBatchNorm"}
    assert alone.about[0][name] == type(norm).__name__
    tight = {"rtol": 1e-4, "atol": 2e-5}
    torch.testing.assert_close(both.rows(f"{name}/out"), out, **tight)
    torch.testing.assert_close(both.rows(f"{name}/in.gradient"), whole.grad, **tight)
    for weight, tensor in norm.named_parameters():
        gradients = sum(own[f"{name}/{weight}.gradient"] for own in both.tensors)
        torch.testing.assert_close(gradients, tensor.grad, **tight)
    for buffer, tensor in norm.named_buffers():
        for own in both.tensors:
            torch.testing.assert_close(own[f"{name}/{buffer}"], tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", TASKS)
def test_two_processes_train_to_the_weights_and_losses_of_one(alone: Found, both: Found, name: str) -> None:
    losses = [about[f"{name} losses"] for about in [*alone.about, *both.about]]
    assert [len(own) for own in losses] == [STEPS] * 3
    assert losses[1] == losses[2]
    assert losses[1] == pytest.approx(losses[0], rel=1e-8)
    weights = [key for key in alone.tensors[0] if key.startswith(f"{name}/")]
    assert weights
    for key in weights:
        assert torch.equal(both.tensors[0][key], both.tensors[1][key]), key
        torch.testing.assert_close(both.tensors[0][key], alone.tensors[0][key], rtol=0, atol=1e-8, msg=key)
    assert sorted(os.listdir(both.folder / name)) == ["last.safetensors"]


def test_asked_of_one_process_all_stop_at_that_step_and_the_first_writes(alone: Found, both: Found) -> None:
    # Asked once the first step was told of: the second is the last, and is not told of.
    assert [about["stopped after"] for about in [*alone.about, *both.about]] == [1, 1, 1]
    assert [about["left"] for about in both.about] == [["last.safetensors"], []]


def test_all_continue_from_the_checkpoint_of_the_first(alone: Found, both: Found) -> None:
    assert [about["continued for"] for about in both.about] == [2 * STEPS - 2] * 2
    weights = [key for key in alone.tensors[0] if key.startswith("continued/")]
    for key in weights:
        assert torch.equal(both.tensors[0][key], both.tensors[1][key]), key
        torch.testing.assert_close(both.tensors[0][key], alone.tensors[0][key], rtol=0, atol=1e-8, msg=key)
