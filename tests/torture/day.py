"""A stranger's day: a fresh clone in a home of its own, small data, and every command as it is shown."""

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
import venv
from dataclasses import dataclass, field
from pathlib import Path

import strangers_data
from mlflow import MlflowClient
from mlflow.entities import Run
from shown import ROOT, Command
from team import free_port

SMALL = {"epochs": "2", "size": "32", "width": "8", "num_pairs": "256"}
SERVERS = {"sslbt serve": (8080, "/ready"), "mlflow ui": (5000, "/health"), "mlflow models serve": (5001, "/ping")}
PORTS = (8080, 9000, 5000, 5001)
MADE = ("suggested.csv", "first.csv", "none.csv", "model-repository", "scores.csv", "scores.parquet")
PATIENT = "patient"  # the split where none is given
MINUTES = 30  # a command


@dataclass
class Day:
    """Where it is spent; whatever is said is kept beside it in `said`."""

    folder: Path
    ports: dict[int, int] = field(default_factory=lambda: {port: free_port() for port in PORTS})
    servers: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    @classmethod
    def begin(cls, folder: Path) -> "Day":
        """Clone, make every training small, lay out what commands take."""
        day = cls(folder)
        subprocess.run(["git", "clone", "-q", ROOT, day.clone], check=True)
        for preset in (day.clone / "sslbt/presets").glob("*.toml"):
            small = preset.read_text()
            for name, value in SMALL.items():
                small = re.sub(rf"^{name} = \d+", f"{name} = {value}", small, flags=re.M)
            preset.write_text(small)
        day._install()
        strangers_data.lay(folder / "home", day.clone)
        (folder / "said").mkdir()
        environment = day.folder / "environment.sh"
        environment.write_text(f"export HOME='{folder}/home' SSLBT_HOME='{folder}/cache'\ncd '{day.clone}'\n")
        return day

    @property
    def clone(self) -> Path:
        return self.folder / "clone"

    def begin_page(self) -> None:
        """As on another day: nothing of the last page's answers lies about, files that pages name do."""
        for name in MADE:
            shutil.rmtree(self.clone / name) if (self.clone / name).is_dir() else (self.clone / name).unlink(True)
        if registered := self.runs("register"):
            files = {
                "onnx/classifier.onnx": registered[0].info.run_id,
                "checkpoint/encoder.safetensors": self.id_of("pretrain-contrastive"),
                "checkpoint/classifier.safetensors": self.id_of("finetune", scratch=False),
            }
            for path, run_id in files.items():
                shutil.copy(self.client.download_artifacts(run_id, path), self.clone)
            # Trained so little, eight bits may lose too much to be offered.
            shutil.copy(self.clone / "classifier.onnx", self.clone / "classifier_int8.onnx")

    def end_page(self) -> None:
        """Stop its servers."""
        for port in list(self.servers):
            self._stop(port)

    def do(self, command: Command) -> str:
        """Run it, or start it if it serves; what is wrong with it, or nothing."""
        try:
            text = self.filled(command.text)
            kind = next((kind for kind in SERVERS if text.startswith(kind)), "")
            code, said = self._serve(kind, text) if kind else self.shell(text)
        except (LookupError, ValueError, subprocess.TimeoutExpired) as error:
            return f"{command}\n    {error!r}"
        with open(self.folder / "said" / f"{command.page.replace('/', '_')}.txt", "a") as kept:
            kept.write(f"$ {text}\n{said}\n")
        if not code and text.startswith("sslbt suggest"):
            table = named[1] if (named := re.search(r"--output (\S+)", text)) else "suggested.csv"
            strangers_data.fill_in(self.clone / table, self.folder / "home")
        if text.startswith("sslbt rollback") and "no previous in" in said:
            code = 0  # trained so little, the second version need not be better, and the first is still in service
        wrong = f"exit code {code}" if code else "a traceback" if "Traceback (most recent" in said else ""
        return f"{command}\n    {wrong}: {said[-1500:]}" if wrong else ""

    def shell(self, text: str) -> tuple[int, str]:
        """Exit code and everything said; what is exported stays so for the next command."""
        state = self.folder / "environment.sh"
        keep = f"export -p > {state}.new && echo cd '\"{self.clone}\"' >> {state}.new && mv {state}.new {state}"
        done = subprocess.run(
            ["bash", "-c", f". {state}\n{text.removesuffix('&')}\ncode=$?\n{keep}\nexit $code"],
            env=self._bare(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=60 * MINUTES,
        )
        return done.returncode, done.stdout

    def filled(self, text: str) -> str:
        """The command with ids of runs that are there, and ports that are free."""
        text = re.sub(r"\s+#.*", "", text)
        text = re.sub(r"^curl ", "curl -fsS ", text)
        text = re.sub(r"--minutes \d+", "--minutes 1", text)
        for port, free in self.ports.items():
            text = re.sub(rf"\b{port}\b", str(free), text)
        split = asked[1] if (asked := re.search(r"--split (\S+)", text)) else PATIENT
        newest = {
            r"(?<=--pretrained )(RUN_ID|ENCODER)": lambda: self.id_of("pretrain-contrastive", split),
            r"(?<=--model )RUN_ID": lambda: self.id_of("finetune", split, scratch=False),
            r"(?<=--run-id )RUN_ID": lambda: self.runs("register")[0].info.run_id,
            r"(?<=--scratch )RUN_ID": lambda: self.id_of("finetune", split, scratch=True),
            r"\bRUN RUN(\.\.\.)?": self.alike,
            r"\bBEST_RUN\b": lambda: self.runs("sweep")[0].data.tags["best_run"],
            r"\bOTHER\b": lambda: "~/png",
            r"\bENCODER\.\.\.": lambda: "encoder.safetensors",
        }
        for shape, value in newest.items():
            if re.search(shape, text):
                text = re.sub(shape, value(), text)
        return text

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.clone}/mlflow.db")

    def runs(self, stage: str) -> list[Run]:
        """Finished ones of ~/figshare, the newest first."""
        condition = f"tags.stage = '{stage}' and attributes.status = 'FINISHED'"
        found = self.client.search_runs(["0"], condition, order_by=["attributes.start_time DESC"])
        return [run for run in found if "figshare" in run.data.params.get("config/data", "figshare")]

    def id_of(self, stage: str, split: str = PATIENT, scratch: bool | None = None) -> str:
        """Of the newest run with that split; of a fine-tuning with or without pretraining if that is asked."""
        for run in self.runs(stage):
            of = run.data.params
            if of["config/split"] == split and scratch in (None, of.get("config/pretrained") == "none"):
                return run.info.run_id
        raise LookupError(f"no finished {stage} with split={split}")

    def alike(self) -> str:
        """Two evaluations on the same slices."""
        first, *others = self.runs("evaluate")
        hashed = [run.data.tags.get("split_hash") for run in (first, *others)]
        second = others[hashed[1:].index(hashed[0])]
        return f"{first.info.run_id} {second.info.run_id}"

    def _install(self) -> None:
        """What `make install` does, from the packages of this environment: commands and a path, no download."""
        place = self.clone / ".venv"
        venv.create(place, symlinks=True, with_pip=False)
        (packages,) = place.glob("lib/*/site-packages")
        (packages / "all.pth").write_text(f"{self.clone}\n{sysconfig.get_path('purelib')}\n")
        for script in (Path(sys.prefix) / "bin").iterdir():
            content = script.read_bytes() if script.is_file() and script.stat().st_size < 100_000 else b""
            if re.match(rb"#!.*python", content) and not (place / "bin" / script.name).exists():
                own = place / "bin" / script.name
                own.write_bytes(re.sub(rb"^#!.*", f"#!{place}/bin/python".encode(), content, count=1))
                own.chmod(0o755)
        (place / "installed").touch()

    def _serve(self, kind: str, text: str) -> tuple[int, str]:
        port, address = SERVERS[kind]
        asked = re.search(r"--port (\d+)", text)
        port = int(asked[1]) if asked else self.ports[port]
        self._stop(port)
        words = text if asked else f"{text} --port {port}"
        log = self.folder / f"server-{port}.log"
        with open(log, "wb") as kept:
            server = subprocess.Popen(
                ["bash", "-c", f". {self.folder}/environment.sh\nexec {words}"],
                env=self._bare(),
                stdout=kept,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.servers[port] = server
        until = time.monotonic() + 60 * MINUTES
        while server.poll() is None and time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{address}", timeout=60):
                    return 0, f"{log.read_text()}\n(answers at {address})"
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        return 1, log.read_text()

    def _stop(self, port: int) -> None:
        if server := self.servers.pop(port, None):
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(60)
            finally:
                if server.poll() is None:
                    os.killpg(server.pid, signal.SIGKILL)

    @staticmethod
    def _bare() -> dict[str, str]:
        ours = ("MLFLOW_", "PYTEST_", "PYTHONPATH", "SSLBT_", "VIRTUAL_ENV", "MAKE")
        left = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        there = [folder for folder in left["PATH"].split(os.pathsep) if not Path(folder, "mlflow").exists()]
        return left | {"PATH": os.pathsep.join(there)}
