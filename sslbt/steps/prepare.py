"""`prepare`: slices of any source into the cache, and a look at them."""

from sslbt.config import Prepare
from sslbt.evaluation import figures
from sslbt.steps.common import open_data
from sslbt.terminal import say
from sslbt.tracking.run import Run


def prepare(cfg: Prepare, run: Run) -> None:
    """Read every slice, split them by patient, and log how many there are and how they look."""
    cache, split = open_data(cfg, run)
    note = ", synthetic phantoms" if cache.synthetic else ""
    labels = cache.table.label.to_numpy()
    run.figure("pictures/slices_by_class.png", figures.slices_by_class(cache.pixels, labels, cache.classes, note))
    counts = {f"data/{name}": float((labels == index).sum()) for index, name in enumerate(cache.classes)}
    families = cache.table.family.nunique()
    run.metrics(counts | {"data/slices": float(len(labels)), "data/families": float(families)})
    say(f"{len(labels)} slices of {families} patient families{note}; data {cache.digest}, split {split.hash}")
