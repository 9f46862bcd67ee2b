"""How much is tried: `make torture` tries all of it, `make test` a trimmed part that fits beside the other tests."""

import os

FULL = os.environ.get("SSLBT_TORTURE") == "1"


def times(trimmed: int, full: int) -> int:
    """How often, or how many."""
    return full if FULL else trimmed
