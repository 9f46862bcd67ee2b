import io

import numpy as np
import pandas as pd

from sslbt.evaluation import sweep_figure

TABLE = pd.DataFrame(
    {
        "trial": [1, 2, 3, 4, 5],
        "state": ["finished", "failed", "pruned", "finished", "finished"],
        "score": [0.4, np.nan, 0.9, 0.7, 0.6],
        "learning_rate": [1e-4, 1e-1, 1e-2, 1e-3, 2e-3],
        "loss": ["ntxent", "margin", "ntxent", "margin", "margin"],
        "freeze": [True, False, True, True, False],
    }
)


def test_scores_stand_by_trial_and_against_every_parameter_the_best_finished_one_marked() -> None:
    figure = sweep_figure.trials(TABLE, ["learning_rate", "loss", "freeze"], {"learning_rate"}, "probe/score")
    figure.savefig(io.BytesIO(), dpi=20)
    by_trial, rate, loss, freeze = figure.axes[:4]
    finished, pruned, best = (dots.get_offsets().tolist() for dots in by_trial.collections)
    assert (finished, pruned, best) == ([[1, 0.4], [4, 0.7], [5, 0.6]], [[3, 0.9]], [[4, 0.7]])
    assert by_trial.lines[0].get_xydata().tolist() == [[1, 0.4], [4, 0.7], [5, 0.7]], "the best so far"
    assert (rate.get_xscale(), loss.get_xscale()) == ("log", "linear")
    assert [label.get_text() for label in loss.get_xticklabels()] == ["margin", "ntxent"]
    assert [label.get_text() for label in freeze.get_xticklabels()] == ["False", "True"]
    assert loss.collections[2].get_offsets().tolist() == [[0, 0.7]]
    assert by_trial.get_ylabel() == "probe/score"
    assert figure.get_suptitle() == "5 trials, 1 of them failed"


def test_one_trial_is_enough_for_a_picture() -> None:
    sweep_figure.trials(TABLE.head(1), ["loss"], (), "probe/score").savefig(io.BytesIO(), dpi=20)
