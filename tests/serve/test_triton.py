"""The model repository as Triton itself reads its configuration, beside what the ONNX file does."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import yaml
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig
from tritonclient.utils import triton_to_np_dtype

from serve import triton
from serve.session import Classifier
from sslbt.cli import main
from sslbt.errors import UserError
from sslbt.tracking.models import RELEASED, RELEASED_FOLDER

NAME = "brain-tumor-classifier"
CLASSIFIER = RELEASED_FOLDER / "classifier.onnx"
Write = Callable[..., Path]


@pytest.fixture
def metadata(classifier: Classifier) -> dict[str, str]:
    """Of the stand-in for a classifier."""
    return classifier.metadata


def configuration(place: Path) -> ModelConfig:
    return text_format.Parse((place / "config.pbtxt").read_text(), ModelConfig())


def test_the_configuration_says_what_the_file_does(tmp_path: Path) -> None:
    assert main(["layout", "--model", RELEASED, "--output", str(tmp_path)]) == 0
    place = tmp_path / NAME
    told = configuration(place)
    assert (told.name, told.platform) == (NAME, "onnxruntime_onnx")
    assert told.HasField("dynamic_batching")
    session = onnxruntime.InferenceSession(place / "1/model.onnx")
    assert [own.name for own in told.input] == [own.name for own in session.get_inputs()] == ["image"]
    assert list(told.input[0].dims) == [-1, -1]
    kind = triton_to_np_dtype(DataType.Name(told.input[0].data_type).removeprefix("TYPE_"))
    for size in (1, 3, told.max_batch_size):  # what Triton may put together
        given = np.random.default_rng(0).random((size, 48, 40)).astype(kind)
        answers = session.run([own.name for own in told.output], {"image": given})
        for own, found in zip(told.output, answers, strict=True):
            shape = own.reshape.shape if own.HasField("reshape") else own.dims
            assert found.shape == (size, *shape), own.name
            assert np.prod(own.dims) == np.prod(found.shape[1:]), own.name
            assert found.dtype == triton_to_np_dtype(DataType.Name(own.data_type).removeprefix("TYPE_")), own.name
    named = {own.name: own.label_filename for own in told.output if own.label_filename}
    assert named == {"probabilities": "labels.txt"}
    classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
    assert (place / "labels.txt").read_text().split("\n") == [*classes, ""]


def test_maps_that_only_some_pictures_have_are_not_promised(tmp_path: Path) -> None:
    """Triton wants a row a picture in whatever it gives; `saliency` has none unless `explain` is given."""
    assert Classifier.load(CLASSIFIER).explains
    triton.write(CLASSIFIER, tmp_path, "m")
    told = configuration(tmp_path / "m")
    assert [own.name for own in told.input] == ["image"]
    assert "probabilities" in {own.name for own in told.output}
    assert "saliency" not in {own.name for own in told.output}


def test_versions_rise_and_nothing_is_overwritten(tmp_path: Path, write_tiny: Write, metadata: dict[str, str]) -> None:
    one, two = (write_tiny(tmp_path / f"{run}.onnx", metadata | {"run_id": run * 32}) for run in "ab")
    repository = tmp_path / "repository"
    numbers = [triton.write(model, repository, NAME) for model in (one, one, two, two, one)]
    assert numbers == ["1", "1", "2", "2", "3"]  # the last is a way back: Triton serves the highest number
    found = {path.name: (path / "model.onnx").read_bytes() for path in (repository / NAME).iterdir() if path.is_dir()}
    assert found == {"1": one.read_bytes(), "2": two.read_bytes(), "3": one.read_bytes()}
    assert triton.write(one, repository, "another") == "1"


def test_ten_comes_after_nine(tmp_path: Path, write_tiny: Write) -> None:
    model = write_tiny(tmp_path / "a.onnx")
    triton.write(model, tmp_path, NAME)
    for number in ("9", "10"):
        shutil.copytree(tmp_path / NAME / "1", tmp_path / NAME / number)
    (tmp_path / NAME / "10/model.onnx").write_bytes(b"another")
    assert triton.write(model, tmp_path, NAME) == "11"


def test_a_model_of_other_classes_is_refused_and_leaves_all_as_it_was(
    tmp_path: Path, write_tiny: Write, metadata: dict[str, str]
) -> None:
    repository = tmp_path / "repository"
    triton.write(write_tiny(tmp_path / "a.onnx"), repository, NAME)
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    other = write_tiny(tmp_path / "b.onnx", metadata | {"classes": json.dumps(["one", "two", "three"])})
    with pytest.raises(UserError, match=r"labels\.txt is of a model with other classes or outputs; choose another"):
        triton.write(other, repository, NAME)
    assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == before


def test_a_version_appears_whole_or_not_at_all(
    tmp_path: Path, write_tiny: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_tiny(tmp_path / "a.onnx")

    def full(source: Path, target: Path) -> None:
        Path(target).write_bytes(Path(source).read_bytes()[:100])
        raise OSError(28, "No space left on device", str(target))

    with monkeypatch.context() as disk:
        disk.setattr(triton.shutil, "copyfile", full)
        with pytest.raises(OSError, match="No space left"):
            triton.write(model, tmp_path, NAME)
    assert not [path for path in (tmp_path / NAME).iterdir() if path.name.isdecimal()]
    assert triton.write(model, tmp_path, NAME) == "1"
    assert sorted(path.name for path in (tmp_path / NAME).iterdir()) == ["1", "config.pbtxt", "labels.txt"]


def test_kserve_gets_a_resource_with_a_name_that_it_takes(tmp_path: Path, write_tiny: Write) -> None:
    triton.write(write_tiny(tmp_path / "a.onnx"), tmp_path, "Our classifier_v2.")
    told = yaml.safe_load((tmp_path / "inference-service.yaml").read_text())
    assert (told["apiVersion"], told["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert told["metadata"] == {"name": "our-classifier-v2"}
    model = told["spec"]["predictor"]["model"]
    assert model["modelFormat"] == {"name": "onnx"}
    assert (model["protocolVersion"], model["runtime"]) == ("v2", "kserve-tritonserver")
    assert configuration(tmp_path / "Our classifier_v2.").name == "Our classifier_v2."
