"""The classifier as an MLflow model: logged, loaded without pickle or torch, and served by MLflow itself."""

import base64
import io
import json
import subprocess
import sys
from pathlib import Path

import httpx
import mlflow
import numpy as np
import onnxruntime
import pandas as pd
import pytest
from PIL import Image
from stores import tracking_at

import serve
from serve.package import log_arguments

CLASSES = ("meningioma", "glioma", "pituitary")
ROOT = str(Path(serve.__file__).parents[1])


@pytest.fixture(scope="module")
def logged(tmp_path_factory, model):
    """The folder of the model, logged to a store of its own."""
    store = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
        with tracking_at(f"sqlite:///{store}/mlflow.db"):
            experiment = mlflow.create_experiment("serve", artifact_location=f"file://{store}/artifacts")
            with mlflow.start_run(experiment_id=experiment), log_arguments(model) as arguments:
                uri = mlflow.pyfunc.log_model(name="model", **arguments).model_uri
            yield Path(mlflow.artifacts.download_artifacts(uri))


@pytest.fixture(scope="module")
def loaded(logged):
    return mlflow.pyfunc.load_model(str(logged))


def test_bytes_and_base64_give_the_same_rows(loaded, classifier, mat, png, pixels):
    text = base64.b64encode(png).decode()
    by_bytes = loaded.predict(pd.DataFrame({"image": [mat, png]}, index=["a", "b"]))
    by_text = loaded.predict(pd.DataFrame({"image": [base64.b64encode(mat).decode(), text]}, index=["a", "b"]))
    pd.testing.assert_frame_equal(by_bytes, by_text)
    (expected,) = classifier.rows([pixels])
    assert by_bytes.loc["a"].to_dict() == expected


def test_every_format_gives_the_numbers_of_the_bare_file(loaded, model, mat, png, jpeg, dicom, pixels, tmp_path):
    session = onnxruntime.InferenceSession(model)
    eight_bits, lossy = (np.asarray(Image.open(io.BytesIO(data))) for data in (png, jpeg))
    raw = [pixels, eight_bits, lossy, pixels]
    expected = [session.run(["probabilities"], {"image": own[None].astype(np.float32)})[0][0] for own in raw]
    frame = pd.DataFrame({"image": [mat, png, jpeg, dicom]})
    frame.to_parquet(tmp_path / "slices.parquet")
    text = frame.map(lambda data: base64.b64encode(data).decode())
    for asked in (frame, pd.read_parquet(tmp_path / "slices.parquet"), text):
        found = loaded.predict(asked)
        np.testing.assert_allclose(found[[f"p_{name}" for name in CLASSES]], expected, atol=1e-6)
        assert not found.label.isna().any()


def test_predict_of_the_command_line_gives_the_same(logged, loaded, mat, jpeg, tmp_path):
    cells = [base64.b64encode(data).decode() for data in (mat, jpeg, b"broken")]
    (tmp_path / "in.json").write_text(
        json.dumps({"dataframe_split": {"columns": ["image"], "data": [[c] for c in cells]}})
    )
    words = [
        "models",
        "predict",
        "-m",
        logged,
        "-i",
        "in.json",
        "-o",
        "out.json",
        "-t",
        "json",
        "--env-manager",
        "local",
    ]
    command = [sys.executable, "-m", "mlflow", *map(str, words)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())["predictions"]
    expected = loaded.predict(pd.DataFrame({"image": cells})).to_dict("records")
    assert found == expected
    assert [row["label"] is None for row in found] == [False, False, True]


def test_raw_pixels_pass_the_signature_as_a_column(loaded, classifier, pixels):
    tensor = np.stack([pixels, pixels[:, ::-1]])
    as_cells = loaded.predict(pd.DataFrame({"image": list(tensor)}))
    as_tensor = loaded.predict({"image": tensor})
    pd.testing.assert_frame_equal(as_cells, as_tensor)
    np.testing.assert_allclose(as_cells["p_glioma"].astype(float), classifier.scores(list(tensor)).probabilities[:, 1])


def test_a_bad_picture_costs_its_own_row_only(loaded, png):
    table = loaded.predict(pd.DataFrame({"image": [b"broken", png, None]}))
    assert table["label"].isna().tolist() == [True, False, True]
    assert table["abstain"].tolist()[0] is True
    assert table["reason"][2].startswith("row 2: ")
    assert table["p_glioma"][0] is None


def test_it_is_code_and_loads_nothing_but_its_own(logged, png, tmp_path):
    assert not list(logged.rglob("*.pkl"))
    code = """
import sys
sys.modules["torch"] = None  # importing it fails from here on
import mlflow, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
print(model.predict(pandas.DataFrame({"image": [sys.stdin.buffer.read()]}))["label"][0])
ours = [m for name, m in sys.modules.items() if name.split(".")[0] in ("serve", "sslbt")]
strangers = [m.__file__ for m in ours if not m.__file__.startswith(sys.argv[1])]
assert ours and not strangers, strangers
import sslbt.data.files  # what is not the model's own stays in reach
"""
    environment = {
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONPATH": ROOT,
    }
    command = [sys.executable, "-c", code, str(logged)]
    done = subprocess.run(command, input=png, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().strip() in ("meningioma", "glioma", "pituitary")


def test_requirements_are_pinned_and_without_torch(logged):
    lines = (logged / "requirements.txt").read_text().split()
    assert all("==" in line for line in lines)
    assert not any(line.startswith("torch") for line in lines)


def test_mlflow_serves_the_same_answers_as_our_service(logged, start, start_service, mat, png):
    def command(port):
        serve = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(logged), "--env-manager", "local"]
        return [*serve, "--host", "127.0.0.1", "--port", str(port)]

    theirs, ours = start(command).address, start_service().address
    cells = [base64.b64encode(data).decode() for data in (png, mat, png[:500])]
    requests = [
        {"dataframe_split": {"columns": ["image"], "data": [[cell] for cell in cells]}},
        {"dataframe_records": [{"image": cell} for cell in cells]},
        {"instances": [{"image": cell} for cell in cells]},
        {"inputs": {"image": cells}},
        {"inputs": cells},
    ]
    for request in requests:
        answers = [httpx.post(f"{server}/invocations", json=request, timeout=60) for server in (theirs, ours)]
        assert [answer.status_code for answer in answers] == [200, 200]
        first, second = (json.loads(answer.text, parse_constant=pytest.fail) for answer in answers)
        assert first == second
        assert [row["label"] is None for row in first["predictions"]] == [False, False, True]

    mistakes = [
        {"json": {"dataframe_split": {"columns": ["picture"], "data": [[cells[0]]]}}},
        {"json": {"nonsense": cells}},
        {"content": b"{", "headers": {"Content-Type": "application/json"}},
    ]
    for mistake in mistakes:
        for server in (theirs, ours):
            answer = httpx.post(f"{server}/invocations", timeout=60, **mistake)
            assert answer.status_code == 400
            assert "error_code" in answer.json()
            for trace in ("Traceback", 'File "', "stack_trace"):
                assert trace not in answer.text
