"""What `main` asks of the trainings it starts."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from sslbt.config import STAGES, Finetune, Main, PretrainContrastive, PretrainEncoder
from sslbt.parameters import Config
from sslbt.steps import main as under_test
from sslbt.tracking.resume import unfinished
from sslbt.tracking.run import Silent


class _Enough(Exception):
    pass


class _Run:
    id = "parent"

    def describe(self, name: str, **tags: object) -> None:
        pass


def asked(monkeypatch: pytest.MonkeyPatch, **given: object) -> list[Config]:
    """The parameters of all steps before the first evaluation."""
    built: list[Config] = []

    class Told:
        def __init__(self, run: object) -> None:
            pass

        def do(self, stage: str, way: str = "", **parameters: object) -> str:
            if stage == "evaluate":
                raise _Enough
            built.append(STAGES[stage].build(**parameters))
            return f"run {len(built)}"

    monkeypatch.setattr(under_test, "Steps", Told)
    with pytest.raises(_Enough):
        under_test.main(Main.build(**given), _Run())  # type: ignore[arg-type]
    return built


def test_the_origins_recipe_reaches_every_training(monkeypatch):
    built = asked(monkeypatch, preset="origin", split="slices", labels="123")
    _, encoder, contrastive, *finetunings = built
    assert isinstance(encoder, PretrainEncoder)
    assert isinstance(contrastive, PretrainContrastive)
    assert (encoder.size, encoder.epochs, contrastive.epochs) == (96, 20, 10)
    assert [96 * share**0.5 for share in (encoder.mask_min, encoder.mask_max)] == pytest.approx([5, 29], abs=0.02)
    assert (contrastive.pairs, contrastive.num_pairs, contrastive.loss) == ("label", 2000, "margin")
    assert len(finetunings) == 3
    for training in (encoder, contrastive, *finetunings):
        assert training.split == "slices"
        assert (training.learning_rate, training.schedule, training.weight_decay) == (1e-3, "constant", 0)
    for training in finetunings:
        assert isinstance(training, Finetune)
        assert (training.epochs, training.labels) == (10, "123")
        assert (training.learn_from, training.freeze) == ("labels", "none")


def test_pairs_are_the_presets_unless_given(monkeypatch):
    def pairs(**given: object) -> tuple[str, int]:
        (contrastive,) = (step for step in asked(monkeypatch, **given) if isinstance(step, PretrainContrastive))
        return contrastive.pairs, contrastive.num_pairs

    assert pairs() == ("patient", 2000)
    assert pairs(preset="origin", pairs="views", num_pairs=9) == ("views", 9)


@pytest.mark.parametrize(("split", "whose"), [("patient", "unseen patients"), ("slices", "patients that training saw")])
def test_it_says_whose_figures_these_are(split, whose, capsys):
    figures = dict.fromkeys(["accuracy", "macro_auroc", under_test.HEADLINE], 0.5)
    figures |= {f"{name}{end}": 0.5 for name in ("accuracy", under_test.HEADLINE) for end in under_test.INTERVAL}
    table = pd.DataFrame([{"name": "contrastive way", "control": False} | figures])
    under_test.show(table, Main.build(split=split, data="sample:12"), Silent("", Path("nowhere")))
    said = capsys.readouterr().out
    assert f"split {split}, synthetic phantoms; {whose}" in said
    assert ("unseen" in said) == (split == "patient")


class _Registry:
    """A store without runs, in which a step takes a while and leaves a finished run."""

    def __init__(self) -> None:
        self.finished: list[SimpleNamespace] = []
        self.started: list[str] = []

    def search_runs(self, *_: object, **__: object) -> list[SimpleNamespace]:
        return list(self.finished)

    def run(self, uri: str, stage: str, **_: object) -> SimpleNamespace:
        self.started.append(stage)
        time.sleep(0.5)
        run_id = f"run {len(self.started)}"
        self.finished.append(SimpleNamespace(info=SimpleNamespace(run_id=run_id, run_name=stage)))
        return SimpleNamespace(run_id=run_id)


@pytest.fixture
def no_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> _Registry:
    store = _Registry()
    monkeypatch.setenv("SSLBT_HOME", str(tmp_path))
    monkeypatch.setattr(under_test, "get_run", lambda _: SimpleNamespace(info=SimpleNamespace(experiment_id="0")))
    monkeypatch.setattr(under_test, "step_key", lambda _: "key")
    monkeypatch.setattr(under_test, "interrupted_run", lambda _: None)
    monkeypatch.setattr(under_test.mlflow, "search_runs", store.search_runs)
    monkeypatch.setattr(under_test.mlflow.projects, "run", store.run)
    return store


@pytest.mark.parametrize("stage", ["prepare", "pretrain-encoder"])
def test_of_several_that_come_to_a_step_at_once_one_does_it(no_runs: _Registry, stage: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: under_test.Steps(_Run()).do(stage), range(4)))  # type: ignore[arg-type]
    assert no_runs.started == [stage]
    assert found == ["run 1"] * 4


def test_a_training_that_is_under_way_by_hand_is_waited_for(
    no_runs: _Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sslbt.waiting.SILENT", 0.1)
    with ThreadPoolExecutor(1) as pool:
        with unfinished("key"):
            asked = pool.submit(under_test.Steps(_Run()).do, "pretrain-encoder")  # type: ignore[arg-type]
            time.sleep(0.5)
            no_runs.finished.append(SimpleNamespace(info=SimpleNamespace(run_id="by hand", run_name="")))
        assert asked.result() == "by hand"
    assert no_runs.started == []
    assert "waiting for another process to finish the same training" in capsys.readouterr().err
