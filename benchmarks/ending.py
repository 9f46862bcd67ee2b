"""How a benchmark ends that can't go on."""

from collections.abc import Iterator
from contextlib import contextmanager

from sslbt.errors import UserError


@contextmanager
def in_a_sentence() -> Iterator[None]:
    """Whatever the user did, a mistake or an interrupt, ends the process with a sentence instead of a traceback.

    Raises:
        SystemExit: with that sentence. Errors of the code itself stay what they are.
    """
    try:
        yield
    except UserError as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit("interrupted: what was measured until then is not kept") from None
