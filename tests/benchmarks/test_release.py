"""The released weights, made of a small network on phantoms."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from sslbt.data.cache import prepare
from sslbt.data.matlab import CLASSES
from sslbt.data.phantom import make_sample
from sslbt.data.source import Source
from sslbt.errors import UserError
from sslbt.export.onnx import Deployed
from sslbt.nn.encoder import Encoder
from sslbt.nn.heads import Classifier
from sslbt.nn.outlier import Outlier
from sslbt.tracking.models import RELEASED_FOLDER
from sslbt.training import checkpoint

FILES = ("encoder.safetensors", "classifier.safetensors", "classifier.onnx")
SEEN = [["1.mat", "P1"], ["2.mat", "P2"]]
ABOUT: dict[str, Any] = {
    "size": 64,
    "way": "contrastive",
    "run_id": "0" * 32,
    "code_version": "abc",
    "data_digest": "d",
    "split": "all",
    "split_hash": "s",
    "synthetic": True,
    "seen": SEEN[:1],
}
OF_CLASSIFIER = ABOUT | {
    "classes": list(CLASSES),
    "labels": "/home/somebody/labels.csv",
    "pretrained": "/home/somebody/encoder.safetensors",
    "temperature": 4.0,  # an untrained encoder tells slices apart by little, so that rounding shows more
    "plausible_above": 0.2,
    "guarantee": 0.9,
    "known_files": ["1.mat"],
    "validation_families": 5,
    "seen": SEEN,
}


@dataclass(frozen=True)
class Given:
    """What there is to release, and where to."""

    data: Path
    encoder: Path
    classifier: Path
    folder: Path
    slices: Tensor

    def release(self, **changed: Any) -> None:
        import release

        own = {"source": Source(str(self.data)), "encoder": self.encoder, "classifier": self.classifier}
        release.release(**own | {"folder": self.folder} | changed)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Given]:
    """Already released once."""
    place = tmp_path_factory.mktemp("release")
    make_sample(place / "data", patients=6, size=64)
    torch.manual_seed(0)
    encoder, outlier = Encoder(8), Outlier()
    model = Classifier(encoder, len(CLASSES))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
        patch.setenv("SSLBT_HOME", str(place / "home"))
        cache = prepare(Source(str(place / "data")))
        slices = cache.load(np.arange(len(cache.table)), 64)
        for _ in range(50):
            model.train()(slices)  # batch statistics of such slices, so that answers differ between them
        found = Given(place / "data", place / "encoder.safetensors", place / "net.safetensors", place / "out", slices)
        checkpoint.save_encoder(found.encoder, encoder, ABOUT | {"epoch": 3})
        checkpoint.save_classifier(found.classifier, model, outlier, OF_CLASSIFIER)
        found.release()
        yield found


def stored(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """By safetensors alone."""
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["about"])  # noqa: SIM118


def test_three_files_with_weights_in_half_precision(given: Given) -> None:
    assert sorted(path.name for path in given.folder.iterdir()) == sorted(FILES)
    for before, after in ((given.encoder, FILES[0]), (given.classifier, FILES[1])):
        old, new = stored(before)[0], stored(given.folder / after)[0]
        assert old.keys() == new.keys()
        for name, tensor in old.items():
            assert new[name].dtype == (torch.float16 if tensor.ndim > 1 else tensor.dtype)
            torch.testing.assert_close(new[name].to(tensor.dtype), tensor, rtol=1e-3, atol=1e-7)
        assert (given.folder / after).stat().st_size < 0.6 * before.stat().st_size


def test_loaded_it_is_in_single_precision_and_answers_as_before(given: Given) -> None:
    before, _ = checkpoint.load_classifier(given.classifier)
    after, about = checkpoint.load_classifier(given.folder / "classifier.safetensors")
    assert {weight.dtype for weight in after.parameters()} == {torch.float32}
    with torch.no_grad():
        ours, theirs = ((model(given.slices) / about["temperature"]).softmax(1) for model in (after, before))
    assert theirs.std(dim=0).max() > 0.01, "answers differ between slices"
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)
    bare, of_encoder = checkpoint.load_encoder(given.folder / "encoder.safetensors")
    assert {weight.dtype for weight in bare.parameters()} == {torch.float32}
    assert (of_encoder["size"], of_encoder["way"]) == (64, "contrastive")


def test_the_onnx_file_answers_as_the_rounded_classifier(given: Given) -> None:
    session = onnxruntime.InferenceSession(given.folder / "classifier.onnx", providers=["CPUExecutionProvider"])
    model, about = checkpoint.load_classifier(given.folder / "classifier.safetensors")
    outlier = checkpoint.load_outlier(given.folder / "classifier.safetensors")
    deployed = Deployed(model, outlier, about).eval()
    image = np.random.default_rng(0).gamma(2, 100, (2, 80, 90)).astype(np.float32)
    with torch.no_grad():
        ours = deployed(torch.from_numpy(image))[0].numpy()
    np.testing.assert_allclose(session.run(["probabilities"], {"image": image})[0], ours, atol=1e-4)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list(CLASSES)


def test_what_they_have_seen_stays_and_paths_go(given: Given) -> None:
    of_encoder, of_classifier = (stored(given.folder / name)[1] for name in FILES[:2])
    assert of_encoder["seen"] == of_classifier["seen"] == SEEN
    assert (of_classifier["pretrained"], of_classifier["labels"]) == ("released", "labels.csv")
    for name in FILES:
        content = (given.folder / name).read_bytes()
        for path in ("/home/somebody", str(Path(__file__).parents[2]), str(given.data)):
            assert path.encode() not in content, name


def test_a_classifier_of_another_encoder_is_refused(given: Given, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    checkpoint.save_encoder(other, Encoder(8), ABOUT | {"seen": [["9.mat", "P9"]]})
    with pytest.raises(UserError, match="give the encoder it was fine-tuned from"):
        given.release(encoder=other, folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_rounding_changes_too_much_is_refused(given: Given, tmp_path: Path) -> None:
    tensors, about = checkpoint.load(given.classifier)
    checkpoint.save(tmp_path / "sharp.safetensors", tensors, about | {"temperature": 0.1})
    with pytest.raises(UserError, match=r"rounded to half precision it answers up to .* otherwise; not released"):
        given.release(classifier=tmp_path / "sharp.safetensors", folder=tmp_path / "out")


def test_what_a_clone_should_not_carry_is_refused(
    given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import release

    monkeypatch.setattr(release, "MOST", 100_000)
    with pytest.raises(UserError, match="at most 100,000 are to be released"):
        given.release(folder=tmp_path / "out")


def test_what_ships_is_whole_and_tells_about_itself() -> None:
    """Of the three files none is there before the first release, afterwards all are."""
    there = [RELEASED_FOLDER / name for name in FILES if (RELEASED_FOLDER / name).exists()]
    card = (RELEASED_FOLDER / "README.md").read_text()
    assert len(there) in (0, len(FILES))
    assert sum(path.stat().st_size for path in there) <= 25 * 2**20
    assert not there or "TO FILL IN" not in card
    for part in ("CC BY 4.0", "10.6084/m9.figshare.1512427", "benchmarks/release.py", "Research use only"):
        assert part in card
