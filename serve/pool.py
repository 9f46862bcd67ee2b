"""Scoring threads behind a bounded queue: what has queued meanwhile goes through the network together."""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fastapi import HTTPException

from serve.pictures import Picture
from serve.session import Classifier, Row, Scores
from sslbt.cores import cores

MOST_TOGETHER = 4  # pictures; on a CPU more of them leave the cache and take longer each
CLOSING = 10.0  # seconds; a picture that takes longer is left alone
WAITING = 64  # pictures a thread may have waiting: about half a second's work

Told = Callable[[Picture, Row, Scores | None], dict[str, Any]]


class Busy(HTTPException):
    """More waits than should; `seconds` from now there will be room."""

    def __init__(self, seconds: int) -> None:
        super().__init__(503, f"the service is busy; try again in {seconds} s", {"Retry-After": str(seconds)})


@dataclass
class Request:
    """Pictures that one caller waits for, all answered by one classifier."""

    classifier: Classifier
    pictures: Sequence[Callable[[], Picture]]
    saliency: bool
    told: Told
    done: asyncio.Future
    loop: asyncio.AbstractEventLoop
    rows: list[dict[str, Any]] = field(default_factory=list)
    missing: int = 0

    def __post_init__(self) -> None:
        self.rows = [{} for _ in self.pictures]
        self.missing = len(self.pictures)

    def goes_with(self, other: "Request") -> bool:
        return self.classifier is other.classifier and self.saliency == other.saliency


Piece = tuple[Request, int]  # one picture of a request


class Pool:
    """As many threads as cores, each decoding and scoring; ONNX Runtime and the decoders let go of Python meanwhile.

    Args:
        seen: told of every batch: who was asked, rows and scores, for metrics.
    """

    def __init__(self, seen: Callable[[Classifier, list[Row], Scores], None], threads: int | None = None) -> None:
        self.threads = threads or cores()
        self.capacity = WAITING * self.threads
        self._seen = seen
        self._waiting: deque[Piece] = deque()
        self._ready = threading.Condition()
        self._closed = False
        self._seconds = 0.01  # a picture lately takes
        self._workers = [threading.Thread(target=self._work, daemon=True) for _ in range(self.threads)]
        for worker in self._workers:
            worker.start()

    @property
    def waiting(self) -> int:
        """Pictures that nobody has begun."""
        return len(self._waiting)

    def check(self, more: int = 1) -> None:
        """Is there room for so many more pictures?

        Raises:
            Busy: not now.
            HTTPException: 413, there never is for so many.
        """
        if more > self.capacity:
            many = f"{more} pictures at once, at most {self.capacity} fit"
            raise HTTPException(413, f"{many}; send fewer, or use `sslbt score`")
        if self.waiting + more > self.capacity:
            raise Busy(math.ceil(self.waiting * self._seconds / self.threads) or 1)

    async def score(
        self, classifier: Classifier, pictures: Sequence[Callable[[], Picture]], told: Told, saliency: bool = False
    ) -> list[dict[str, Any]]:
        """What `told` makes of every picture's row, in order.

        Args:
            classifier: who is asked, for all of them.
            pictures: decode one picture each.
            told: a picture, its row and its own scores (None where unreadable) to what the caller gets.
            saliency: whether the scores are to say where the class was seen.

        Raises:
            Busy: there is no room for them.
            HTTPException: 413, there never is for so many.
        """
        if not pictures:
            return []
        self.check(len(pictures))
        loop = asyncio.get_running_loop()
        request = Request(classifier, pictures, saliency, told, loop.create_future(), loop)
        with self._ready:
            self._waiting.extend((request, place) for place in range(len(pictures)))
            self._ready.notify(len(pictures))
        await request.done
        return request.rows

    def close(self) -> None:
        """End the threads once nothing waits, or a picture takes for ever."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()
        for worker in self._workers:
            worker.join(CLOSING)

    def _work(self) -> None:
        while pieces := self._take():
            began = time.perf_counter()
            self._answer_each(pieces)
            self._seconds += 0.05 * ((time.perf_counter() - began) / len(pieces) - self._seconds)

    def _take(self) -> list[Piece]:
        """This thread's share of what waits, as far as it can go through the network together."""
        with self._ready:
            while not self._waiting and not self._closed:
                self._ready.wait()
            share = min(MOST_TOGETHER, math.ceil(len(self._waiting) / self.threads))
            pieces: list[Piece] = []
            while len(pieces) < share and (not pieces or self._waiting[0][0].goes_with(pieces[0][0])):
                pieces.append(self._waiting.popleft())
            return pieces

    def _answer_each(self, pieces: list[Piece]) -> None:
        """All together; where that fails one by one, so that a fault reaches nobody but its own caller."""
        try:
            self._answer(pieces)
        except Exception as error:
            if len(pieces) == 1:
                _tell(pieces[0][0], error)
            else:
                for piece in pieces:
                    self._answer_each([piece])

    def _answer(self, pieces: list[Piece]) -> None:
        first, _ = pieces[0]
        pictures = [request.pictures[place]() for request, place in pieces]
        readable = [picture for picture in pictures if isinstance(picture, np.ndarray)]
        scores = first.classifier.scores(readable, first.saliency)
        rows = list(first.classifier.told(pictures, scores))
        each = iter(range(len(readable)))
        answers = []
        for (request, _), picture, row in zip(pieces, pictures, rows, strict=True):
            own = scores.of(next(each)) if isinstance(picture, np.ndarray) else None
            answers.append(request.told(picture, row, own))
        self._seen(first.classifier, rows, scores)
        for (request, place), answer in zip(pieces, answers, strict=True):
            request.rows[place] = answer
            with self._ready:
                request.missing -= 1
                last = request.missing == 0
            if last:
                _tell(request)


def _tell(request: Request, error: Exception | None = None) -> None:
    """On the caller's loop, unless the caller has gone."""

    def tell() -> None:
        if request.done.done():
            return
        if error:
            request.done.set_exception(error)
        else:
            request.done.set_result(None)

    request.loop.call_soon_threadsafe(tell)
