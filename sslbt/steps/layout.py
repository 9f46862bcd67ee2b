"""`layout`: a classifier as a model repository of Triton, and as a resource of KServe."""

from serve import triton
from sslbt.config import Layout
from sslbt.data.source import at
from sslbt.terminal import say
from sslbt.tracking.models import onnx_file
from sslbt.tracking.served import name_of


def layout(cfg: Layout) -> None:
    """Write OUTPUT/NAME/NUMBER/model.onnx with its configuration, and an InferenceService."""
    name, repository = name_of(cfg.model), at(cfg.output)
    number = triton.write(onnx_file(cfg.model), repository, name)
    say(f"{repository / name}: version {number}; tritonserver --model-repository {repository} serves it")
