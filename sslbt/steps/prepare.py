"""`prepare`: slices of any source into the cache, and a look at them."""

from sslbt.config import Prepare
from sslbt.evaluation import figures
from sslbt.report.data import data_report
from sslbt.steps.common import look_at_data
from sslbt.terminal import say
from sslbt.tracking.run import Run


def prepare(cfg: Prepare, run: Run) -> None:
    """Read every slice, split them by patient, look for leaks, and log how many slices there are and how they look."""
    cache, split, found = look_at_data(cfg, run)
    note = ", synthetic phantoms" if cache.synthetic else ""
    labels = cache.table.label.to_numpy()
    run.figure("pictures/slices_by_class.png", figures.slices_by_class(cache.pixels, labels, cache.classes, note))
    run.page("report.html", data_report(cache, split, found, cfg.data))

    counts = {name: int((labels == index).sum()) for index, name in enumerate(cache.classes)}
    facts = counts | {"slices": len(labels), "families": cache.table.family.nunique(), "refused": len(cache.refused)}
    run.metrics({f"data/{name}": float(count) for name, count in facts.items()})
    by_class = ", ".join(f"{count} {name}" for name, count in counts.items())
    unlabelled = len(labels) - sum(counts.values())
    say(
        f"{len(labels)} slices of {facts['families']} patient families{note}: {by_class}"
        + (f", {unlabelled} without a label" if unlabelled else "")
        + (f"; {len(cache.refused)} left out" if len(cache.refused) else "")
    )
    say(f"data {cache.digest}, split {split.hash}; report.html in the run {run.id} shows them")
    for finding in found.findings:
        say(f"leakage audit: {finding}")
    if found.stops:
        say("WARNING: nothing will be trained on this; give both patients one number (annotations), or remove copies")
