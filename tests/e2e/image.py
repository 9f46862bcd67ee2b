"""The Dockerfile followed step by step without docker: a folder is its root, an environment of its own its Python."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from docker.utils import exclude_paths
from dockerfile_parse import DockerfileParser
from team import free_port

CONTEXT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PIP, UV = "pip install --no-cache-dir", f"{BIN}/uv pip install"  # which need not download anew
IMPORTED = "import mlflow, serve.app, serve.batch, serve.server, sslbt.cli"


@dataclass
class Image:
    """What a container would start from."""

    root: Path  # the working directory is `app` in it
    environment: dict[str, str]
    entrypoint: list[str]
    command: list[str]
    healthcheck: list[str]

    @property
    def folder(self) -> Path:
        return self.root / "app"

    @property
    def python(self) -> Path:
        return self.root / "python/bin/python"

    def start(self, *words: object, **variables: str) -> subprocess.Popen[str]:
        """A container with these words after its entrypoint."""
        return subprocess.Popen(
            [*self.entrypoint, *map(str, words)],
            cwd=self.folder,
            env=self.environment | variables,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, *words: object, **variables: str) -> tuple[int, str]:
        process = self.start(*words, **variables)
        said = process.communicate(timeout=300)[0]
        return process.returncode, said

    def healthy(self, port: int) -> bool:
        """Whether its health check passes, had it listened at its usual port."""
        words = [word.replace(":8080/", f":{port}/") for word in self.healthcheck]
        return subprocess.run(words, env=self.environment, stderr=subprocess.DEVNULL).returncode == 0


@contextmanager
def served(image: Image, *words: object, **variables: str) -> Iterator[int]:
    """The port at which a container of this image is ready."""
    port = free_port()
    assert not image.healthy(port)
    process = image.start(*words, "--port", port, **variables)
    try:
        until = time.monotonic() + 120
        while not image.healthy(port):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < until
        yield port
    finally:
        process.terminate()
        said = process.communicate(timeout=60)[0]
    assert "Traceback" not in said, said


def ask(port: int, name: str, data: bytes) -> list[float]:
    """The probabilities that a service gives a file."""
    answer = httpx.post(f"http://127.0.0.1:{port}/predict", files=[("files", (name, data))], timeout=60).json()
    (row,) = answer["predictions"]
    return [row[key] for key in row if key.startswith("p_")]


def build(root: Path, interpreter: str = sys.executable) -> Image:
    """Follow the Dockerfile with this Python; a step that isn't known here fails."""
    (root / "tmp").mkdir(parents=True)
    python = root / "python"
    subprocess.run([BIN / "uv", "venv", "-q", "-p", interpreter, python], check=True)
    image = Image(root, _outside(python), [], [], [])
    given = set(exclude_paths(str(CONTEXT), (CONTEXT / ".dockerignore").read_text().splitlines()))
    for step in DockerfileParser(str(CONTEXT / "Dockerfile")).structure:
        words = _within(root, step["value"])
        match step["instruction"]:
            case "COPY":
                *sources, target = shlex.split(words)
                for source in sources:
                    _copy(source, image.folder / target, given)
            case "RUN":
                words = words.replace(PIP, UV)
                own = image.environment | {"HOME": os.environ["HOME"]}  # where uv has its downloads
                subprocess.run(["sh", "-ec", words], check=True, cwd=image.folder, env=own)
            case "ENV":
                image.environment |= dict(pair.split("=", 1) for pair in shlex.split(words))
            case "ENTRYPOINT":
                image.entrypoint = json.loads(words)
            case "CMD":
                image.command = json.loads(words)
            case "HEALTHCHECK":
                image.healthcheck = json.loads(words.split("CMD ")[1])
            case "WORKDIR":
                Path(words).mkdir()
            case other:
                assert other in ("COMMENT", "FROM", "VOLUME", "USER", "EXPOSE"), other
    # Containers write no byte code, and pip, which this isn't, compiles everything: here what they import, once.
    writing = image.environment | {"PYTHONDONTWRITEBYTECODE": ""}
    subprocess.run(["python", "-c", IMPORTED], check=True, cwd=image.folder, env=writing)
    return image


def _outside(python: Path) -> dict[str, str]:
    """Of this process's variables those of a machine only, none that changes what a library does."""
    own = {name: value for name, value in os.environ.items() if not re.match("PYTHON|SSLBT|MLFLOW|PIP|ORT|CI", name)}
    if "PIP_FIND_LINKS" in os.environ:
        own["UV_FIND_LINKS"] = os.environ["PIP_FIND_LINKS"]
    return own | {"PATH": f"{python}/bin:{os.environ['PATH']}", "VIRTUAL_ENV": str(python), "HOME": f"{python}/nobody"}


def _within(root: Path, words: str) -> str:
    """The same with the image's own folders in `root`."""
    return re.sub(r"(?<![\w.])/(?=app\b|var/)", f"{root}/", words)


def _copy(source: str, target: Path, given: set[str]) -> None:
    """A file into a folder, or what a folder holds; only what docker would be given."""
    found = [name for name in given if name == source or name.startswith(f"{source}/")]
    files = [name for name in found if (CONTEXT / name).is_file()]
    assert files, f"{source} is not in the context"
    for name in files:
        place = target / Path(name).relative_to(source if (CONTEXT / source).is_dir() else Path(source).parent)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CONTEXT / name, place)
