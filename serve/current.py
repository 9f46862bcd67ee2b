"""The classifier in service, exchanged while requests go on."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serve.session import Classifier

LOOK_EVERY = 5.0  # seconds
log = logging.getLogger("uvicorn.error")


@dataclass(frozen=True)
class Model:
    """A classifier and what it is called."""

    classifier: Classifier
    name: str
    version: str


class Current:
    """Who answers now. A request keeps the model that it began with."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def watch(self, latest: Callable[[], tuple[str, Path]], every: float = LOOK_EVERY) -> None:
        """Look for another version now and every few seconds, in a thread of its own, and take it once it is loaded.

        Args:
            latest: which version is to be in service now, and its file; whatever it raises is logged, and the model
                in service stays.
            every: seconds between two looks.
        """
        threading.Thread(target=self._watch, args=(latest, every), daemon=True).start()

    def _watch(self, latest: Callable[[], tuple[str, Path]], every: float) -> None:
        said = ""
        while True:
            try:
                version, path = latest()
                if version != self.model.version:
                    self.model = Model(Classifier.load(path), self.model.name, version)
                    log.info("version %s is in service now", version)
                said = ""
            except Exception as error:  # the registry is away, or the new file is broken: the old model goes on
                if said != str(error):
                    said = str(error)
                    log.warning("version %s stays in service: %s", self.model.version, said)
            time.sleep(every)
