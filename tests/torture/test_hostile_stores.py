"""What was prepared and then changed, registry versions of another kind, checkpoints that are none: refused, never run.

Every file that could hold code holds a canary: whoever unpickles or imports it leaves a mark.
"""

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest
from PIL import Image
from stores import tracking_at

from sslbt.cli import main
from sslbt.data import seal
from sslbt.data.cache import prepare
from sslbt.data.phantom import make_sample
from sslbt.data.source import Source, once
from sslbt.errors import UserError

Tamper = Callable[[Path], None]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    monkeypatch.setenv("SSLBT_HOME", str(folder))
    return folder


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slices")
    make_sample(folder, patients=6, size=32)
    return folder


def another_byte(file: Path) -> None:
    with open(file, "r+b") as content:
        content.seek(-1, os.SEEK_END)
        (last,) = content.read()
        content.seek(-1, os.SEEK_END)
        content.write(bytes([last ^ 1]))


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def longer(file: Path) -> None:
    with open(file, "ab") as content:
        content.write(b"1.mat,P1\n")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, slices: Path) -> Path:
    """A place for prepared data in which these slices are prepared."""
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SSLBT_HOME", str(folder))
        prepare(Source(str(slices)))
    return folder


@pytest.mark.parametrize("tamper", [another_byte, cut, longer, os.remove], ids=lambda own: own.__name__)
@pytest.mark.parametrize("name", ["pixels.bin", "table.csv", "about.json", "masks.bin", "similar.csv", "refused.csv"])
def test_a_cache_that_was_changed_is_refused(
    home: Path, prepared: Path, slices: Path, name: str, tamper: Tamper
) -> None:
    shutil.copytree(prepared, home)
    folder = prepare(Source(str(slices))).folder
    tamper(folder / name)
    with pytest.raises(UserError) as caught:
        prepare(Source(str(slices)))
    assert str(caught.value).startswith(f"{folder / name}: ")
    assert f"remove {folder}, and the same command makes it anew" in str(caught.value)


def test_the_remedy_is_one(home: Path, prepared: Path, slices: Path) -> None:
    shutil.copytree(prepared, home)
    cache = prepare(Source(str(slices)))
    pixels = np.array(cache.pixels)
    another_byte(cache.folder / "pixels.bin")
    shutil.rmtree(cache.folder)
    again = prepare(Source(str(slices)))
    assert again.digest == cache.digest
    assert np.array_equal(again.pixels, pixels)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pixels.bin": 3}', b'{"pixels.bin": ["a"]}', b"\xff"])
def test_a_seal_that_is_none(home: Path, prepared: Path, slices: Path, content: bytes) -> None:
    shutil.copytree(prepared, home)
    folder = prepare(Source(str(slices))).folder
    (folder / seal.SEAL).write_bytes(content)
    with pytest.raises(UserError, match=r"\.seal\.json: damaged; remove .*, and the same command"):
        prepare(Source(str(slices)))


def test_what_is_resized_is_sealed_too(home: Path, prepared: Path, slices: Path) -> None:
    shutil.copytree(prepared, home)
    cache = prepare(Source(str(slices)))
    cache.resized(32)
    (file,) = home.glob("cache-*-32/pixels.bin")
    another_byte(file)
    with pytest.raises(UserError, match=r"-32/pixels\.bin: changed since it was made"):
        cache.resized(32)


def test_a_copy_is_as_good_and_an_unsealed_folder_is_made_anew(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "a").write_text("made")

    final = once(tmp_path / "final", make)
    os.utime(final / "a", (1, 1))  # as in a copy
    assert once(final, lambda _: pytest.fail("made again")) == final
    (final / seal.SEAL).unlink()
    (final / "a").write_text("of an earlier version")
    assert (once(final, make) / "a").read_text() == "made"


class Evil:
    """Leaves a mark where it is unpickled."""

    def __reduce__(self) -> tuple:
        return exec, (CODE,)


CODE = "import os; os.mkdir(os.environ['CANARY'])"
PICKLE = pickle.dumps(Evil())
MODELS = {
    "sklearn": (
        "flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n    model_path: model.pkl\n"
        "  sklearn:\n    pickled_model: model.pkl\n    serialization_format: cloudpickle\n",
        {"model.pkl": PICKLE},
    ),
    "pyfunc": (
        "flavors:\n  python_function:\n    loader_module: mlflow.pyfunc.model\n    python_model: python_model.pkl\n"
        "    code: code\n    model_code_path: model.py\n",
        {
            "python_model.pkl": PICKLE,
            "model.py": CODE.encode(),
            "code/serve/__init__.py": CODE.encode(),
            "artifacts/classifier.onnx": PICKLE,
        },
    ),
    "pytorch": (
        "flavors:\n  pytorch:\n    model_data: data\n"
        "  python_function:\n    loader_module: mlflow.pytorch\n    data: data\n",
        {"data/model.pth": PICKLE, "data/pickle_module_info.txt": b"pickle"},
    ),
    "yaml": ("flavors: !!python/object/apply:os.mkdir ['CANARY']\n", {}),
    "none": ("[]", {"artifacts/classifier.onnx": b"\x80\x04"}),
}
CHECKPOINTS = ("checkpoint/encoder.safetensors", "checkpoint/classifier.safetensors", "onnx/classifier.onnx")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a version of every other kind as champion, whose runs hold pickles for checkpoints."""
    folder = tmp_path_factory.mktemp("registry")
    with tracking_at(f"sqlite:///{folder}/mlflow.db") as client:
        client.create_experiment("evil", artifact_location=str(folder / "artifacts"))
        mlflow.set_experiment("evil")
        for name, (about, files) in MODELS.items():
            client.create_registered_model(name)
            with mlflow.start_run() as run:
                place = folder / name
                about = about.replace("CANARY", str(folder / "yaml canary"))
                content = {f"model/{file}": held for file, held in files.items()} | dict.fromkeys(CHECKPOINTS, PICKLE)
                for file, held in (content | {"model/MLmodel": about.encode()}).items():
                    (place / file).parent.mkdir(parents=True, exist_ok=True)
                    (place / file).write_bytes(held)
                mlflow.log_artifacts(str(place))
            version = client.create_model_version(name, f"runs:/{run.info.run_id}/model", run.info.run_id)
            client.set_registered_model_alias(name, "champion", version.version)
    return folder


def test_the_canary_sings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", str(tmp_path / "canary"))
    pickle.loads(PICKLE)
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("kind", MODELS)
def test_a_version_of_another_kind_is_refused_and_nothing_of_it_runs(
    registry: Path,
    slices: Path,
    tmp_path: Path,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("SSLBT_HOME", str(registry / "home"))
    monkeypatch.setenv("CANARY", str(place / "canary"))
    Image.new("L", (64, 64)).save("a.png")
    Path("scores.csv").write_text("what was there")
    model = ["--model", f"models:/{kind}@champion"]
    with tracking_at(f"sqlite:///{registry}/mlflow.db"):
        for words in (
            ["score", "--input", "a.png", "--output", "scores.csv"],
            ["serve", "--port", "65000"],
            ["layout", "--output", "layout"],
            ["evaluate", "--data", str(slices), "--split", "none"],
        ):
            assert main([*words, *model]) == 2, words
            said = capsys.readouterr().err.splitlines()[-1]
            assert said.startswith("sslbt: ")
            assert kind in said or ".onnx: no readable ONNX file" in said or "damaged or not a checkpoint" in said
    assert sorted(path.name for path in place.iterdir()) == ["a.png", "scores.csv"]  # no canary, no half a layout
    assert Path("scores.csv").read_text() == "what was there"
    assert not (registry / "yaml canary").exists()
