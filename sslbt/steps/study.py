"""A sweep's memory, by Optuna: which trials there were, what to try next, what to give up."""

import itertools
import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BruteForceSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from sslbt.search import Range, Space, Value

JUDGED_AFTER = 5  # finished trials

optuna.logging.set_verbosity(optuna.logging.WARNING)


def open_study(path: Path, pruner: BasePruner) -> optuna.Study:
    """The study of this file, a new one where there is none. Call it under a lock: nobody else is at it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():  # a process that was killed while it wrote left half a line
        with path.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
    storage = JournalStorage(JournalFileBackend(str(path), _Held()))  # type: ignore[arg-type]
    return optuna.create_study(
        storage=storage, study_name=path.stem, direction="maximize", load_if_exists=True, pruner=pruner
    )


def pruner_of(epochs: int | None) -> BasePruner:
    """Gives a trial up that has never been as good as half of the finished ones were at the same epoch.

    The median rule (Golovin et al. 2017), since a training here is looked at about twelve times, by few patients:
    successive halving would end most trials at the first, least certain looks, and Hyperband shares its trials out
    among brackets, of which each needs more than a whole sweep has. The first quarter of the epochs is warm-up and
    says little. Trainings of different lengths (None) can't be compared half way.
    """
    if epochs is None:
        return NopPruner()
    return MedianPruner(n_startup_trials=JUDGED_AFTER, n_warmup_steps=epochs // 4, n_min_trials=JUDGED_AFTER)


def trials(study: optuna.Study, space: Space, seed: int, wanted: int) -> Iterator[Trial]:
    """The trial that was under way, then new ones, until there are as many as wanted or nothing is left to try."""
    for trial in study.trials:
        if trial.state == TrialState.RUNNING:
            # Optuna has no public way to go on with a trial; a new one would not know what this one has reported.
            continued = Trial(study, trial._trial_id)
            for name, distribution in distributions(space).items():
                continued._suggest(name, distribution)
            yield continued
    for number in itertools.count(len(done(study))):
        if number >= min(wanted, combinations(space)):
            return
        if not any(trial.state == TrialState.WAITING for trial in study.trials):
            study.enqueue_trial(propose(study, space, seed))
        yield study.ask(distributions(space))


def propose(study: optuna.Study, space: Space, seed: int) -> dict[str, Value]:
    """Values that no trial had, by what the trials before say.

    They follow from the seed and those trials alone: an interrupted sweep tries what an uninterrupted one would.
    """
    known = [_as_poor_if_failed(trial) for trial in done(study)]
    own = np.random.SeedSequence((seed, len(known))).generate_state(1).item()
    samplers: list[optuna.samplers.BaseSampler] = [TPESampler(seed=own, multivariate=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if combinations(space) < math.inf:
            samplers.append(BruteForceSampler(seed=own))  # takes what is left where TPE comes to the same again
        for sampler in samplers:
            scratch = optuna.create_study(direction="maximize", sampler=sampler)
            scratch.add_trials(known)
            proposed = scratch.ask(distributions(space)).params
            values = {name: _tidy(value, space[name]) for name, value in proposed.items()}
            if values not in [trial.params for trial in known]:
                break
    return values


def done(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that have ended, well or not."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """What is searched, in Optuna's words."""
    found: dict[str, BaseDistribution] = {}
    for name, own in space.items():
        if not isinstance(own, Range):
            found[name] = CategoricalDistribution(own.values)
        elif isinstance(own.low, int):
            found[name] = IntDistribution(own.low, int(own.high), log=own.log, step=int(own.step or 1))
        else:
            found[name] = FloatDistribution(own.low, own.high, log=own.log, step=own.step)
    return found


def combinations(space: Space) -> float:
    """How many different trials there are."""
    return math.prod(
        len(own.values)
        if not isinstance(own, Range)
        else math.inf
        if own.step is None
        else round((own.high - own.low) / own.step) + 1
        for own in space.values()
    )


def _tidy(value: Value, own: object) -> Value:
    """Four digits are enough of what is drawn at random, and can be read; steps lose what adding them up added."""
    if not isinstance(own, Range) or not isinstance(value, float):
        return value
    return float(np.clip(float(f"{value:.4g}" if own.step is None else f"{value:.12g}"), own.low, own.high))


def _as_poor_if_failed(trial: FrozenTrial) -> FrozenTrial:
    """Optuna learns nothing from a failed trial, and would try its neighbours again and again."""
    if trial.state != TrialState.FAIL:
        return trial
    return create_trial(state=TrialState.PRUNED, params=trial.params, distributions=trial.distributions)


class _Held:
    """The sweep holds a lock of its own: Optuna's would outlive a killed process, which holds up the next one."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass
