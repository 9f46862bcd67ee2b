"""JSON in a request's body, which may be small and yet become gigabytes of values.

It is read between two requests, since a thread would gain nothing: Python's reader holds the interpreter to its end.
"""

import json
from typing import Any

from sslbt.errors import UserError

MOST_VALUES = 2**22  # of one body: 16 pictures of 512 x 512 in numbers; Python takes up to 120 bytes for each


def parsed(body: bytes) -> Any:
    """What a body says.

    Raises:
        UserError: it is no JSON, or holds more than four million values.
    """
    if body.count(b",") >= MOST_VALUES:
        raise UserError(f"more than {MOST_VALUES} values in JSON; send files, or pixels as bytes behind it (/v2)")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the body is no JSON ({error})") from error
