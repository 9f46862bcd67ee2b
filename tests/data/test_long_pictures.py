"""A picture of one column, in a hundred bytes, for each of whose rows a reader keeps a place."""

import resource
import struct
import zlib

import pytest

from sslbt.data.formats import decode
from sslbt.errors import UserError

ROWS = 60_000_000


def test_one_column_of_sixty_million_rows_takes_no_memory() -> None:
    header = struct.pack(">IIBBBBB", 1, ROWS, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(2))), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part)) for kind, part in chunks
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=f"{ROWS} x 1 pixels"):
        decode(data, "a.png")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 2**10  # KiB
