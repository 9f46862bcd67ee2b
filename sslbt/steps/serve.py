"""`serve`: the scoring service."""

import os

from serve.app import create_app
from serve.current import Current, Model
from serve.server import run
from serve.session import Classifier
from sslbt.config import Serve
from sslbt.tracking.models import onnx_file

KEY = "SSLBT_API_KEY"  # in the environment, since anybody sees the flags of a process


def serve(cfg: Serve) -> None:
    """Answer at http://host:port until interrupted."""
    classifier = Classifier.load(onnx_file(cfg.model))
    current = Current(Model(classifier, "brain-tumor-classifier", classifier.metadata["run_id"][:8]))
    run(create_app(current, os.environ.get(KEY, "")), cfg.host, cfg.port)
