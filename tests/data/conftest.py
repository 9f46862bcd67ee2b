from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from dicoms import recoded
from figshare_server import Figshare
from makers import GOOD, encoded, lay

from sslbt.data import figshare
from sslbt.data.matlab import write_folds, write_mat

WriteSlice = Callable[..., Path]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for prepared data."""
    folder = tmp_path / "home"
    monkeypatch.setenv("SSLBT_HOME", str(folder))
    return folder


@pytest.fixture
def write_slice() -> WriteSlice:
    """Writes one .mat file of random pixels in the dataset's layout."""

    def write(path: Path, label: int = 1, patient: str = "100", shape: tuple[int, int] = (24, 24)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([label, *map(ord, path.name + patient)])
        mask = np.zeros(shape, bool)
        mask[4:9, 5:12] = True
        write_mat(path, rng.integers(0, 3000, shape).astype(np.int16), label, patient, mask)
        return path

    return write


@pytest.fixture
def slices(tmp_path: Path, write_slice: WriteSlice) -> Path:
    """A folder of twelve slices of six patients, 1.mat to 12.mat, with folds."""
    folder = tmp_path / "slices"
    for number in range(1, 13):
        patient = ("100360", "MR017260F", "NA", "MR024780B", "MR024780D", "0042")[number % 6]
        write_slice(folder / f"{number}.mat", number % 3 + 1, patient, (24, 30 + number))
    write_folds(folder / "cvind.mat", np.arange(12) % 5 + 1)
    return folder


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return lay(tmp_path / "in", {name: encoded(pixels, "PNG") for name, pixels in GOOD.items()})


@pytest.fixture
def pack(tmp_path: Path) -> Callable[[bytes, str], bytes]:
    """A DICOM file and the name of a transfer syntax to the same in that syntax."""
    return lambda data, syntax: recoded(data, syntax, tmp_path)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Figshare]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Figshare() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.go_on.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it would have waited each time."""
    seconds: list[float] = []
    monkeypatch.setattr(figshare, "sleep", seconds.append)
    return seconds
