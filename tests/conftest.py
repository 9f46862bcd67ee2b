"""What all tests rely on."""

import gc
import signal

import pytest
from xdist.scheduler import LoadFileScheduling

# A job in the background, as CI may be, is started deaf to Ctrl-C, and so would be every process that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

LONG = ("tests/e2e/", "tests/torture/")
# They look at the main job that the fixture `finished` runs, which takes minutes.
SHARING_MAIN = {f"tests/e2e/test_{name}.py" for name in ("main", "evaluate", "service")}


class ByFile(LoadFileScheduling):
    """A file's tests go to one worker, those of the files that share a main job too, lest each worker run it."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "finished" if file in SHARING_MAIN else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile | None:
    return ByFile(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long first: at the end no worker is to wait for another's last minutes."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


def pytest_collection_finish() -> None:
    """What is loaded by now stays: to look through it takes half a second each time that somebody asks for it."""
    gc.freeze()
