"""The classifier in service, exchanged while requests go on."""

import ctypes
import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serve.drift import Drift
from serve.reference import Reference
from serve.session import Classifier

LOOK_EVERY = 5.0  # seconds
SETTLING = 1.0  # seconds, until nobody asks the old model any more
CLOSING = 10.0  # seconds; a look that takes longer is left alone
log = logging.getLogger("uvicorn.error")


@dataclass(eq=False)
class Model:
    """A classifier, what it is called, and whether what it sees drifts; older files hold no reference to tell by."""

    classifier: Classifier
    name: str
    version: str

    def __post_init__(self) -> None:
        reference = Reference.from_metadata(self.classifier.metadata, self.classifier.channels)
        self.drift = Drift(reference) if reference else None


class Current:
    """Who answers now. A request keeps the model that it began with."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._ended = threading.Event()
        self._watcher: threading.Thread | None = None

    def watch(self, latest: Callable[[], tuple[str, Path]], every: float = LOOK_EVERY) -> None:
        """Look for another version now and every few seconds, in a thread of its own, and take it once it is loaded.

        Args:
            latest: which version is to be in service now, and its file; whatever it raises is logged, and the model
                in service stays.
            every: seconds between two looks.
        """
        self._watcher = threading.Thread(target=self._watch, args=(latest, every), daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """Look no more."""
        self._ended.set()
        if self._watcher:
            self._watcher.join(CLOSING)

    def _watch(self, latest: Callable[[], tuple[str, Path]], every: float) -> None:
        said = ""
        while not self._ended.is_set():
            try:
                version, path = latest()
                if version != self.model.version:
                    self.model = Model(Classifier.load(path), self.model.name, version)
                    log.info("version %s is in service now", version)
                    self._ended.wait(SETTLING)
                    _trim()
                said = ""
            except Exception as error:  # the registry is away, or the new file is broken: the old model goes on
                if said != str(error):
                    said = str(error)
                    log.warning("version %s stays in service: %s", self.model.version, said)
            self._ended.wait(every)


def _trim() -> None:
    """Give the memory of a model that is gone back to the system: glibc keeps it, and more with every exchange."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
