"""A new sqlite store is there as a whole or not at all."""

import sqlite3
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace

import pytest

import sslbt_store
from sslbt_store import _whole, registry_store, tracking_store


def build(uri: str) -> SimpleNamespace:
    """Does what MLflow does where there are no tables: makes them."""
    path = uri.removeprefix("sqlite:///")
    with sqlite3.connect(path) as file:
        file.execute("create table if not exists runs (id)")
    file.close()
    return SimpleNamespace(engine=SimpleNamespace(dispose=lambda: None), path=path)


def test_mlflow_finds_it() -> None:
    for kind, function in (("tracking", tracking_store), ("model_registry", registry_store)):
        (found,) = (one for one in entry_points(group=f"mlflow.{kind}_store") if one.name == "sqlite")
        assert found.load() is function


def test_a_file_appears_with_its_tables_and_nothing_beside_it(tmp_path: Path) -> None:
    place = tmp_path / "folder" / "mlflow.db"
    assert _whole(build, f"sqlite:///{place}").path == str(place)
    assert list(tmp_path.rglob("*")) == [place.parent, place]
    with sqlite3.connect(place) as file:
        assert file.execute("select name from sqlite_master").fetchall() == [("runs",)]
    file.close()


def test_who_is_second_takes_the_file_of_the_first(tmp_path: Path) -> None:
    place = tmp_path / "mlflow.db"

    def beaten(uri: str) -> SimpleNamespace:
        if not place.exists():
            place.write_text("of the first")
        return SimpleNamespace(engine=SimpleNamespace(dispose=lambda: Path(uri[10:]).touch()))

    _whole(beaten, f"sqlite:///{place}")
    assert place.read_text() == "of the first"
    assert list(tmp_path.iterdir()) == [place]


def test_an_end_in_the_middle_leaves_no_file(tmp_path: Path) -> None:
    def killed(uri: str) -> SimpleNamespace:
        build(uri)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _whole(killed, f"sqlite:///{tmp_path}/mlflow.db")
    assert list(tmp_path.iterdir()) == []


def test_without_hard_links_it_is_made_as_mlflow_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(sslbt_store.os, "link", refuse)
    _whole(build, f"sqlite:///{tmp_path}/mlflow.db")
    assert list(tmp_path.iterdir()) == [tmp_path / "mlflow.db"]


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:name?mode=memory&uri=true"])
def test_what_is_no_file_is_left_to_mlflow(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    built: list[str] = []
    _whole(built.append, uri)
    assert built == [uri]
    assert list(tmp_path.iterdir()) == []
