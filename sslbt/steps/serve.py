"""`serve`: the scoring service."""

import os
from functools import partial

from serve.app import create_app
from serve.current import Current, Model
from serve.server import run
from serve.session import Classifier
from sslbt.config import Serve
from sslbt.tracking.models import onnx_file
from sslbt.tracking.served import REGISTRY, latest, name_of, remembered

KEY = "SSLBT_API_KEY"  # in the environment, since anybody sees the flags of a process
HOSTS = "SSLBT_HOSTS"  # names that callers use, commas between; a foreign page has no key, so that one needs none


def serve(cfg: Serve) -> None:
    """Answer at http://host:port until interrupted, with whichever version a registry address means meanwhile."""
    if cfg.model.startswith(REGISTRY):
        # At once with what the address meant last, for asking takes seconds: whoever watches asks soon enough.
        version, file = remembered(cfg.model) or latest(cfg.model)
        current = Current(Model(Classifier.load(file), name_of(cfg.model), version))
        current.watch(partial(latest, cfg.model))
    else:
        classifier = Classifier.load(onnx_file(cfg.model))
        current = Current(Model(classifier, name_of(cfg.model), classifier.metadata["run_id"][:8]))
    key, names = os.environ.get(KEY, ""), [cfg.host, *os.environ.get(HOSTS, "").split(",")]
    run(create_app(current, key, names=None if key else names), cfg.host, cfg.port)
