"""The champion in service: `mlflow models serve` and `sslbt serve` answer alike for a PNG and a .mat."""

import base64
import io
import signal
import time

import httpx
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from team import free_port

from sslbt.data.formats import decode

CHAMPION = "models:/brain-tumor-classifier@champion"


@pytest.fixture(scope="module")
def files(phantoms) -> dict[str, bytes]:
    """One slice as .mat, and the same pixels as a 16-bit PNG."""
    mat = (phantoms / "1.mat").read_bytes()
    picture = io.BytesIO()
    Image.fromarray(decode(mat, "1.mat").astype(np.uint16)).save(picture, "PNG")
    return {"1.mat": mat, "1.png": picture.getvalue()}


def ask(process, port, path, **request):
    """The answer of a service that may still be starting."""
    for _ in range(120):
        if process.poll() is not None:
            raise AssertionError(process.communicate()[0])
        try:
            return httpx.post(f"http://127.0.0.1:{port}{path}", timeout=60, **request)
        except httpx.TransportError:
            time.sleep(0.5)
    raise AssertionError("it never answered")


def rows_of(predictions):
    scores = [{key: row[key] for key in row if key.startswith("p_")} for row in predictions]
    return [row["label"] for row in predictions], pd.DataFrame(scores).to_numpy(float)


def test_both_services_answer_for_a_png_and_a_mat(finished, files):
    place, _ = finished
    expected = pd.read_csv(place.folder / "scores.csv").set_index("file").loc["1.mat"]
    request = {"dataframe_split": {"columns": ["image"], "data": []}}
    request["dataframe_split"]["data"] = [[base64.b64encode(data).decode()] for data in files.values()]
    answers = []
    for words in (["mlflow", "models", "serve", "--env-manager", "local", "-m", CHAMPION], ["sslbt", "serve"]):
        port = free_port()
        service = place.start(*words, "--port", port)
        try:
            answer = ask(service, port, "/invocations", json=request)
            assert answer.status_code == 200, answer.text
            answers.append(rows_of(answer.json()["predictions"]))
            if words[0] == "sslbt":
                uploads = [("files", (name, data)) for name, data in files.items()]
                answers.append(rows_of(ask(service, port, "/predict", files=uploads).json()["predictions"]))
        finally:
            said = place.stop(service, signal.SIGTERM)
        assert "Traceback" not in said, said
    for labels, scores in answers:
        assert labels == [expected.label] * 2
        np.testing.assert_allclose(scores, [expected.filter(like="p_").to_numpy(float)] * 2, atol=1e-5)


def test_score_takes_one_picture(finished, files, tmp_path):
    place, _ = finished
    (tmp_path / "one.png").write_bytes(files["1.png"])
    code, said = place.run("sslbt", "score", "--input", tmp_path / "one.png", "--output", tmp_path / "one.parquet")
    assert code == 0, said
    table = pd.read_parquet(tmp_path / "one.parquet")
    assert list(table.file) == ["one.png"]
    expected = pd.read_csv(place.folder / "scores.csv").set_index("file").loc["1.mat"]
    assert table.label[0] == expected.label
    assert table.confidence[0] == pytest.approx(expected.confidence, abs=1e-5)
