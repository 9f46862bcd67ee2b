"""What a sweep searches is read as it was meant, or refused with a sentence before anything is begun."""

import pytest

from sslbt.config import Sweep
from sslbt.errors import UserError
from sslbt.search import Choices, Range, assignments


@pytest.mark.parametrize(
    ("text", "space"),
    [
        ("learning_rate=1e-4..1e-2 log", {"learning_rate": Range(1e-4, 1e-2, log=True)}),
        ("learning-rate = 1e-4 .. 1e-2", {"learning_rate": Range(1e-4, 1e-2)}),
        ("temperature=0.05..0.5", {"temperature": Range(0.05, 0.5)}),
        ("temperature=.1...5", {"temperature": Range(0.1, 0.5)}),
        ("temperature=0.1..0.5 step 0.2", {"temperature": Range(0.1, 0.5, 0.2)}),
        ("width=16..64 step 16", {"width": Range(16, 64, 16)}),
        ("width=16..56 step 16", {"width": Range(16, 48, 16)}),
        ("epochs=2..5", {"epochs": Range(2, 5, 1)}),
        ("epochs=1..100 log", {"epochs": Range(1, 100, 1, log=True)}),
        ("temperature=0.1|0.2|0.1", {"temperature": Choices((0.1, 0.2))}),
        ("width=16 | 32", {"width": Choices((16, 32))}),
        ("loss=ntxent|margin, compile=true|false", {"loss": Choices(("ntxent", "margin")), "compile": Choices((1, 0))}),
    ],
)
def test_ranges_and_choices_are_of_the_parameters_type(text, space):
    found = Sweep.build(search=text).space
    assert found == space
    for name, own in found.items():
        kind = type(getattr(Sweep.build(search=text).example(), name))
        assert {type(value) for value in (own.values if isinstance(own, Choices) else (own.low, own.high))} == {kind}


def test_parameters_that_limit_each_other_may_be_searched_together():
    masks = Sweep.build(stage="pretrain-encoder", search="mask_min=0.3..0.6, mask_max=0.6..0.9")
    assert masks.space == {"mask_min": Range(0.3, 0.6), "mask_max": Range(0.6, 0.9)}
    corners = Sweep.build(stage="pretrain-encoder", search="mask_min=0.3|0.05, mask_max=0.2|0.4").example()
    assert (corners.mask_min, corners.mask_max) == (0.05, 0.4)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"search": "learnin_rate=1e-4..1e-2"}, "learnin_rate: no such parameter; did you mean learning_rate?"),
        ({"search": "temperature=0.1|0.2", "stage": "finetune"}, "temperature: no such parameter; "),
        ({"search": "learning_rate=1e-4..20"}, "learning_rate=20: input should be less than or equal to 10"),
        ({"search": "learning_rate=0..1 log"}, "learning_rate=0: input should be greater than 0"),
        ({"search": "num_pairs=20..10 log"}, "search: num_pairs=20..10 log: the first end must be below the second"),
        ({"search": "epochs=1e2|5"}, "epochs=1e2: input should be a valid integer"),
        ({"search": "loss=ntxent|margn"}, "loss=margn: input should be 'ntxent' or 'margin'"),
        ({"search": "pairs=patient..views"}, "search: pairs=patient..views: pairs is no number; give choices"),
        ({"search": "width=16..64"}, "search: width=16..64 comes to width=17: input should be a multiple of 8"),
        ({"search": "width=8..64 log"}, "search: width=8..64 log comes to width=9: input should be a multiple of 8"),
        ({"search": "width=16..64 step 12"}, "search: width=16..64 step 12 comes to width=28"),
        ({"search": "width=16..64 step few"}, "search: width=16..64 step few: the step must be a number"),
        ({"search": "width=16..64 step 64"}, "search: width=16..64 step 64: the step must be above 0 and fit"),
        ({"search": "epochs=1..5 log step 2"}, "search: epochs=1..5 log step 2 is neither a range nor choices; give"),
        ({"search": "epochs=3"}, "one value belongs into fixed"),
        ({"search": "epochs"}, "search: 'epochs' is not of the form name=value"),
        ({"search": "=3"}, "search: '=3' is not of the form name=value"),
        ({"search": ","}, "search=,: nothing is searched; give a range"),
        ({"search": "epochs=1|2, epochs=3|4"}, "search: epochs stands there twice; leave one out"),
        ({"search": "epochs=1|2", "fixed": "epochs=3"}, "epochs is both searched and fixed; leave one out"),
        ({"search": "seed=1|2"}, "seed is the same in every trial; give it as --seed"),
        ({"fixed": "on_bad=skip"}, "on_bad is the same in every trial; give it as --on-bad"),
        ({"fixed": "epoch=3"}, "epoch: no such parameter; did you mean epochs?"),
        ({"fixed": "epochs=0"}, "epochs=0: input should be greater than or equal to 1"),
        ({"fixed": "labels=12"}, "labels: no such parameter; "),
        ({"stage": "evaluate"}, "stage=evaluate: input should be 'pretrain-contrastive'"),
        ({"trials": "0"}, "trials=0: input should be greater than or equal to 1"),
        ({"split": "none"}, "split=none: give "),
    ],
)
def test_a_mistake_is_refused_in_one_sentence(given, said):
    with pytest.raises(UserError) as caught:
        Sweep.build(**given)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_may_be_written_with_a_hyphen_as_on_the_command_line():
    assert assignments("learning-rate=1, num_pairs = 4,", "fixed") == {"learning_rate": "1", "num_pairs": "4"}


def test_a_trial_has_the_sweeps_own_parameters_the_fixed_ones_and_its_values():
    sweep = Sweep.build(data="sample:9", preset="tiny", seed=3, stage="finetune", fixed="labels=5p, freeze=all")
    trial = sweep.training(learning_rate=0.5)
    assert (trial.data, trial.preset, trial.seed, trial.split) == ("sample:9", "tiny", 3, "patient")
    assert (trial.labels, trial.freeze, trial.learning_rate, trial.width) == ("5p", "all", 0.5, 8)
