"""From a model back to its data: what the store knows, what a file says of itself, and what nobody knows."""

import mlflow
import pytest
from mlflow import MlflowClient

from sslbt.cli import main
from sslbt.errors import UserError
from sslbt.tracking import registry
from sslbt.tracking.lineage import lineage
from sslbt.tracking.models import RELEASED_FOLDER

NAME = "brain-tumor-classifier"
DATA = {"data_digest": "d1", "split_hash": "s1", "code_version": "c1", "split": "patient"}


def run(stage: str, pretrained: str = "", **tags: str) -> str:
    with mlflow.start_run(run_name=stage, tags=DATA | tags | {"stage": stage}) as started:
        if pretrained:
            mlflow.log_param("config/pretrained", pretrained)
    return started.info.run_id


@pytest.fixture
def chain(experiment: str, store: MlflowClient, request: pytest.FixtureRequest) -> dict[str, str]:
    """Run ids from pretraining to a registered version, under a name of this test's own."""
    ids = {"pretraining": run("pretrain-contrastive")}
    ids["classifier"] = run("finetune", ids["pretraining"], labels="12")
    ids["evaluation"] = run("evaluate", classifier=ids["classifier"])
    ids["register"] = run("register", classifier=ids["classifier"], evaluation=ids["evaluation"])
    ids["name"] = name = f"{NAME} {request.node.name}"
    store.create_registered_model(name)
    version = store.create_model_version(name, "file:///nowhere", run_id=ids["register"])
    registry.tag(version, classifier=ids["classifier"], evaluation=ids["evaluation"], decision="the first")
    store.set_registered_model_alias(name, "champion", version.version)
    return ids


def test_every_end_leads_to_the_same_chain(chain: dict[str, str]) -> None:
    found = lineage(f"models:/{chain['name']}@champion")
    assert list(found) == ["model version", "evaluation", "classifier", "pretraining"]
    assert (
        found["model version"] | {"aliases": "champion", "registered by run": chain["register"]}
        == (found["model version"])
    )
    assert found["classifier"] | DATA | {"labels": "12", "pretrained": chain["pretraining"]} == found["classifier"]
    assert found["classifier"]["checkpoint"] == f"runs:/{chain['classifier']}/checkpoint/classifier.safetensors"
    for step in ("evaluation", "classifier", "pretraining"):
        assert found[step]["run"] == chain[step]
    for end in (f"models:/{chain['name']}/1", *(chain[step] for step in ("classifier", "evaluation", "register"))):
        assert lineage(end) == found
    assert lineage(chain["pretraining"]) == {"pretraining": found["pretraining"]}


def test_a_classifier_that_starts_from_scratch_has_no_pretraining(experiment: str) -> None:
    own = run("finetune", "none")
    assert list(lineage(own)) == ["classifier"]


def test_released_weights_say_where_they_come_from_in_a_store_that_does_not_know_them(experiment: str) -> None:
    found = lineage("released")
    assert found["file"]["run_id"] == found["classifier"]["run"]
    assert "MLFLOW_TRACKING_URI" in found["classifier"]["where"]
    assert "figshare" in found["file"]["license"]


def test_the_file_of_an_encoder_leads_to_its_pretraining(experiment: str) -> None:
    found = lineage(str(RELEASED_FOLDER / "encoder.safetensors"))
    assert list(found) == ["file", "pretraining"]
    assert found["file"]["run_id"] == found["pretraining"]["run"] != lineage("released")["file"]["run_id"]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("models:/nothing@champion", "nothing: no champion in sqlite"),
        ("models:/nothing/3", "nothing: no version 3 in sqlite"),
        ("models:/", "no registry address"),
        ("0" * 32, "no such run"),
        ("no_such_file.onnx", "no such file, run id or registry address"),
    ],
)
def test_what_is_no_model(experiment: str, model: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lineage", model]) == 2
    assert said in capsys.readouterr().err


def test_a_run_that_makes_no_model(experiment: str) -> None:
    with pytest.raises(UserError, match="a run of prepare makes no model"):
        lineage(run("prepare"))
