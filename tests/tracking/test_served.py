"""Which version a registry address means, and its file on this machine."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from sslbt.errors import UserError
from sslbt.tracking import store as tracking_store
from sslbt.tracking.served import DIGEST, latest, parts, remembered

Put = Callable[[str], str]


@pytest.fixture
def put(store: MlflowClient, experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Put a version of the model `served` whose file holds this text into service; gives its number."""
    monkeypatch.setenv("SSLBT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def put(text: str) -> str:
        source = tmp_path / text
        (source / "artifacts").mkdir(parents=True)
        (source / "artifacts/classifier.onnx").write_text(text)
        if not store.search_registered_models("name = 'served'"):
            store.create_registered_model("served")
        number = str(store.create_model_version("served", source.as_uri()).version)
        store.set_registered_model_alias("served", "champion", number)
        return number

    yield put
    store.delete_registered_model("served")


def test_an_address_is_its_version_of_now_and_each_version_is_fetched_once(
    put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, fetched = "models:/served@champion", []
    download = tracking_store.download
    monkeypatch.setattr(tracking_store, "download", lambda *words: fetched.append(words[0]) or download(*words))
    assert remembered(address) is None
    first = put("one")
    number, file = latest(address)
    assert (number, file.read_text()) == (first, "one")
    second = put("two")
    assert remembered(address) == (first, file)  # nobody has asked since
    assert latest(address)[0] == second
    assert remembered(address) == latest(address)
    assert latest(f"models:/served/{first}") == (first, file)  # as it was, not overwritten
    assert file.read_text() == "one"
    assert remembered(f"models:/served/{first}") == (first, file)
    assert fetched == [f"models:/served/{number}/artifacts/classifier.onnx" for number in (first, second)]


def test_asking_again_writes_nothing(put: Put, tmp_path: Path) -> None:
    def written() -> dict[Path, tuple[int, int]]:
        files = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}

    put("one")
    latest("models:/served@champion")
    before = written()
    latest("models:/served@champion")
    assert written() == before


def test_a_version_of_a_name_given_anew_is_another_file(put: Put, store: MlflowClient) -> None:
    first = put("one")
    latest("models:/served@champion")
    store.delete_registered_model("served")
    assert put("two") == first
    assert latest("models:/served@champion")[1].read_text() == "two"


def test_another_store_or_folder_remembers_nothing(put: Put, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put("one")
    address = "models:/served@champion"
    assert remembered(address) is None
    latest(address)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("MLFLOW_TRACKING_URI", "http://another")
        assert remembered(address) is None
    with monkeypatch.context() as elsewhere:
        elsewhere.chdir("/")
        assert remembered(address) is None
    latest(address)[1].unlink()
    assert remembered(address) is None


def test_what_there_is_not_is_said(put: Put, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^served: no champion in sqlite"):
        latest("models:/served@champion")
    number = put("one")
    with pytest.raises(UserError, match=r"^served: no version 9 in sqlite"):
        latest("models:/served/9")
    (tmp_path / "one/artifacts/classifier.onnx").unlink()
    with pytest.raises(UserError, match=rf"^models:/served@champion: version {number} has no classifier.onnx"):
        latest("models:/served@champion")
    assert remembered("models:/served@champion") is None


@pytest.mark.parametrize("address", ["models:/", "models:/name", "models:/name@", "models:/a/b/c", "runs:/1/x"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UserError, match=f"^{address}: no registry address; give models:/NAME@ALIAS"):
        parts(address)


def test_a_file_exchanged_after_it_was_registered_is_refused(put: Put, store: MlflowClient, tmp_path: Path) -> None:
    number = put("registered")
    digest = hashlib.sha256(b"registered").hexdigest()
    store.set_model_version_tag("served", number, DIGEST, digest)
    file = tmp_path / "registered/artifacts/classifier.onnx"
    file.write_text("exchanged")
    with pytest.raises(UserError, match=rf"version {number} is not the one registered; register it again"):
        latest("models:/served@champion")
    assert remembered("models:/served@champion") is None
    file.write_text("registered")
    assert latest("models:/served@champion")[1].read_text() == "registered"


def test_a_fetched_file_that_was_changed_is_refused_also_without_the_registry(put: Put) -> None:
    put("fetched")
    _, file = latest("models:/served@champion")
    file.write_text("changed")
    for ask in (latest, remembered):
        with pytest.raises(UserError, match=r"classifier\.onnx: changed since it was made; remove .*/served/"):
            ask("models:/served@champion")
