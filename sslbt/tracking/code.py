"""Which code made a run."""

import hashlib
import subprocess
from functools import cache
from pathlib import Path

import sslbt

PACKAGE = Path(sslbt.__file__).parent


@cache
def code_version() -> str:
    """The git commit, `-dirty` where the tree differs from it; the package's version outside a checkout."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("-dirty" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return sslbt.__version__


@cache
def code_digest() -> str:
    """Changes with any source file of the package, committed or not."""
    seen = hashlib.sha256()
    for path in sorted(p for p in PACKAGE.rglob("*") if p.suffix in (".py", ".toml")):
        seen.update(path.relative_to(PACKAGE).as_posix().encode() + path.read_bytes())
    return seen.hexdigest()[:16]


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", PACKAGE, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()
