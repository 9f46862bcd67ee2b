"""When a finished step may be used again."""

import shutil

import pytest

from sslbt.config import Finetune, PretrainEncoder
from sslbt.data.phantom import make_sample
from sslbt.tracking.run import step_key


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLBT_HOME", str(tmp_path / "home"))
    make_sample(tmp_path / "data", patients=3, size=32)
    return tmp_path / "data"


def key(data, **given):
    return step_key(PretrainEncoder.build(data=str(data), **given))


def test_it_follows_parameters_and_content_but_not_place(data, tmp_path):
    first = key(data)
    assert key(data) == first
    assert key(data, preset="quick", seed=0) == first
    assert key(data, epochs=PretrainEncoder.build().epochs) == first
    assert key(data, epochs=7) != first
    shutil.copytree(data, tmp_path / "elsewhere")
    assert key(tmp_path / "elsewhere") == first
    (tmp_path / "elsewhere" / "1.mat").unlink()
    assert key(tmp_path / "elsewhere") != first


def test_it_follows_the_content_of_a_file_of_labels(data, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("file,class\n1.mat,glioma\n")
    first = step_key(Finetune.build(data=str(data), labels=str(labels)))
    assert step_key(Finetune.build(data=str(data), labels=str(labels))) == first
    labels.write_text("file,class\n2.mat,glioma\n")
    assert step_key(Finetune.build(data=str(data), labels=str(labels))) != first


def test_it_follows_the_code(data, monkeypatch):
    first = key(data)
    monkeypatch.setattr("sslbt.tracking.run.code_digest", lambda: "another")
    assert key(data) != first
