"""The command a report shows is read back as the very configuration of the run."""

import shlex

import mlflow
import pytest

from sslbt.cli import parse
from sslbt.config import STAGES
from sslbt.tracking.repeat import command
from sslbt.tracking.run import CONFIG

GIVEN = {
    "pretrain-contrastive": {"data": "~/my slices", "epochs": 7, "temperature": 0.1},
    "finetune": {"preset": "standard", "labels": "123", "freeze": "all", "pretrained": "a" * 32},
    "evaluate": {"model": "b" * 32, "split": "official:2"},
    "prepare": {},
}


@pytest.mark.parametrize("stage", GIVEN)
def test_the_command_means_the_same_run(experiment, stage):
    config = STAGES[stage].build(**GIVEN[stage])
    with mlflow.start_run() as run:
        mlflow.set_tag("stage", stage)
        mlflow.log_params({CONFIG + name: value for name, value in config.model_dump(mode="json").items()})
    words = shlex.split(command(run.info.run_id))
    assert words[0] == "sslbt"
    assert parse(words[1:]) == (stage, config)
    assert len(words) == 2 + 2 * len(GIVEN[stage])  # nothing that goes without saying


def test_no_run_no_command(experiment):
    assert command("0" * 32) == ""
    with mlflow.start_run() as run:
        pass
    assert command(run.info.run_id) == ""
