"""`serve`: the scoring service."""

from serve.app import create_app, run
from serve.session import Classifier
from sslbt.config import Serve
from sslbt.tracking.models import onnx_file


def serve(cfg: Serve) -> None:
    """Answer at http://host:port until interrupted."""
    run(create_app(Classifier.load(onnx_file(cfg.model))), cfg.host, cfg.port)
