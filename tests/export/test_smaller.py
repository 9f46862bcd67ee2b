"""The file with eight bits: how small, how near, and whether it is offered."""

import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from onnx import numpy_helper

from serve.session import Classifier
from sslbt.data.splits import Split
from sslbt.export import smaller
from sslbt.export.onnx import OUTPUTS, SALIENCY
from sslbt.export.smaller import eight_bits
from sslbt.steps import variant
from sslbt.steps.variant import beside, offer_smaller
from sslbt.tracking.models import RELEASED, SMALL_ONNX, onnx_file
from sslbt.tracking.run import Silent

KEPT = [name for name in OUTPUTS if name != SALIENCY]


def facts(path: Path) -> dict[str, str]:
    return {own.key: own.value for own in onnx.load(path).metadata_props}


def test_the_released_classifier_shrinks_to_a_quarter_and_answers_nearly_the_same(draw: Any, tmp_path: Path) -> None:
    whole, small = onnx_file(RELEASED), tmp_path / "small.onnx"
    eight_bits(whole, small, draw(32, 128, 128, seed=1))
    assert small.stat().st_size < 0.3 * whole.stat().st_size
    assert facts(small) == facts(whole) | {"variant": "eight bits"}
    image = {"image": draw(24, 200, 150, seed=2)}
    ours, theirs = (onnxruntime.InferenceSession(path).run(KEPT, image) for path in (whole, small))
    assert [own.shape for own in ours] == [own.shape for own in theirs]
    assert 0 < np.abs(ours[0] - theirs[0]).mean() < 0.05
    unlike = [np.corrcoef(one, other)[0, 1] for one, other in zip(ours[-1], theirs[-1], strict=True)]
    assert min(unlike) > 0.95  # features


def test_it_answers_alike_on_processors_that_add_products_in_sixteen_bits(
    exported: Any, draw: Any, tmp_path: Path
) -> None:
    """Without VNNI, two products of an activation and a weight are added in sixteen bits, and what is more is cut."""
    eight_bits(exported.path, tmp_path / "small.onnx", draw(8, 96, 96))
    tensors = onnx.load(tmp_path / "small.onnx").graph.initializer
    weights = [numpy_helper.to_array(own) for own in tensors if own.data_type == onnx.TensorProto.INT8 and own.dims]
    largest = max(int(np.abs(own.astype(int)).max()) for own in weights)
    assert largest > 32
    assert 2 * 255 * largest < 2**15


def test_the_smaller_file_has_no_saliency_and_needs_no_weights_for_it(exported: Any, draw: Any, tmp_path: Path) -> None:
    eight_bits(exported.path, tmp_path / "small.onnx", draw(8, 96, 96))
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx")
    assert [output.name for output in session.get_outputs()] == KEPT
    assert not session.get_overridable_initializers()
    graph = onnx.load(tmp_path / "small.onnx").graph
    assert all(
        tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < 4096 for tensor in graph.initializer
    )
    assert not Classifier.load(tmp_path / "small.onnx").explains


def test_a_file_that_was_cut_off_on_the_way_is_a_full_disk(
    exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(bare: Path, ready: Path, **_: object) -> None:  # as ONNX Runtime leaves it there, without a word
        onnx.load_from_string(bare.read_bytes()[:-1000])

    monkeypatch.setattr(smaller, "quant_pre_process", cut_off)
    with pytest.raises(OSError, match="No space left") as caught:
        eight_bits(exported.path, tmp_path / "small.onnx", [])
    assert caught.value.filename


def other_classes(whole: Path, out: Path) -> None:
    """The same network, its classes in another order."""
    model = onnx.load(whole)
    for tensor in model.graph.initializer:
        if tensor.dims and tensor.dims[0] == 3 and len(tensor.dims) <= 2:
            turned = np.roll(numpy_helper.to_array(tensor), 1, axis=0)
            tensor.CopyFrom(numpy_helper.from_array(turned, tensor.name))
    onnx.save(model, out)


def labelled(exported: Any, draw: Any) -> list[tuple[int, np.ndarray]]:
    """Pictures with what the network takes them for."""
    pictures = list(draw(12, 96, 96))
    return [(int(exported.ours(own[None])[0].argmax()), own) for own in pictures]


def test_what_is_lost_is_counted(exported: Any, draw: Any, tmp_path: Path) -> None:
    shutil.copyfile(exported.path, tmp_path / "same.onnx")
    other_classes(exported.path, tmp_path / "other.onnx")
    test = labelled(exported, draw)
    assert len({label for label, _ in test}) > 1
    same = beside(exported.path, tmp_path / "same.onnx", test)
    assert same == {"accuracy_lost": 0, "answers_changed": 0, "size": 1}
    assert beside(exported.path, tmp_path / "other.onnx", test)["accuracy_lost"] == 1


@pytest.mark.parametrize("good", [True, False])
def test_only_a_file_that_loses_less_than_a_point_is_offered(
    exported: Any, draw: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: bool
) -> None:
    told: dict[str, float] = {}

    class Told(Silent):
        def metrics(self, metrics: dict[str, float], *_: object, **__: object) -> None:
            told.update(metrics)

        def artifact(self, path: str) -> Any:
            return nullcontext(tmp_path / Path(path).name)

    made_of: list[int] = []

    def small(whole: Path, out: Path, pictures: np.ndarray) -> None:
        made_of.extend(int(own[0, 0]) for own in pictures)
        (shutil.copyfile if good else other_classes)(whole, out)

    monkeypatch.setattr(variant, "eight_bits", small)
    split = Split("patient", pd.DataFrame({"part": ["train"] * 5 + ["test"] * 3}))
    cache: Any = SimpleNamespace(pixels=np.arange(8)[:, None, None] * np.ones((1, 4, 4)))
    offer_smaller(exported.path, split, cache, labelled(exported, draw), Told("", tmp_path))
    assert (tmp_path / Path(SMALL_ONNX).name).exists() == good
    assert told["small/accuracy_lost"] == (0 if good else 1)
    assert made_of == [0, 1, 2, 3, 4]  # of training slices, never of test slices
