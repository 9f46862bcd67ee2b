"""From a model back to everything it came from: version, evaluation, run, checkpoint, pretraining, data, code."""

import re

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from serve.session import Classifier
from sslbt.errors import UserError
from sslbt.tracking.models import CLASSIFIER, ENCODER, RUN_ID, onnx_file
from sslbt.tracking.registry import version
from sslbt.tracking.run import CONFIG
from sslbt.tracking.served import REGISTRY, parts
from sslbt.tracking.store import get_run
from sslbt.training.checkpoint import load

Facts = dict[str, str]
OF_A_RUN = ("data", "data_digest", "split", "split_hash", "labels", "way", "code_version")
OF_A_FILE = ("run_id", "version", "pretrained", "data_digest", "split_hash", "code_version", "license")
LEAVES = {"finetune": CLASSIFIER, "pretrain-encoder": ENCODER, "pretrain-contrastive": ENCODER}


def lineage(model: str) -> dict[str, Facts]:
    """What is known of a model, step by step back to its data.

    Args:
        model: a registry address, a run id (of fine-tuning, evaluation, registering or pretraining; the column
            `model_version` of scores is one), a checkpoint or `.onnx` file, or `released`.

    Returns:
        Facts by step: `model version` (several, with a number behind), `file`, `evaluation`, `classifier`,
        `pretraining`. What this store does not know says so.

    Raises:
        UserError: no such model.
    """
    if model.startswith(REGISTRY):
        own = _version(model)
        found = {"model version": _of_version(own)}
        return found | _of_classifier(own.tags.get("classifier", ""), own.tags.get("evaluation", ""))
    if re.fullmatch(RUN_ID, model):
        tags = get_run(model).data.tags
        if tags.get("stage") in ("evaluate", "register"):
            return _with_versions(tags.get("classifier", ""), tags.get("evaluation", "") or model)
        if tags.get("stage") == "finetune":
            return _with_versions(model)
        if tags.get("stage") in LEAVES:
            return {"pretraining": _of_run(model)}
        raise UserError(f"{model}: a run of {tags.get('stage', 'something else')} makes no model; give one that does")
    path = onnx_file(model)
    about = load(path)[1] if path.suffix == ".safetensors" else Classifier.load(path).metadata
    found = {"file": {"path": str(path)} | {name: str(about[name]) for name in OF_A_FILE if name in about}}
    if about.get("kind") == "encoder":
        return found | {"pretraining": _of_run(about["run_id"])}
    return found | _with_versions(about["run_id"])


def _version(address: str) -> ModelVersion:
    return version(*parts(address))


def _with_versions(classifier: str, evaluation: str = "") -> dict[str, Facts]:
    """The registry's versions of a classifier, and what it came from."""
    versions = MlflowClient().search_model_versions(f"tags.classifier = '{classifier}'") if classifier else []
    named = {f"model version {own.version}" if len(versions) > 1 else "model version": own for own in versions}
    evaluation = evaluation or next((own.tags.get("evaluation", "") for own in versions), "")
    return {title: _of_version(own) for title, own in named.items()} | _of_classifier(classifier, evaluation)


def _of_version(own: ModelVersion) -> Facts:
    aliases = MlflowClient().get_registered_model(own.name).aliases
    held = [name for name, number in aliases.items() if str(number) == str(own.version)]
    facts = {"name": own.name, "version": str(own.version), "aliases": ", ".join(held)}
    kept = {name: own.tags.get(name, "") for name in ("decision", "decided_by")}
    return facts | {"registered by run": own.run_id or ""} | kept


def _of_classifier(classifier: str, evaluation: str) -> dict[str, Facts]:
    found = {"evaluation": _of_run(evaluation)} if evaluation else {}
    if not classifier:
        return found
    found["classifier"] = own = _of_run(classifier)
    pretrained = own.get("pretrained", "")
    if re.fullmatch(RUN_ID, pretrained):
        found["pretraining"] = _of_run(pretrained)
    return found


def _of_run(run_id: str) -> Facts:
    try:
        run = get_run(run_id)
    except UserError:
        return {"run": run_id, "where": f"not in {mlflow.get_tracking_uri()}; MLFLOW_TRACKING_URI may name its store"}
    facts = {"run": run_id, "name": run.info.run_name, "status": run.info.status}
    facts |= {name: run.data.tags[name] for name in OF_A_RUN if name in run.data.tags}
    if pretrained := run.data.params.get(CONFIG + "pretrained"):
        facts["pretrained"] = pretrained
    if place := LEAVES.get(run.data.tags.get("stage", "")):
        facts["checkpoint"] = f"runs:/{run_id}/{place}"
    return facts
