"""Whatever the service's own OpenAPI allows, and some of what it does not, as schemathesis makes it up: no 5xx."""

import time
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from size import times

import sslbt
from serve.app import create_app
from serve.current import Current, Model
from serve.session import Classifier

RELEASED = Path(sslbt.__file__).with_name("released") / "classifier.onnx"
ADDRESSES = 16


# Its pytest plugin wants an older pytest (`-p no:schemathesis` in pyproject.toml); hypothesis draws as well.
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_is_too_much(mode: GenerationMode) -> None:
    app = create_app(Current(Model(Classifier.load(RELEASED), "m", "1")))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) >= ADDRESSES
    asked: list[int] = []
    for operation in operations:

        @seed(9)
        @settings(max_examples=times(10, 1000), deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy(generation_mode=mode))
        def ask(case: Case) -> None:
            if "name" in (case.path_parameters or {}) and len(str(case.body)) % 2:
                case.path_parameters["name"] = "m"  # or hardly any would be of the model that there is
            began = time.process_time()
            answer = case.call()
            asked.append(answer.status_code)
            assert answer.status_code < 500, answer.text
            assert time.process_time() - began < 2

        with suppress(Unsatisfiable) if mode == GenerationMode.NEGATIVE else nullcontext():
            ask()  # where everything is allowed nothing can be wrong
    assert {200, 400} <= {*asked}
    assert len(asked) >= times(50, 5000)
