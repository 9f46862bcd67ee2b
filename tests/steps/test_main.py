"""What `main` asks of the trainings it starts."""

from pathlib import Path

import pandas as pd
import pytest

from sslbt.config import STAGES, Finetune, Main, PretrainContrastive, PretrainEncoder
from sslbt.parameters import Config
from sslbt.steps import main as under_test
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

        def do(self, stage: str, **parameters: object) -> str:
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
    under_test.show(table, Main.build(split=split), Silent("", Path("nowhere")))
    said = capsys.readouterr().out
    assert f"split {split}, synthetic phantoms; {whose}" in said
    assert ("unseen" in said) == (split == "patient")
