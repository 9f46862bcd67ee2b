"""How many processors this process may use."""

import os


def cores() -> int:
    """Those it is bound to, where the system tells; a container or `taskset` may leave it fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
