"""How much memory work takes at most."""

import threading

import psutil


class PeakMemory:
    """The most that this process and its children held at once (proportional set size), bytes, sampled."""

    def __enter__(self) -> "PeakMemory":
        self.peak, self.done = 0, threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()

    def _watch(self) -> None:
        this = psutil.Process()
        while not self.done.wait(0.1):
            held = 0
            for process in [this, *this.children(recursive=True)]:
                try:
                    held += process.memory_full_info().pss
                except psutil.Error:
                    continue
            self.peak = max(self.peak, held)
