"""A sweep that is killed goes on where it was: the same run, the same trials, none twice."""

import signal

import pandas as pd

EPOCHS = 4


def until(process, beginning):
    for line in process.stdout:
        if line.startswith(beginning):
            return
    raise AssertionError(f"it ended before {beginning}")


def test_killed_in_its_second_trial_the_same_command_ends_with_each_trial_once(place, phantoms):
    words = ["sslbt", "sweep", "--data", phantoms, "--preset", "tiny", "--stage", "finetune", "--trials", "3"]
    words += ["--search", "learning_rate=1e-4..1e-2 log, batch=8|16", "--fixed"]
    words += [f"labels=5p, epochs={EPOCHS}"]
    sweeping = place.start(*words)
    until(sweeping, "--- trial 2 of 3")
    until(sweeping, "epoch 2/")
    place.stop(sweeping, signal.SIGKILL)
    (before,) = place.runs("tags.stage = 'sweep'")
    begun = {run.data.tags["trial"]: run.info for run in place.runs("tags.stage = 'finetune'")}
    assert begun.keys() == {"1", "2"}
    assert begun["2"].status == "RUNNING"

    code, said = place.run(*words)
    assert code == 0, said
    assert f"continuing run {before.info.run_id}" in said
    assert f"continuing run {begun['2'].run_id}" in said
    assert "--- trial 1 of 3" not in said
    assert "--- trial 2 of 3" in said
    assert "continuing after epoch" in said
    assert "\n3 trials: 3 finished, 0 pruned, 0 failed\n" in said
    assert f"sslbt evaluate --data {phantoms} --model " in said

    (sweep,) = place.runs("tags.stage = 'sweep'")
    assert sweep.info.run_id == before.info.run_id
    children = {run.data.tags["trial"]: run for run in place.runs("tags.stage = 'finetune'")}
    assert len(place.runs()) == 4
    assert {number: run.info.run_id for number, run in children.items()}.items() >= {
        number: info.run_id for number, info in begun.items()
    }.items()
    for run in (sweep, *children.values()):
        assert run.info.status == "FINISHED"
    for run in children.values():
        assert run.data.tags["mlflow.parentRunId"] == sweep.info.run_id
        assert run.info.run_name.startswith("learning_rate ")
        losses = place.client.get_metric_history(run.info.run_id, "train/loss")
        assert [point.step for point in losses] == list(range(EPOCHS)), "a gap, or an epoch twice"
    trials = pd.read_csv(place.client.download_artifacts(sweep.info.run_id, "trials.csv"))
    scores = [children[str(i)].data.metrics["validation/balanced_accuracy"] for i in (1, 2, 3)]
    assert trials.score.tolist() == scores
    assert sweep.data.metrics["sweep/best_score"] == max(scores)
    assert not [path for path in (place.folder / "home" / "unfinished").iterdir() if path.suffix != ".lock"]


def test_a_mistake_in_what_is_searched_is_said_before_a_run_is_begun(place, phantoms):
    code, said = place.run("sslbt", "sweep", "--data", phantoms, "--search", "learnin_rate=1e-4..1e-2")
    assert code == 2
    assert said == "sslbt: learnin_rate: no such parameter; did you mean learning_rate?\n"
    assert not (place.folder / "mlflow.db").exists()
