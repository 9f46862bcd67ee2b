"""What people call models, and the files these are."""

from pathlib import Path

import mlflow
import pytest

from sslbt.errors import UserError
from sslbt.tracking import models
from sslbt.tracking.models import CLASSIFIER, ENCODER, ONNX, RELEASED, checkpoint_file, onnx_file


@pytest.fixture
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the one that comes with sslbt, empty; the current folder is elsewhere."""
    folder = tmp_path / "package" / "released"
    folder.mkdir(parents=True)
    monkeypatch.setattr(models, "RELEASED_FOLDER", folder)
    monkeypatch.chdir(tmp_path)
    return folder


def asked(path: str) -> Path:
    return onnx_file(RELEASED) if path == ONNX else checkpoint_file(RELEASED, path)


@pytest.mark.parametrize("path", [ENCODER, CLASSIFIER, ONNX])
def test_released_is_what_comes_with_sslbt_whatever_lies_around(released: Path, path: str) -> None:
    (Path.cwd() / RELEASED).write_text("a file of this name")
    own = released / path.split("/")[1]
    own.write_text("weights")
    assert asked(path) == own


@pytest.mark.parametrize("path", [ENCODER, CLASSIFIER, ONNX])
def test_released_without_its_files_says_which_and_what_to_do(released: Path, path: str) -> None:
    name = path.split("/")[1]
    with pytest.raises(UserError, match=rf"^released: .*{name} is missing, .*; install sslbt from the whole"):
        asked(path)


def test_a_file_is_itself(tmp_path: Path) -> None:
    file = tmp_path / "some.file"
    file.touch()
    assert checkpoint_file(str(file), ENCODER) == onnx_file(str(file)) == file


def test_a_run_is_its_artifact(experiment: str) -> None:
    with mlflow.start_run() as run:
        for path in (ENCODER, ONNX):
            mlflow.log_text(f"of {path}", path)
    assert checkpoint_file(run.info.run_id, ENCODER).read_text() == f"of {ENCODER}"
    assert onnx_file(run.info.run_id).read_text() == f"of {ONNX}"
    with pytest.raises(UserError, match=rf"the run \({run.info.run_name}\) has no {CLASSIFIER}"):
        checkpoint_file(run.info.run_id, CLASSIFIER)


@pytest.mark.parametrize("name", ["gone.onnx", "releasd", "a/b.safetensors"])
def test_anything_else_is_refused_with_what_there_could_be(name: str) -> None:
    with pytest.raises(UserError, match=rf"^{name}: neither a checkpoint file, a run id .* nor released"):
        checkpoint_file(name, ENCODER)
    with pytest.raises(UserError, match=rf"^{name}: no such file, run id or registry address .* nor released"):
        onnx_file(name)
