"""`lineage`: where a model comes from, from the registry back to its data and code."""

from sslbt.config import Lineage
from sslbt.tracking.lineage import lineage as steps_back


def lineage(cfg: Lineage) -> None:
    """Print every step back: version, evaluation, classifier, pretraining."""
    for title, facts in steps_back(cfg.model).items():
        print(title)
        for name, value in facts.items():
            if value:
                print(f"  {name.replace('_', ' '):18} {value}")
