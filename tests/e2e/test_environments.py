"""`--env-manager uv` builds the environment of conda.yaml by itself."""

import os


def test_uv_builds_its_own_environment(place, phantoms, monkeypatch):
    monkeypatch.setenv("MLFLOW_ENV_ROOT", str(place.folder / "environments"))
    if "PIP_FIND_LINKS" in os.environ:  # uv reads nothing of pip's, not even where to find a smaller torch
        monkeypatch.setenv("UV_FIND_LINKS", os.environ["PIP_FIND_LINKS"])
    code, said = place.mlflow_run("-e", "prepare", "-P", f"data={phantoms}", "--env-manager", "uv")
    assert code == 0, said
    (run,) = place.runs()
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.project.env"] == "uv"
    assert str(place.folder / "environments") in said, "the command ran in the environment that uv made"
