"""MLproject and the command line hold the same names and defaults; wrong values get a sentence."""

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from pydantic_core import PydanticUndefined

from sslbt.cli import main, parse
from sslbt.config import STAGES, Finetune, PretrainEncoder, Training
from sslbt.errors import UserError
from sslbt.parameters import PRESETS, stage_of

ROOT = Path(__file__).parents[1]
PROJECT = yaml.safe_load((ROOT / "MLproject").read_text())


def test_mlproject_has_the_same_entry_points():
    assert PROJECT["entry_points"].keys() == STAGES.keys()
    assert [stage_of(config) for config in STAGES.values()] == list(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_mlproject_has_the_same_parameters_and_defaults(stage):
    fields = STAGES[stage].model_fields
    parameters = PROJECT["entry_points"][stage]["parameters"]
    assert list(parameters) == list(fields)
    for name, field in fields.items():
        if field.default is not PydanticUndefined:
            assert parameters[name]["default"].lower() == str(field.default).lower(), name
        elif name in ("model", "input", "runs", "pretrained"):
            assert parameters[name] == "string", f"{name} is required"
        else:
            assert parameters[name]["default"] == "", f"{name} comes from the preset"


@pytest.mark.parametrize("stage", STAGES)
def test_the_command_of_mlproject_is_understood_and_means_the_same(stage):
    about = PROJECT["entry_points"][stage]
    required = {"model": "m", "input": "i", "runs": "a b", "pretrained": "p"}
    values = {
        name: required.get(name, "") if own == "string" else own["default"] for name, own in about["parameters"].items()
    }
    words = [word.format(**values) for word in about["command"].split()]  # MLflow quotes values for the shell
    assert words[:3] == ["python", "-m", "sslbt"]
    given = {
        name: value for name, value in required.items() if name in STAGES[stage].model_fields and values[name] == value
    }
    assert parse(words[3:]) == (stage, STAGES[stage].build(**given))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_fits_every_training_and_names_nothing_unknown(preset):
    values = tomllib.loads((ROOT / "sslbt" / "presets" / f"{preset}.toml").read_text())
    trainings = {stage: config for stage, config in STAGES.items() if issubclass(config, Training)}
    assert values.keys() == {"all", *trainings}
    for stage, config in trainings.items():
        built = config.build(preset=preset)
        for name, value in values[stage].items():
            assert getattr(built, name) == value
    for name in values["all"]:
        assert any(name in config.model_fields for config in trainings.values())


def test_a_flag_overrides_the_preset_and_an_empty_one_does_not():
    assert parse(["finetune", "--epochs", "7"])[1].epochs == 7
    assert parse(["finetune", "--epochs", ""])[1].epochs == Finetune.build().epochs
    assert parse(["pretrain-contrastive", "--num_pairs", "9"])[1].num_pairs == 9
    assert parse(["pretrain-encoder", "--mask-min", "0.3"])[1] == PretrainEncoder.build(mask_min=0.3)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["finetune", "--epcohs", "3"], ["epcohs", "did you mean epochs"]),
        (["finetune", "--epochs", "many"], ["epochs=many", "integer"]),
        (["finetune", "--epochs", "0"], ["epochs=0", "greater than or equal to 1"]),
        (["finetune", "--split", "paitent"], ["split=paitent", "patient:1"]),
        (["finetune", "--split", "none"], ["split=none"]),
        (["evaluate", "--model", "m", "--split", "all"], ["split=all: it tests nobody", "split=none"]),
        (["main", "--split", "all"], ["split=all: it tests nobody"]),
        (["sweep", "--split", "all"], ["split=all: it tests nobody"]),
        (["finetune", "--preset", "quik"], ["preset=quik", "did you mean quick?"]),
        (["pretrain-contrastive", "--loss", "nt-xent"], ["loss=nt-xent", "did you mean ntxent?"]),
        (["pretrain-contrastive", "--pairs", "class"], ["pairs=class", "'patient', 'views' or 'label'"]),
        (["pretrain-encoder", "--size", "100"], ["size=100", "multiple of 16"]),
        (["pretrain-encoder", "--mask-min", "0.5", "--mask-max", "0.2"], ["mask_max=0.2", "below mask_min=0.5"]),
        (["evaluate"], ["model is missing"]),
        (["score", "--input", "x", "--output", "scores.xlsx"], ["output=scores.xlsx", ".csv or .parquet"]),
        (["evalute"], ["evalute", "evaluate"]),
        ([], ["NAME"]),
    ],
)
def test_a_mistake_is_named_with_its_remedy(words, parts):
    with pytest.raises(UserError) as caught:
        parse(words)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("stage", ["prepare", "suggest", "pretrain-encoder", "pretrain-contrastive", "finetune"])
def test_what_needs_no_test_may_take_all_patients(stage):
    more = ["--pretrained", "released"] if stage == "suggest" else []
    assert parse([stage, "--split", "all", *more])[1].split == "all"


def test_a_users_mistake_exits_with_2_and_no_traceback(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", "--data", str(tmp_path / "missing")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("sslbt: ")
    assert "missing: no such folder" in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir()), "no run is begun for it"


def test_the_rooms_know_only_whom_they_may():
    checked = subprocess.run([Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_nothing_is_named_like_the_project_file():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    parts = [part for name in tracked for part in name.split(os.sep) if part.lower().startswith("mlproject")]
    assert parts == ["MLproject"]


def test_pins_stand_in_one_file():
    pins = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    assert all("==" in pin for pin in pins if pin)
    environment = yaml.safe_load((ROOT / "conda.yaml").read_text())
    assert environment["dependencies"][-1] == {"pip": ["-r requirements.txt"]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["dependencies"]["file"] == "requirements.txt"
    assert "==" not in (ROOT / "Makefile").read_text() + (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_a_library_turns_into_another_error_is_one_still(tmp_path, number):
    # As where it comes while matplotlib draws: a callback's KeyboardInterrupt becomes a ValueError.
    script = f"""
import os, sys
import sslbt.cli, sslbt.steps.prepare

def drawing(cfg, run):
    try:
        os.kill(os.getpid(), {int(number)})
    except KeyboardInterrupt:
        raise ValueError("could not draw") from None

sslbt.steps.prepare.prepare = drawing
sys.exit(sslbt.cli.main(["prepare", "--data", "sample:12"]))
"""
    own = {"SSLBT_HOME": str(tmp_path), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    done = subprocess.run([sys.executable, "-c", script], env=os.environ | own, capture_output=True, text=True)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith("sslbt: interrupted; the same command continues where this one stopped\n")
    (run,) = MlflowClient(own["MLFLOW_TRACKING_URI"]).search_runs(["0"])
    assert run.info.status == "KILLED"
