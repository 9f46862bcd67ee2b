"""Requests and answers of the Open Inference Protocol, with tensors as JSON or as bytes behind it.

Source: KServe, "Open Inference Protocol" and "Binary Tensor Data Extension" (Triton's extension of the same name).
"""

import json
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from serve.bodies import parsed
from sslbt.errors import UserError

HEADER = "Inference-Header-Content-Length"  # how many bytes of a body are JSON, where tensors follow
DIGITS = 20  # of that number: Python refuses to read thousands
IMAGE = "image"
BYTES = "BYTES"
KINDS = {
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
    "BOOL": np.dtype("?"),
}


@dataclass(frozen=True)
class Wanted:
    """What an answer is to hold."""

    outputs: dict[str, bool]  # names of the outputs wanted, and whether as bytes; empty for all
    binary: bool  # whether outputs that are not named come as bytes
    id: str | None


@dataclass(frozen=True)
class Asked:
    """What a request asks for."""

    kind: str  # of the tensor
    shape: list[int]
    data: Any  # bytes, or what was in the JSON
    wanted: Wanted

    @property
    def count(self) -> int:
        """How many pictures there are, if it is as it says."""
        return self.shape[0] if self.shape and (self.kind == BYTES or len(self.shape) == 3) else 1

    def cells(self) -> Sequence[Any] | np.ndarray:
        """One a picture: an encoded file (bytes, or base64 text), or its pixels (height, width).

        Raises:
            UserError: the data are not of that kind and shape.
        """
        return _cells(self.kind, self.shape, self.data)


def asked(body: bytes, header: str | None) -> Asked:
    """Read a request.

    Args:
        body: of the request.
        header: the value of `HEADER`, if it was sent.

    Raises:
        UserError: it is no request of the protocol, or not for the one input `image`.
    """
    length = _length(header, len(body))
    request = parsed(body[:length])
    try:
        (given,) = request["inputs"]
        name, kind = given["name"], given["datatype"]
        shape = [int(size) for size in given["shape"]]
        named = request.get("outputs") or []
        outputs = {str(output["name"]): bool(_parameter(output, "binary_data")) for output in named}
        binary = bool(_parameter(request, "binary_data_output"))
        size = _parameter(given, "binary_data_size")
        data = given["data"] if size is None else body[length : length + int(size)]
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f'a request holds "inputs": [one of name, datatype, shape and data]; it is not one ({error!r})'
        ) from error
    if name != IMAGE:
        raise UserError(f"no input {name!r}; the only one is {IMAGE!r}")
    if min(shape, default=0) < 0:
        raise UserError(f"a shape of {shape} can't be")
    behind = len(body) - length
    if behind != (int(size) if size is not None else 0):
        raise UserError(f"{behind} bytes follow the JSON, binary_data_size says {size or 0}")
    identity = request.get("id")
    return Asked(str(kind), shape, data, Wanted(outputs, binary, None if identity is None else str(identity)))


def answer(about: dict[str, Any], wanted: Wanted, outputs: dict[str, np.ndarray]) -> tuple[bytes, dict[str, str]]:
    """Body and headers of an answer.

    Args:
        about: `model_name` and `model_version`.
        wanted: of the request.
        outputs: every output by name, (pictures, ...); text as object arrays.

    Raises:
        UserError: an output is asked for that there is not.
    """
    unknown = sorted(wanted.outputs.keys() - outputs.keys())
    if unknown:
        raise UserError(f"no output {', '.join(unknown)}; there are {', '.join(outputs)}")
    told: list[dict[str, Any]] = []
    behind: list[bytes] = []
    for name in wanted.outputs or outputs:
        values = outputs[name]
        entry: dict[str, Any] = {"name": name, "datatype": kind_of(values), "shape": list(values.shape)}
        if wanted.outputs.get(name, wanted.binary):
            behind.append(_packed(values))
            entry["parameters"] = {"binary_data_size": len(behind[-1])}
        else:
            entry["data"] = values.ravel().tolist()
        told.append(entry)
    whole = about | ({} if wanted.id is None else {"id": wanted.id}) | {"outputs": told}
    text = json.dumps(whole).encode()
    if not behind:
        return text, {"Content-Type": "application/json"}
    return b"".join([text, *behind]), {"Content-Type": "application/octet-stream", HEADER: str(len(text))}


def kind_of(values: np.ndarray) -> str:
    """The protocol's name for an array's type."""
    return next((name for name, kind in KINDS.items() if kind == values.dtype), BYTES)


def _length(header: str | None, whole: int) -> int:
    if header is None:
        return whole
    if not header.isdecimal() or len(header) > DIGITS or int(header) > whole:
        raise UserError(f"{HEADER} is {header}, the body has {whole} bytes")
    return int(header)


def _parameter(holder: dict[str, Any], name: str) -> Any:
    return (holder.get("parameters") or {}).get(name)


def _cells(kind: str, shape: list[int], data: Any) -> Sequence[Any] | np.ndarray:
    if kind == BYTES:
        files = math.prod(shape)
        if isinstance(data, bytes):
            cells = list(islice(_unpacked(data), min(files, len(data)) + 1))
        else:
            cells = np.array(data, object).ravel().tolist()
        if len(cells) != files or len(shape) not in (1, 2) or shape[1:] not in ([], [1]):
            raise UserError(f"{len(cells)} files do not have the shape {shape}; give [files] or [files, 1]")
        return cells
    if kind not in KINDS:
        raise UserError(f"datatype {kind} can't be read; send {BYTES} (encoded files) or {', '.join(KINDS)} (pixels)")
    if len(shape) not in (2, 3):
        raise UserError(f"pixels have the shape [pictures, height, width] or [height, width], not {shape}")
    try:
        if isinstance(data, bytes):
            pixels = np.frombuffer(data, KINDS[kind]).reshape(shape)
        else:
            pixels = np.array(data, KINDS[kind]).reshape(shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"the data are no {kind} of the shape {shape} ({error})") from error
    return pixels if len(shape) == 3 else [pixels]  # a list of them would take far more memory


def _unpacked(data: bytes) -> Iterator[bytes]:
    """Every element: four bytes that say how long it is, then it."""
    place = 0
    while place < len(data):
        if place + 4 > len(data):
            raise UserError("the BYTES end within a length")
        (length,) = struct.unpack_from("<I", data, place)
        if place + 4 + length > len(data):
            raise UserError(f"the BYTES end {place + 4 + length - len(data)} bytes too soon")
        yield data[place + 4 : place + 4 + length]
        place += 4 + length


def _packed(values: np.ndarray) -> bytes:
    if values.dtype != object:
        return values.tobytes()
    texts = [str(value).encode() for value in values.ravel()]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)
