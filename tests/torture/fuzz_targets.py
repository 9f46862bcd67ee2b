"""What is done with one input, as `prepare`, `score` and the service do it; only what they promise may come of it."""

import asyncio
import ctypes
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import numpy as np

import sslbt
from serve.app import create_app
from serve.batch_input import open_input
from serve.current import Current, Model
from serve.pictures import all_from_bytes, from_bytes
from serve.session import Classifier
from sslbt.data.files import File, iterate
from sslbt.data.reading import SIDE, Found, read_files
from sslbt.errors import UserError

RELEASED = Path(sslbt.__file__).with_name("released") / "classifier.onnx"
ENDINGS = {"mat": "mat", "png": "png", "jpeg": "jpg", "tiff": "tif", "dicom": "dcm", "nifti": "nii.gz"}
HEADER = "Inference-Header-Content-Length"


def target(form: str) -> Callable[[bytes], None]:
    """Takes an input of a format; raises whatever nobody promised."""
    if form in ENDINGS:
        return partial(_file, Classifier.load(RELEASED), f"a.{ENDINGS[form]}")
    if form == "zip":
        return _zip
    if form in HARM:
        return HARM[form]
    if form == "parquet":
        return partial(_table, Classifier.load(RELEASED))
    return _Service(form)


def _file(classifier: Classifier, name: str, data: bytes) -> None:
    _prepared([(name, lambda: data)])
    pictures = [*all_from_bytes(data, name), (name, from_bytes(data, name))]
    _told(classifier, pictures)


def _prepared(files: Iterable[File]) -> None:
    for one in read_files(files):
        if isinstance(one, Found):
            assert one.pixels.shape == (SIDE, SIDE)
            assert np.isfinite([one.low, one.high]).all()
        else:
            _sentence(one.reason)


def _told(classifier: Classifier, pictures: list[tuple[str, np.ndarray | UserError]]) -> None:
    for _, picture in pictures:
        if isinstance(picture, UserError):
            _sentence(str(picture))
    rows = list(classifier.rows(picture for _, picture in pictures[:20]))
    assert len(rows) == len(pictures[:20])


def _sentence(said: str) -> None:
    assert "\n" not in said, said
    said.encode()


def _kept(data: bytes, name: str) -> Path:
    """As a file of the current folder, which nothing else lies in."""
    place = Path(name)
    place.write_bytes(data)
    return place


def _zip(data: bytes) -> None:
    place = _kept(data, "a.zip")
    try:
        _prepared(iterate(place))
    except UserError as error:
        _sentence(str(error))


def _table(classifier: Classifier, data: bytes) -> None:
    try:
        for name, reader in open_input(_kept(data, "a.parquet")).start_at(0):
            with suppress(OSError):  # which `score` makes a sentence of
                _told(classifier, all_from_bytes(_had(reader), name))
    except UserError as error:
        _sentence(str(error))


def _had(reader: Callable[[], bytes]) -> bytes | UserError:
    try:
        return reader()
    except UserError as error:
        return error


class _Service:
    """The app in this process, asked without a socket."""

    def __init__(self, form: str) -> None:
        self.form, self.loop = form, asyncio.new_event_loop()
        app = create_app(Current(Model(Classifier.load(RELEASED), "m", "1")))
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service")

    def __call__(self, data: bytes) -> None:
        address, headers = "/v2/models/m/infer", {}
        if self.form == "v2_binary":
            length, _, data = data.partition(b"\n")
            headers = {HEADER.encode(): length.strip()}
        elif self.form == "form":
            address = "/predict?preview=1&saliency=1"
            kind, _, data = data.partition(b"\n")
            headers = {b"Content-Type": kind.strip()}
        elif self.form == "invocations":
            address = "/invocations"
        answer = self.loop.run_until_complete(self.client.post(address, content=data, headers=headers))
        assert answer.status_code in (200, 400, 413), (answer.status_code, answer.text)
        assert "Traceback" not in answer.text


def _spin(data: bytes) -> None:
    until = time.process_time() + 2.5
    while time.process_time() < until:
        pass


HARM: dict[str, Callable[[bytes], object]] = {  # what fuzzing must notice
    "harm_raises": lambda data: 1 / 0,
    "harm_crashes": lambda data: ctypes.string_at(0),
    "harm_hangs": _spin,
    "harm_grows": lambda data: b"x" * 2**31,
    "harm_writes": lambda data: Path("../outside").write_bytes(data),
}


def watch_writes(folder: Path) -> None:
    """From now on whoever writes outside of a folder raises, in this process and by way of Python."""

    def hook(event: str, given: tuple) -> None:
        if event == "open" and isinstance(given[0], str | bytes | os.PathLike):
            path, mode, flags = given
            writing = set(mode or "") & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            paths = [path] if writing else []
        elif event in ("os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.truncate"):
            paths = [path for path in given[:2] if isinstance(path, str | bytes | os.PathLike)]
        else:
            return
        for path in map(os.fsdecode, paths):
            if (
                not Path(path).absolute().resolve().is_relative_to(folder)
                and "findings" not in path
                and path != os.devnull
            ):
                raise AssertionError(f"{event}: {path} is outside")

    tempfile.tempdir = str(folder)
    sys.addaudithook(hook)
