"""A team's tracking server as docs/server.md has it: PostgreSQL behind, artifacts through it, users with passwords."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

BIN = Path(sys.executable).parent
ADMIN = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "correct horse battery"}
AUTHENTICATION = """[mlflow]
default_permission = READ
database_uri = {database}
admin_username = admin
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
"""


def postgres_programs() -> Path | None:
    """Where Debian's package keeps them."""
    return next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def postgres() -> Iterator[str]:
    """The address of an empty PostgreSQL of one's own; it runs as another user, for it refuses to run as root."""
    programs, port = postgres_programs(), free_port()
    assert programs is not None
    as_other = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []

    def run(name: str, *words: object) -> None:
        subprocess.run(
            [*as_other, programs / name, *map(str, words)], check=True, stdout=subprocess.DEVNULL, cwd="/", timeout=120
        )

    folder = Path(tempfile.mkdtemp(prefix="pg"))  # not pytest's, which nobody else may enter
    if as_other:
        shutil.chown(folder, "postgres")
    try:
        run("initdb", "-D", folder / "data", "-A", "trust", "-U", "mlflow")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        run("pg_ctl", "-D", folder / "data", "-o", options, "-l", folder / "log", "-w", "start")
        try:
            for name in ("mlflow", "mlflow_auth"):
                run("createdb", "-h", "127.0.0.1", "-p", port, "-U", "mlflow", name)
            yield f"postgresql://mlflow@127.0.0.1:{port}"
        finally:
            run("pg_ctl", "-D", folder / "data", "-m", "fast", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def team_server(folder: Path) -> Iterator[str]:
    """The server's address; its artifacts lie in `folder`."""
    with postgres() as database:
        port = free_port()
        users = folder / "users.ini"
        password = ADMIN["MLFLOW_TRACKING_PASSWORD"]
        users.write_text(AUTHENTICATION.format(database=f"{database}/mlflow_auth", password=password))
        words = ["server", "--app-name", "basic-auth", "--host", "127.0.0.1", "--port", port, "--workers", 1]
        words += ["--backend-store-uri", f"{database}/mlflow", "--artifacts-destination", folder / "artifacts"]
        secrets = {"MLFLOW_AUTH_CONFIG_PATH": str(users), "MLFLOW_FLASK_SERVER_SECRET_KEY": "of the tests"}
        secrets["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # seven processes more, for nothing that is done here
        with open(folder / "server.log", "w") as log:
            server = subprocess.Popen(
                [BIN / "mlflow", *map(str, words)],
                env=os.environ | secrets,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                _wait(server, f"http://127.0.0.1:{port}/health", folder / "server.log")
                yield f"http://127.0.0.1:{port}"
            finally:
                os.killpg(server.pid, 9)
                server.wait()


def _wait(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    for _ in range(240):
        assert server.poll() is None, log.read_text()
        try:
            if httpx.get(address).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise AssertionError(log.read_text())
