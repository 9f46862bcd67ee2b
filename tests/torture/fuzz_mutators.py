"""Mutations that reach behind what a format checks first: checksums mended, numbers at their bounds, values swapped.

Each takes an input, a random number generator and libFuzzer's own mutation of bytes, and gives another input.
"""

import gzip
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fuzz_seeds import parquet, zipped
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataelem import RawDataElement

Bytes = Callable[[bytes], bytes]  # libFuzzer's mutation: flips, erasures, copies, numbers, parts of other inputs
MOST = 2**20  # bytes of what is unpacked to be mutated and packed again
TEXTS = ("", "../../evil.png", "/tmp/evil.png", "a\0b", "\ud800", "x" * 5000, "NaN", "١", "-0", "%s", "image", "BYTES")
VALUES = (b"", b"-1", b"1e400", b"nan", b"99999999", b"1\\2\\3", b"\xff\xff", b"\0" * 8)  # of DICOM elements
NUMBERS = (0, 1, -1, 2**15, 2**31 - 1, 2**31, 2**63, 2**64, -(2**63), 10**400, 0.5, -1e308, float("inf"), float("nan"))


def mutate(form: str, data: bytes, rng: random.Random, flip: Bytes) -> bytes:
    """Another input. What a mutation of the format's own can't make anything of, gets one of bytes."""
    own = MUTATORS.get(form)
    changed = None
    if own and rng.random() < 0.6:
        with suppress(Exception):
            changed = own(data, rng, flip)
    if changed is None:
        changed = rng.choice((lambda: boundary(data, rng), lambda: moved(data, rng), lambda: flip(data)))()
    return changed


def boundary(data: bytes, rng: random.Random) -> bytes:
    """Some integers, of any size and byte order, become the least, the largest, or nearly so; nothing moves."""
    out = bytearray(data)
    used = [at for at, byte in enumerate(data) if byte] or [0]  # in what is all zero there is little to break
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        size = rng.choice((1, 2, 4, 8))
        at = max(0, rng.choice(used) - rng.randrange(size))
        top = 2 ** (8 * size)
        value = rng.choice((0, 1, 2, top - 1, top - 2, top // 2, top // 2 - 1, top // 256, rng.randrange(top), 7))
        out[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))[: len(out) - at]
    return bytes(out)


def moved(data: bytes, rng: random.Random) -> bytes:
    """A block is left out, doubled, put elsewhere, overwritten by another one, or what follows is cut off."""
    start, end, to = sorted(rng.randrange(len(data) + 1) for _ in range(3))
    end = min(end, start + rng.choice((1, 4, 16, 256, 4096)))
    block = data[start:end]
    return rng.choice(
        (
            data[:start] + data[end:],
            data[:end] + block + data[end:],
            data[:start] + data[end:to] + block + data[to:],
            data[:to] + block + data[to + len(block) :],
            data[:end],
        )
    )


def _png(data: bytes, rng: random.Random, flip: Bytes) -> bytes:
    """Chunks with other contents or in another order, pixels that inflate to something else; every sum is right."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        size = struct.unpack_from(">I", data, at)[0]
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + size]])
        at += 12 + size
    one = rng.choice(chunks)
    if rng.random() < 0.15:
        chunks.insert(rng.randrange(len(chunks) + 1), rng.choice((one, chunks.pop(chunks.index(one)))))
    elif one[0] in (b"IDAT", b"fdAT") and rng.random() < 0.7:
        one[1] = zlib.compress(flip(zlib.decompressobj().decompress(one[1], MOST)))
    else:
        one[1] = rng.choice((lambda part: boundary(part, rng), flip))(one[1])
    return data[:8] + b"".join(
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part)) for kind, part in chunks
    )


def _zip(data: bytes, rng: random.Random, flip: Bytes) -> bytes:
    """A member or its name becomes another, and the zip is written anew, sums and all."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        contents = {member.filename: archive.open(member).read(MOST) for member in archive.infolist()[:20]}
    name = rng.choice([*contents])
    part = contents[name]
    if rng.random() < 0.3:
        contents[rng.choice(TEXTS[1:4]) + name[-4:]] = part
    else:
        contents[name] = mutate("zip" if name.endswith(".zip") else name.rpartition(".")[2], part, rng, flip)
    return zipped(contents, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def _nifti(data: bytes, rng: random.Random, flip: Bytes) -> bytes:
    """The header's numbers, and in a packed file what is packed."""
    packed = data[:2] == b"\x1f\x8b"
    inner = gzip.GzipFile(fileobj=io.BytesIO(data)).read(MOST) if packed else data
    changed = boundary(inner[:352], rng) + inner[352:] if rng.random() < 0.7 else flip(inner)
    return gzip.compress(changed, 1) if packed else changed


def _dicom(data: bytes, rng: random.Random, flip: Bytes) -> bytes:
    """An element of the file, or of one inside a sequence, is left out, doubled or holds another value."""
    file = dcmread(io.BytesIO(data), force=True)
    holder: Dataset = rng.choice((file, file, file, file.file_meta))
    key = rng.choice([*holder.keys()])
    if holder is file and rng.random() < 0.5:
        key = rng.choice([key for key in [*file.keys()] if key.group in (0x0028, 0x7FE0)])
    element = holder.get_item(key)
    chosen = rng.random()
    if chosen < 0.1:
        del holder[key]
    elif chosen < 0.2 and element.VR != "SQ":  # pydicom's writer takes gigabytes for many levels
        inside = Dataset()
        inside[key] = element
        for _ in range(rng.choice((1, 3))):
            outer = Dataset()
            outer.PixelValueTransformationSequence = [inside]
            inside = outer
        file.update(inside)
    elif isinstance(element, RawDataElement) and isinstance(element.value, bytes):
        other = rng.choice(
            (
                flip,
                lambda value: boundary(value, rng),
                lambda value: rng.choice(
                    (b"", b"-1", b"1e400", b"nan", b"99999999", b"1\\2\\3", b"\xff\xff", b"\0" * 8)
                ),
            )
        )(element.value)
        holder[key] = element._replace(value=other + b"\0" * (len(other) % 2), length=len(other) + len(other) % 2)
    else:
        return boundary(data, rng)
    out = io.BytesIO()
    dcmwrite(out, file, enforce_file_format=False)
    return out.getvalue()


def _parquet(data: bytes, rng: random.Random, flip: Bytes) -> bytes:
    """A cell becomes another, and the table is written anew, in another way."""
    table = pq.read_table(io.BytesIO(data))
    names = table.column_names
    place = rng.randrange(len(names))
    cells = table.column(place).to_pylist()
    row = rng.randrange(len(cells))
    if isinstance(cells[row], bytes):
        cells[row] = mutate(rng.choice(("png", "jpeg", "dicom", "tiff")), cells[row], rng, flip)
    else:
        cells[row] = rng.choice((None, *TEXTS))
    column: pa.Array = pa.array(cells, table.schema.field(place).type)
    ways = {"compression": rng.choice(("none", "snappy", "gzip", "zstd")), "use_dictionary": rng.random() < 0.5}
    return parquet(table.set_column(place, names[place], column), **ways)


def _json(data: bytes, rng: random.Random, flip: Bytes) -> bytes:
    """A value somewhere in it becomes another, goes, comes twice, or gets another name."""
    return json.dumps(_other(json.loads(data), rng)).encode()


def _other(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict | list) and value and rng.random() < 0.85:
        keys = [*value] if isinstance(value, dict) else range(len(value))
        key = rng.choice(keys)
        copy: Any = value.copy()
        chosen = rng.random()
        if chosen < 0.07:
            del copy[key]
        elif chosen < 0.14 and isinstance(copy, dict):
            copy[rng.choice(TEXTS)] = copy.pop(key)
        elif chosen < 0.14:
            copy.insert(key, value[key])
        else:
            copy[key] = _other(value[key], rng)
        return copy
    odd = (None, True, [], {}, [value], {"image": value}, [[]] * 3, [value, value], {"0": [0]})
    return rng.choice(rng.choice((TEXTS, NUMBERS, odd)))


def _v2_binary(data: bytes, rng: random.Random, flip: Bytes) -> bytes:
    """Its JSON, its tensor or what it says of their lengths."""
    line, _, body = data.partition(b"\n")
    length = int(line)
    head, behind = body[:length], body[length:]
    if rng.random() < 0.6:
        head = _json(head, rng, flip)
    else:
        behind = rng.choice((lambda part: boundary(part, rng), flip))(behind)
        request = json.loads(head)
        if rng.random() < 0.6:
            request["inputs"][0]["parameters"]["binary_data_size"] = len(behind)
        head = json.dumps(request).encode()
    said = str(len(head)) if rng.random() < 0.8 else rng.choice(("0", "-1", "1e3", "9" * 5000, " 7", "", "²"))
    return said.encode("latin-1") + b"\n" + head + behind


MUTATORS: dict[str, Callable[[bytes, random.Random, Bytes], bytes]] = {
    "png": _png,
    "zip": _zip,
    "nifti": _nifti,
    "gz": _nifti,
    "dicom": _dicom,
    "dcm": _dicom,
    "parquet": _parquet,
    "v2_json": _json,
    "invocations": _json,
    "v2_binary": _v2_binary,
}
