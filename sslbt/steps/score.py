"""`score`: class and probabilities for every picture of a folder."""

from pathlib import Path

from serve.batch import score as score_batch
from sslbt.config import Score
from sslbt.terminal import say
from sslbt.tracking.models import onnx_file


def score(cfg: Score) -> None:
    """Write a row per picture: file, label, probabilities, confidence, whether to abstain and why."""
    output = Path(cfg.output).expanduser()
    summary = score_batch(onnx_file(cfg.model), Path(cfg.input).expanduser(), output)
    say(f"{output}: {summary}")
