import json
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save as serialize
from safetensors.torch import save_file
from torch import Tensor

from sslbt.errors import UserError
from sslbt.nn.encoder import Encoder
from sslbt.nn.heads import Classifier
from sslbt.nn.outlier import Outlier
from sslbt.training import checkpoint
from sslbt.training.optimizer import pack, unpack

OF_ENCODER = {"size": 64, "way": "contrastive", "seen": [["f", "1.mat"]]}
ABOUT = OF_ENCODER | {
    "classes": ["a", "b", "c"],
    "temperature": 1.25,
    "plausible_above": 0.2,
    "guarantee": 0.9,
    "validation_families": 5,
    "labels": "12",
    "pretrained": "none",
    "known_files": ["1.mat"],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some" / "where" / "net.safetensors"


@pytest.fixture
def classifier() -> Classifier:
    model = Classifier(Encoder(4), 3)
    model(torch.rand(4, 1, 32, 32))  # batch statistics that are not the first ones
    return model


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_tensors_and_facts_come_back(path: Path) -> None:
    tensors = {
        "half": torch.randn(3, 4).to(torch.bfloat16),
        "long": torch.tensor(2**40),
        "strided": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "gradient": torch.randn(2, requires_grad=True),
    }
    checkpoint.save(path, tensors, {"über": [1, 2.5, None, "x"]})
    found, about = checkpoint.load(path)
    assert same(found, tensors)
    assert {name: tensor.dtype for name, tensor in found.items()} == {n: t.dtype for n, t in tensors.items()}
    assert about == {"über": [1, 2.5, None, "x"]}


def test_others_may_read_what_the_umask_lets_them(path: Path) -> None:
    checkpoint.save(path, {"a": torch.ones(1)}, {})
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("broken", ["write_bytes", "replace"])
def test_a_failure_while_saving_leaves_the_old_file_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    checkpoint.save(path, {"a": torch.ones(1)}, {"epoch": 1})

    def full(place: Path, what: object) -> None:
        with open(place, "wb") as out:
            out.write(b"the beginning")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path if broken == "write_bytes" else os, broken, full)
    with pytest.raises(OSError, match="No space left") as caught:
        checkpoint.save(path, {"a": torch.zeros(1)}, {"epoch": 2})
    assert caught.value.filename == str(path)
    monkeypatch.undo()
    assert os.listdir(path.parent) == [path.name]
    tensors, about = checkpoint.load(path)
    assert (float(tensors["a"]), about) == (1, {"epoch": 1})


def test_saving_again_replaces(path: Path) -> None:
    for epoch in (1, 2):
        checkpoint.save(path, {"a": torch.full((2,), float(epoch))}, {"epoch": epoch})
    assert checkpoint.load(path)[1] == {"epoch": 2}
    assert os.listdir(path.parent) == [path.name]


class Evil:
    def __reduce__(self) -> tuple:
        return os.mkdir, (os.environ["EVIL_FOLDER"],)


def test_no_pickle_is_ever_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVIL_FOLDER", str(tmp_path / "evil"))
    path = tmp_path / "net.safetensors"
    torch.save({"a": Evil()}, path)
    with pytest.raises(UserError, match=r"net\.safetensors: damaged or not a checkpoint"):
        checkpoint.load(path)
    assert not (tmp_path / "evil").exists()


def test_what_cannot_be_read_is_named(tmp_path: Path, path: Path) -> None:
    with pytest.raises(UserError, match=r"net\.safetensors: no such checkpoint"):
        checkpoint.load(path)
    with pytest.raises(UserError, match="damaged or not a checkpoint"):
        checkpoint.load(tmp_path)
    checkpoint.save(path, {"a": torch.randn(1000)}, {})
    content = path.read_bytes()
    for length in (0, 4, 40, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"net\.safetensors: damaged or not a checkpoint"):
            checkpoint.load(path)


def test_a_file_of_another_program_is_not_ours(path: Path) -> None:
    path.parent.mkdir(parents=True)
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(UserError, match="damaged or not a checkpoint"):
        checkpoint.load(path)
    save_file({"a": torch.ones(1)}, path, {"about": "no json"})
    with pytest.raises(UserError, match="damaged or not a checkpoint"):
        checkpoint.load(path)


def test_an_encoder_comes_back(path: Path, classifier: Classifier) -> None:
    checkpoint.save_encoder(path, classifier.encoder, OF_ENCODER)
    encoder, about = checkpoint.load_encoder(path)
    assert same(encoder.state_dict(), classifier.encoder.state_dict())
    assert about == OF_ENCODER | {"kind": "encoder", "width": 4}


def test_a_classifier_comes_back_ready_to_score(path: Path, classifier: Classifier) -> None:
    checkpoint.save_classifier(path, classifier, Outlier(), ABOUT)
    model, about = checkpoint.load_classifier(path)
    assert same(model.state_dict(), classifier.state_dict())
    assert about == ABOUT | {"kind": "classifier", "width": 4}
    assert not model.training
    slices = torch.rand(3, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(slices), classifier.eval()(slices))


def test_a_classifiers_encoder_can_be_taken_alone(path: Path, classifier: Classifier) -> None:
    checkpoint.save_classifier(path, classifier, Outlier(), ABOUT)
    encoder, about = checkpoint.load_encoder(path)
    assert same(encoder.state_dict(), classifier.encoder.state_dict())
    assert about["size"] == 64


def test_what_is_no_brain_mri_comes_back_too(path: Path, classifier: Classifier) -> None:
    outlier = Outlier()
    outlier.above.fill_(2.5)
    checkpoint.save_classifier(path, classifier, outlier, ABOUT)
    back = checkpoint.load_outlier(path)
    assert same(back.state_dict(), outlier.state_dict())
    assert not back.training


@pytest.mark.parametrize("changed", [{"known_files": None}, {"temperature": "warm"}, {"seen": None, "way": None}])
def test_facts_that_another_version_does_not_know(
    path: Path, classifier: Classifier, changed: dict[str, object]
) -> None:
    older = {name: value for name, value in (ABOUT | changed).items() if value is not None}
    checkpoint.save(path, classifier.state_dict(), older | {"kind": "classifier", "width": 4})
    with pytest.raises(UserError, match=rf"doesn't say {', '.join(changed)}; made by another version\? train"):
        checkpoint.load_classifier(path)


def test_an_encoder_that_does_not_say_whom_it_saw(path: Path, classifier: Classifier) -> None:
    checkpoint.save_encoder(path, classifier.encoder, OF_ENCODER | {"seen": "nobody"})
    with pytest.raises(UserError, match="doesn't say seen; made by another version"):
        checkpoint.load_encoder(path)


def test_what_a_newer_version_made_is_refused_with_a_remedy(
    path: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save_classifier(path, classifier, Outlier(), ABOUT)
    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT - 1)
    for load in (checkpoint.load_encoder, checkpoint.load_classifier, checkpoint.load_outlier):
        with pytest.raises(UserError, match=r"net\.safetensors: made by a newer version of sslbt; update sslbt"):
            load(path)


@pytest.mark.parametrize("about", [[1], "text", {"format": "first"}])
def test_facts_that_are_none_are_not_ours(path: Path, about: object) -> None:
    path.parent.mkdir(parents=True)
    save_file({"a": torch.ones(1)}, path, {"about": json.dumps(about)})
    with pytest.raises(UserError, match="damaged or not a checkpoint"):
        checkpoint.load(path)


def test_an_encoder_is_no_classifier(path: Path, classifier: Classifier) -> None:
    checkpoint.save_encoder(path, classifier.encoder, OF_ENCODER)
    with pytest.raises(UserError, match=r"holds encoder, no classifier; fine-tune it first"):
        checkpoint.load_classifier(path)


@pytest.mark.filterwarnings("error")
def test_an_unfinished_training_is_neither(path: Path) -> None:
    checkpoint.save(path, {"encoder.stem.0.weight": torch.ones(4, 1, 3, 3)}, {"history": []})
    with pytest.raises(UserError, match="holds no encoder"):
        checkpoint.load_encoder(path)
    with pytest.raises(UserError, match="no classifier"):
        checkpoint.load_classifier(path)


def test_weights_of_another_shape_are_refused(path: Path, classifier: Classifier) -> None:
    checkpoint.save(path, classifier.state_dict(), ABOUT | {"kind": "classifier", "width": 8})
    for load in (checkpoint.load_encoder, checkpoint.load_classifier):
        with pytest.raises(UserError, match="weights do not fit"):
            load(path)


def test_an_optimiser_comes_back(path: Path, classifier: Classifier) -> None:
    def optimise(model: Classifier) -> torch.optim.Optimizer:
        return torch.optim.AdamW([{"params": model.encoder.parameters()}, {"params": model.head.parameters()}], 0.01)

    def step(model: Classifier, optimizer: torch.optim.Optimizer, slices: Tensor) -> None:
        optimizer.zero_grad()
        model.eval()(slices).square().sum().backward()
        optimizer.step()

    slices = torch.rand(2, 1, 32, 32)
    optimizer = optimise(classifier)
    step(classifier, optimizer, slices)
    tensors = classifier.state_dict() | pack(optimizer)
    checkpoint.save(path, tensors, {})

    other = Classifier(Encoder(4), 3)
    found, _ = checkpoint.load(path)
    other.load_state_dict({name: tensor for name, tensor in found.items() if not name.startswith("optimizer.")})
    resumed = optimise(other)
    unpack(resumed, found)
    step(classifier, optimizer, slices)
    step(other, resumed, slices)
    assert same(other.state_dict(), classifier.state_dict())
    fresh = Classifier(Encoder(4), 3)
    fresh.load_state_dict({name: tensor for name, tensor in found.items() if not name.startswith("optimizer.")})
    step(fresh, optimise(fresh), slices)
    assert not same(fresh.state_dict(), classifier.state_dict())  # the moments matter


def refusal(path: Path) -> str:
    said = set()
    for load in (checkpoint.load_encoder, checkpoint.load_classifier):
        with pytest.raises(UserError) as caught:
            load(path)
        said.add(str(caught.value))
    assert all(one.startswith(f"{path}: ") and len(one) < 400 for one in said)
    return " ".join(said)


@pytest.mark.parametrize("width", [10**9, 0, -8, "8; os", None, 8.5, [8], True])
def test_a_network_that_can_not_be_is_not_built(path: Path, classifier: Classifier, width: object) -> None:
    checkpoint.save(path, classifier.state_dict(), ABOUT | {"kind": "classifier", "width": width})
    assert "how its network is built" in refusal(path) or width is True  # True is 1, whose weights don't fit


@pytest.mark.parametrize("classes", [None, 3, "abc", [1, 2, 3], {"a": 1}])
def test_classes_that_are_none(path: Path, classifier: Classifier, classes: object) -> None:
    checkpoint.save(path, classifier.state_dict(), ABOUT | {"kind": "classifier", "width": 4, "classes": classes})
    with pytest.raises(UserError, match="doesn't name its classes"):
        checkpoint.load_classifier(path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(path: Path, classifier: Classifier, bad: float) -> None:
    tensors = classifier.state_dict()
    tensors["encoder.stem.0.weight"] = torch.full_like(tensors["encoder.stem.0.weight"], bad)
    checkpoint.save(path, tensors, ABOUT | {"kind": "classifier", "width": 4})
    assert "not all numbers" in refusal(path)


def test_facts_that_are_no_facts(path: Path) -> None:
    path.parent.mkdir(parents=True)
    for about in ("[1, 2]", "null", 100_000 * "["):
        path.write_bytes(serialize({"a": torch.ones(1)}, {"about": about}))
        assert "damaged or not a checkpoint" in refusal(path)


def test_headers_that_lie(path: Path, classifier: Classifier) -> None:
    checkpoint.save_classifier(path, classifier, Outlier(), ABOUT)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    whole = json.loads(content[8 : 8 + length])
    first, second = (name for name in list(whole)[1:3])

    def written(header: dict, stated: int | None = None) -> None:
        text = json.dumps(header).encode()
        size = (len(text) if stated is None else stated).to_bytes(8, "little")
        path.write_bytes(size + text + content[8 + length :])

    for stated in (2**40, 2**64 - 1):
        written(whole, stated)
        refusal(path)
    for fact, value in (
        ("data_offsets", whole[second]["data_offsets"]),
        ("data_offsets", [-1, 5]),
        ("shape", [2**62] * 2),
    ):
        written(whole | {first: whole[first] | {fact: value}})
        refusal(path)
    path.write_bytes(content + b"and more")
    refusal(path)


def test_a_file_of_very_many_gigabytes_is_not_read(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with open(path, "wb") as file:
        file.write((3 * 2**30).to_bytes(8, "little"))
        file.truncate(2**40)  # a hole, no bytes
    assert "too large" in refusal(path)
