"""What a user gets wrong costs them one sentence, never a traceback or a run that stays RUNNING."""

import shutil
import zipfile

import pytest


def truncated(tmp_path, phantoms):
    folder = tmp_path / "data"
    shutil.copytree(phantoms, folder)
    (folder / "3.mat").write_bytes((folder / "3.mat").read_bytes()[:900])
    return folder


def something_else(tmp_path, phantoms):
    path = tmp_path / "holiday.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("letter.txt", "Dear all")
    return path


def no_zip(tmp_path, phantoms):
    path = tmp_path / "broken.zip"
    path.write_bytes(b"PK\3\4 and then nothing")
    return path


def missing(tmp_path, phantoms):
    return tmp_path / "nowhere"


MISTAKES = {truncated: "3.mat: truncated", something_else: "holiday.zip: holds no slice", no_zip: "broken.zip: damaged"}
MISTAKES |= {missing: "nowhere: no such folder"}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_unusable_data(place, tmp_path, phantoms, mistake):
    data = mistake(tmp_path, phantoms)
    code, said = place.run("sslbt", "prepare", "--data", data)
    assert code == 2
    assert MISTAKES[mistake] in said
    assert "Traceback" not in said
    assert not place.runs("attributes.status = 'RUNNING'")
    assert not list((tmp_path / "home").glob("cache*")), "nothing half-read stays"


def test_mlflow_run_ends_its_run_too(place, tmp_path):
    code, said = place.mlflow_run("-e", "finetune", "-P", f"data={tmp_path}/nowhere")
    assert code != 0
    assert "nowhere: no such folder" in said
    assert [run.info.status for run in place.runs()] == ["FAILED"]


def test_a_failing_step_fails_main(place, tmp_path, phantoms):
    words = ["--preset", "tiny", "--num-pairs", 32, "--labels", 12000]
    code, said = place.run("sslbt", "main", "--data", phantoms, *words)
    assert code != 0
    assert "labels=12000: 12000 slices; the training part has" in said
    assert "finetune failed, see above" in said
    assert {run.info.status for run in place.runs()} == {"FINISHED", "FAILED"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["finetune", "--pretrained", "0" * 32], "0" * 32 + ": no such run in sqlite"),
        (["finetune", "--pretrained", "nonsense"], "nonsense: neither a checkpoint file, a run id"),
        (["evaluate", "--model", "0" * 32], "no such run"),
        (["register", "--run", "0" * 32], "no such run"),
        (["register"], "run evaluate first"),
        (["score", "--input", "1.mat"], "brain-tumor-classifier: no champion in sqlite"),
        (["score", "--input", "1.mat", "--model", "gone.onnx"], "gone.onnx: no such file"),
        (["serve", "--model", "models:/nobody@champion"], "nobody: no champion in sqlite"),
    ],
)
def test_unknown_models(place, phantoms, words, sentence):
    data = ["--data", phantoms] if words[0] in ("finetune", "evaluate") else []
    code, said = place.run("sslbt", *words, *data)
    assert code == 2
    assert sentence in said
    assert "Traceback" not in said
    assert not place.runs("attributes.status = 'RUNNING'")


def test_a_checkpoint_that_saw_test_patients_is_refused(place, phantoms):
    tiny = ["--data", phantoms, "--preset", "tiny"]
    assert place.run("sslbt", "pretrain-encoder", *tiny, "--split", "patient:2")[0] == 0
    (run,) = place.runs("tags.stage = 'pretrain-encoder'")
    code, said = place.run("sslbt", "finetune", *tiny, "--pretrained", run.info.run_id)
    assert code == 2
    assert "it has learnt from" in said
    code, said = place.run("sslbt", "finetune", *tiny, "--split", "patient:2")
    assert code == 0, said
    (run,) = place.runs("tags.stage = 'finetune' and attributes.status = 'FINISHED'")
    code, said = place.run("sslbt", "evaluate", "--data", phantoms, "--model", run.info.run_id)
    assert code == 2
    assert "it has learnt from" in said


def test_a_random_split_warns_of_its_leak(place, phantoms):
    code, said = place.run("sslbt", "prepare", "--data", phantoms, "--split", "slices")
    assert code == 0
    assert "WARNING: split=slices puts slices of one patient on both sides" in said
    assert "both sides" in place.runs()[0].data.tags["warning"]
