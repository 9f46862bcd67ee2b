"""A sweep of trainings that are only pretended: what is tried, given up, said, continued."""

import math
import os
import shutil
import signal

import mlflow
import pandas as pd
import pytest
import torch
from stores import client_of, tracking_at

from sslbt.config import Sweep
from sslbt.data.cache import prepare
from sslbt.data.phantom import make_sample
from sslbt.data.source import Source
from sslbt.errors import UserError
from sslbt.steps import sweep as step
from sslbt.tracking import holder, resume
from sslbt.tracking import run as tracking
from sslbt.training.loop import Schedule

EPOCHS = 6


class Pretended:
    """In place of the trainings: reports scores by epoch, remembers how far it is as a checkpoint would."""

    def __init__(self, score, metric="probe/score"):
        self.score, self.metric = score, metric
        self.seen = []  # (config, epochs trained), one entry a call
        self.interrupt = None  # (call, epoch) before which somebody presses Ctrl-C

    def __call__(self, config, run):
        run.describe("pretended", way="pretended")
        checkpoint = run.unfinished / "epochs"
        before = int(checkpoint.read_text()) if checkpoint.exists() else 0
        done = []
        self.seen.append((config, done))
        for epoch in range(config.epochs):
            if epoch >= before:
                if (len(self.seen), epoch) == self.interrupt:
                    raise KeyboardInterrupt
                done.append(epoch)
                run.unfinished.mkdir(parents=True, exist_ok=True)
                checkpoint.write_text(str(epoch + 1))
            value = self.score(config, epoch)
            run.metrics({self.metric: value, "train/loss": 1 / (epoch + 1)}, step=epoch, ended=1.6e9 + epoch)
        run.metrics({"test/balanced_accuracy": 1.0})


def near(config, epoch):
    """Best at a learning rate of 0.001, and better with every epoch."""
    return 0.9 - 0.2 * abs(math.log10(config.learning_rate) + 3) - 0.1 / (epoch + 1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return client_of(f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    make_sample(folder, patients=15, size=32)
    return folder


@pytest.fixture(scope="module")
def read_once(tmp_path_factory, data):
    """A folder like `SSLBT_HOME` in which the data have been prepared."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSLBT_HOME", str(home))
        prepare(Source(str(data)))
    return home


@pytest.fixture
def world(store, data, read_once, tmp_path, monkeypatch, request):
    """An experiment and a cache of this test's own."""
    shutil.copytree(read_once, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("SSLBT_HOME", str(tmp_path))
    monkeypatch.setattr(tracking, "SAMPLED_AFTER", 0.0)
    start = mlflow.start_run
    monkeypatch.setattr(mlflow, "start_run", lambda **given: start(**given | {"log_system_metrics": False}))
    with tracking_at(store.tracking_uri):
        yield World(store, mlflow.set_experiment(request.node.nodeid).experiment_id, data, tmp_path, monkeypatch)


class World:
    def __init__(self, store, experiment, data, home, monkeypatch):
        self.store, self.experiment, self.data, self.home = store, experiment, data, home
        self.monkeypatch = monkeypatch

    def sweep(self, pretended, **given):
        """Run a sweep as the command line does; its run."""
        stage = given.get("stage", "pretrain-contrastive")
        self.monkeypatch.setitem(step.STEPS, stage, pretended)
        given = {"search": "learning_rate=1e-5..1e-1 log", "trials": 6, "fixed": f"epochs={EPOCHS}"} | given
        config = Sweep.build(data=str(self.data), preset="tiny", **given)
        with tracking.start(config) as run:
            step.sweep(config, run)
        return self.store.get_run(run.id)

    def runs(self, stage="pretrain-contrastive"):
        """The runs of a stage, by the number of their trial."""
        found = self.store.search_runs([self.experiment], f"tags.stage = '{stage}'")
        return sorted(found, key=lambda run: (int(run.data.tags.get("trial", 0)), run.info.start_time))

    def trials(self, run):
        return pd.read_csv(self.store.download_artifacts(run.info.run_id, "trials.csv"))

    def journal(self):
        (path,) = (self.home / "sweeps").glob("*.journal")
        return path

    def left(self):
        """Checkpoints of trainings that did not finish."""
        return list((self.home / "unfinished").glob("*/*"))


def lines(trials):
    return trials[["trial", "state", "score", "learning_rate"]].to_numpy().tolist()


def test_trials_are_child_runs_that_can_be_told_apart_and_the_best_is_named(world, capsys):
    pretended = Pretended(near)
    sweep = world.sweep(pretended, trials=4)
    children = world.runs()
    assert [run.data.tags["trial"] for run in children] == ["1", "2", "3", "4"]
    for child, (config, epochs) in zip(children, pretended.seen, strict=True):
        assert child.info.status == "FINISHED"
        assert child.data.tags["mlflow.parentRunId"] == sweep.info.run_id
        assert child.info.run_name == f"learning_rate {config.learning_rate}"
        assert child.data.tags["way"] == "pretended"
        assert child.data.params["config/learning_rate"] == str(config.learning_rate)
        assert 1e-5 <= config.learning_rate <= 1e-1
        assert epochs == list(range(EPOCHS))
    assert len({run.data.tags["key"] for run in children}) == 4

    best = max(range(4), key=lambda i: near(pretended.seen[i][0], EPOCHS - 1))
    found = children[best]
    assert sweep.info.status == "FINISHED"
    assert sweep.info.run_name == "sweep pretrain-contrastive: learning_rate"
    assert sweep.data.tags["best_run"] == found.info.run_id
    assert sweep.data.tags["best_trial"] == str(best + 1)
    assert sweep.data.tags["best/learning_rate"] == found.data.params["config/learning_rate"]
    steady = near(pretended.seen[best][0], EPOCHS - 2)  # the median of the last three of ever better scores
    assert sweep.data.metrics["sweep/best_score"] == pytest.approx(steady)
    curve = [point.value for point in world.store.get_metric_history(sweep.info.run_id, "sweep/best_score")]
    assert curve == sorted(curve)
    assert len(curve) == 4
    assert {path.path for path in world.store.list_artifacts(sweep.info.run_id, "pictures")} == {"pictures/trials.png"}
    assert world.trials(sweep)["run"].tolist() == [run.info.run_id for run in children]
    said = capsys.readouterr()
    again = f"sslbt pretrain-contrastive --data {world.data} --preset tiny --epochs {EPOCHS} --learning-rate "
    assert again + found.data.params["config/learning_rate"] in said.out
    assert f"sslbt finetune --data {world.data} --preset tiny --pretrained {found.info.run_id}" in said.out
    assert "--- trial 4 of 4: learning_rate " in said.err


def test_what_is_poor_is_given_up_and_what_is_good_is_not(world, capsys):
    pretended = Pretended(near)
    sweep = world.sweep(pretended, trials=14)
    trials, children = world.trials(sweep), world.runs()
    assert (trials.state[:5] == "finished").all(), "too few to compare with"
    pruned = trials.state == "pruned"
    assert 2 <= pruned.sum() <= 9
    distance = (trials.learning_rate.map(math.log10) + 3).abs()
    assert distance[pruned].min() > distance[~pruned].nsmallest(3).max()
    assert trials.score.idxmax() == distance.idxmin()
    for given_up, child, (_, epochs) in zip(pruned, children, pretended.seen, strict=True):
        assert child.info.status == ("KILLED" if given_up else "FINISHED")
        assert child.data.tags.get("pruned") == ("true" if given_up else None)
        assert EPOCHS // 4 < len(epochs) < EPOCHS if given_up else len(epochs) == EPOCHS
    assert sweep.data.metrics["sweep/pruned"] == pruned.sum()
    assert not world.left()
    assert "is given up: half of the finished ones were better by then" in capsys.readouterr().err
    # The training by hand is a new one: main and the command line don't go on with what was given up.
    assert resume.interrupted_run(children[pruned.idxmax()].data.tags["key"]) is None


def test_trainings_of_different_lengths_are_not_compared_half_way(world):
    trials = world.trials(
        world.sweep(Pretended(near), trials=10, search="learning_rate=1e-5..1e-1 log, epochs=2..6", fixed="")
    )
    assert (trials.state == "finished").all()
    assert trials.epochs.nunique() > 2


@pytest.mark.parametrize("epoch", [0, 5])
def test_interrupted_it_goes_on_with_the_same_trial_and_ends_as_if_it_had_not_been(world, store, epoch, capsys):
    undisturbed = lines(world.trials(world.sweep(Pretended(near), trials=7)))
    mlflow.set_experiment(f"interrupted at {epoch}")
    world.experiment = mlflow.get_experiment_by_name(f"interrupted at {epoch}").experiment_id
    world.journal().unlink()

    stopped, resumed = Pretended(near), Pretended(near)
    stopped.interrupt = (3, epoch)
    with pytest.raises(KeyboardInterrupt):
        world.sweep(stopped, trials=7)
    (before,), children = world.runs("sweep"), world.runs()
    assert [run.info.status for run in (before, *children)] == ["KILLED", "FINISHED", "FINISHED", "KILLED"]
    # As kill -9 leaves it: nobody says that the runs are over, and half a line is written.
    for run in (before, children[2]):
        store.update_run(run.info.run_id, "RUNNING")
        store.set_tag(run.info.run_id, holder.TAG, f"{holder.HOST}.dead")
    with world.journal().open("a") as journal:
        journal.write('{"op_code":7,"worker_id":"4c7f')

    sweep = world.sweep(resumed, trials=7)
    assert sweep.info.run_id == before.info.run_id
    assert f"continuing run {before.info.run_id}" in capsys.readouterr().err
    assert lines(world.trials(sweep)) == undisturbed
    assert [run.data.tags["trial"] for run in world.runs()] == [str(i + 1) for i in range(7)], "none twice"
    assert world.runs()[2].info.run_id == children[2].info.run_id
    assert resumed.seen[0][1] == list(range(epoch, EPOCHS)), "its training went on after its last epoch"
    points = store.get_metric_history(children[2].info.run_id, "probe/score")
    assert [point.step for point in points] == list(range(EPOCHS))
    assert {run.info.status for run in world.runs()} <= {"FINISHED", "KILLED"}
    assert not world.left()


def test_a_signal_while_something_is_drawn_waits_until_the_training_would_begin_or_has_ended(world, capsys):
    class Drawing(Pretended):
        def __call__(self, config, run):
            if len(self.seen) == 1:
                os.kill(os.getpid(), signal.SIGTERM)
                drawn.append(config)
                run.report(Schedule(EPOCHS, 1, 0.1))
            super().__call__(config, run)
            if len(self.seen) == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    drawn, pretended = [], Drawing(near)
    with pytest.raises(KeyboardInterrupt):
        world.sweep(pretended, trials=4)
    assert len(drawn) == len(pretended.seen) == 1
    assert [run.info.status for run in (*world.runs("sweep"), *world.runs())] == ["KILLED", "FINISHED", "KILLED"]
    pretended.seen.append(())  # the one that was interrupted
    with pytest.raises(KeyboardInterrupt):
        world.sweep(pretended, trials=4)
    assert [run.info.status for run in (*world.runs("sweep"), *world.runs())] == ["KILLED", "FINISHED", "FINISHED"]
    assert world.sweep(pretended, trials=4).data.metrics["sweep/finished"] == 4


def test_trials_that_ended_but_were_not_noted_are_not_trained_again(world):
    first = world.sweep(Pretended(near), trials=8)
    known = world.trials(first)
    assert (known.state == "pruned").any()
    world.journal().unlink()
    again = Pretended(near)
    sweep = world.sweep(again, trials=8)
    assert again.seen == []
    pd.testing.assert_frame_equal(world.trials(sweep), known)
    assert len(world.runs()) == 8


def test_more_trials_later_extend_the_same_sweep_whose_trials_move_to_the_new_run(world):
    whole = Pretended(near)
    world.sweep(whole, trials=5)
    known = len(whole.seen)
    sweep = world.sweep(whole, trials=7)
    assert (known, len(whole.seen)) == (5, 7)
    assert len(world.runs("sweep")) == 2
    assert {run.data.tags["mlflow.parentRunId"] for run in world.runs()} == {sweep.info.run_id}
    assert len(world.store.get_metric_history(sweep.info.run_id, "sweep/best_score")) == 7
    assert world.sweep(whole, trials=7).data.metrics["sweep/best_score"] == sweep.data.metrics["sweep/best_score"]
    assert len(whole.seen) == 7, "nothing is left to do"


@pytest.mark.parametrize(
    "error",
    [UserError("the loss is nan in epoch 1; lower learning_rate"), torch.OutOfMemoryError("CUDA out of memory")],
)
def test_a_trial_that_fails_is_said_and_the_sweep_goes_on_elsewhere(world, capsys, error):
    def fails_above(config, epoch):
        if config.learning_rate > 1e-3 and epoch == 1:
            raise error
        return near(config, epoch)

    sweep = world.sweep(Pretended(fails_above), trials=12)
    trials = world.trials(sweep)
    failed = trials.state == "failed"
    assert (failed == (trials.learning_rate > 1e-3)).all()
    assert 0 < failed.sum() < 12
    assert trials.failed[failed].eq(str(error)).all()
    assert [run.info.status == "FAILED" for run in world.runs()] == failed.tolist()
    assert not world.left()
    said = capsys.readouterr().err
    assert said.count(f"failed: {str(error).split(';')[0]}\n") == failed.sum()


def test_where_all_fail_it_ends_soon_and_says_why(world):
    def fails(config, epoch):
        raise UserError("the loss is nan; lower learning_rate")

    pretended = Pretended(fails)
    with pytest.raises(UserError) as caught:
        world.sweep(pretended, trials=200)
    assert str(caught.value).startswith("all 5 trials failed, the last one since the loss is nan; change")
    assert len(pretended.seen) == 5
    assert world.runs("sweep")[0].info.status == "FAILED"


def test_without_any_score_it_says_what_is_missing(world):
    with pytest.raises(UserError, match="since no probe/score could be measured for want of validation patients"):
        world.sweep(Pretended(near, metric="another"), trials=1)


def test_few_combinations_are_all_tried_once(world, capsys):
    pretended = Pretended(near)
    sweep = world.sweep(pretended, search="learning_rate=1e-3|1e-2, width=8..24 step 8", trials=20)
    tried = [(config.learning_rate, config.width) for config, _ in pretended.seen]
    assert sorted(tried) == [(rate, width) for rate in (1e-3, 1e-2) for width in (8, 16, 24)]
    assert sweep.data.tags["best/learning_rate"] == "0.001"
    assert "there are 6 combinations to try, not 20" in capsys.readouterr().err


def test_values_that_do_not_fit_each_other_are_a_failed_trial(world):
    masks = "mask_min=0.1|0.5, mask_max=0.3|0.6"
    sweep = world.sweep(Pretended(near), stage="pretrain-encoder", search=masks)
    trials = world.trials(sweep)
    assert trials.state.value_counts().to_dict() == {"finished": 3, "failed": 1}
    assert trials[trials.state == "failed"].failed.tolist() == ["mask_max=0.3: mask_max must not be below mask_min=0.5"]
    assert len(world.runs("pretrain-encoder")) == 3


def test_a_fine_tuning_is_judged_by_its_last_epoch_a_pretraining_by_its_best(world):
    def peaks(config, epoch):
        return 0.5 - abs(epoch - 2) / 10

    both = {
        "finetune": Pretended(peaks, "validation/balanced_accuracy"),
        "pretrain-encoder": Pretended(peaks),
    }
    scores = {
        stage: world.trials(world.sweep(pretended, stage=stage, trials=1)).score[0] for stage, pretended in both.items()
    }
    assert scores == {"finetune": peaks(None, EPOCHS - 1), "pretrain-encoder": 0.4}  # the highest median of three


def test_the_number_of_trials_is_not_part_of_what_a_sweep_is(world, tmp_path):
    def key(**given):
        return tracking.step_key(Sweep.build(data=str(world.data), stage="finetune", **given))

    labels = tmp_path / "labels.csv"
    labels.write_text("file,class\n1.mat,glioma\n")
    first = key(fixed=f"labels={labels}")
    assert key(fixed=f"labels={labels}", trials=7) == first
    assert key(fixed="labels=12") != first
    assert key(fixed=f"labels={labels}", seed=1) != first
    assert key(fixed=f"labels={labels}", search="epochs=1|2") != first
    labels.write_text("file,class\n2.mat,glioma\n")
    assert key(fixed=f"labels={labels}") != first
