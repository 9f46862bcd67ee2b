"""Threads behind a queue: whose answer is whose, what goes together, and what happens when there is too much."""

import asyncio
import threading
import time

import numpy as np
import pytest

from serve.pool import MOST_TOGETHER, WAITING, Busy, Pool
from serve.session import Classifier
from sslbt.errors import UserError


def row_only(picture, row, scores):
    return row


@pytest.fixture
def pictures():
    random = np.random.default_rng(1)
    return [random.beta(1 + i % 5, 2, (40, 30 + i % 3)) * 100 for i in range(60)]


class Gate:
    """A classifier that waits until it is let go, and remembers how many it was given."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier, self.open, self.sizes = classifier, threading.Event(), []

    def scores(self, pictures, saliency=False):
        self.sizes.append(len(pictures))
        assert self.open.wait(20)
        return self.classifier.scores(pictures, saliency)

    def told(self, pictures, scores):
        return self.classifier.told(pictures, scores)


def test_every_caller_gets_its_own_answers_in_order(classifier, pictures):
    pool = Pool(lambda *seen: None, threads=3)
    bad = UserError("x.png: broken")
    asked = [[*pictures[first : first + 5], bad, *pictures[first + 5 : first + 9]] for first in range(0, 50, 5)]

    async def ask_all():
        return await asyncio.gather(
            *(pool.score(classifier, [lambda p=p: p for p in given], row_only) for given in asked)
        )

    for given, rows in zip(asked, asyncio.run(ask_all()), strict=True):
        expected = list(classifier.rows(given))
        assert [row["reason"] for row in rows] == [row["reason"] for row in expected]
        for row, other in zip(rows, expected, strict=True):
            assert row["label"] == other["label"]
            assert row["confidence"] == pytest.approx(other["confidence"], abs=1e-6)
    pool.close()


def test_what_queued_meanwhile_goes_together_and_nobody_waits_for_company(classifier, pictures):
    gate, seen = Gate(classifier), []
    pool = Pool(lambda asked, rows, scores: seen.append(len(rows)), threads=1)

    async def ask_all():
        tasks = []
        for picture in pictures[:10]:
            tasks.append(asyncio.create_task(pool.score(gate, [lambda p=picture: p], row_only)))
            await asyncio.sleep(0)
            while not gate.sizes:  # the first was begun though nobody else was there
                await asyncio.sleep(0.001)
        gate.open.set()
        return await asyncio.gather(*tasks)

    answers = asyncio.run(ask_all())
    assert gate.sizes == [1, MOST_TOGETHER, MOST_TOGETHER, 1] == seen
    for (row,), expected in zip(answers, classifier.rows(pictures[:10]), strict=True):
        assert row["label"] == expected["label"]
    pool.close()


def test_other_models_never_answer_together(classifier, pictures):
    one, two = Gate(classifier), Gate(classifier)
    pool = Pool(lambda *seen: None, threads=1)

    async def ask_all():
        tasks = [asyncio.create_task(pool.score((one, two)[i % 2], [lambda: pictures[0]], row_only)) for i in range(6)]
        await asyncio.sleep(0.05)
        one.open.set()
        two.open.set()
        await asyncio.gather(*tasks)

    asyncio.run(ask_all())
    assert one.sizes == two.sizes == [1, 1, 1]
    pool.close()


def test_past_capacity_it_refuses_at_once_and_keeps_what_it_took(classifier, pictures):
    gate = Gate(classifier)
    pool = Pool(lambda *seen: None, threads=1)

    async def ask_all():
        first = asyncio.create_task(pool.score(gate, [lambda: pictures[0]], row_only))
        while not gate.sizes:
            await asyncio.sleep(0.001)
        taken = [
            asyncio.create_task(pool.score(gate, [lambda: pictures[1]] * 8, row_only)) for _ in range(WAITING // 8)
        ]
        await asyncio.sleep(0.01)
        assert pool.waiting == WAITING
        began = time.perf_counter()
        with pytest.raises(Busy, match="try again in 1 s"):
            await pool.score(gate, [lambda: pictures[2]], row_only)
        assert time.perf_counter() - began < 1
        gate.open.set()
        return await asyncio.gather(first, *taken)

    answers = asyncio.run(ask_all())
    assert sum(map(len, answers)) == WAITING + 1
    assert all(row["label"] for rows in answers for row in rows)
    pool.close()


def test_a_caller_that_has_gone_is_nobody_elses_trouble(classifier, pictures):
    gate = Gate(classifier)
    pool = Pool(lambda *seen: None, threads=1)

    async def ask_all():
        gone = asyncio.create_task(pool.score(gate, [lambda: pictures[0]], row_only))
        stays = asyncio.create_task(pool.score(gate, [lambda: pictures[1]], row_only))
        await asyncio.sleep(0.01)
        gone.cancel()
        gate.open.set()
        return await stays

    (row,) = asyncio.run(ask_all())
    assert row["label"]
    pool.close()


def test_a_fault_reaches_its_callers_and_the_next_is_answered(classifier, pictures):
    pool = Pool(lambda *seen: None, threads=1)

    def fault():
        raise ZeroDivisionError

    async def ask():
        with pytest.raises(ZeroDivisionError):
            await pool.score(classifier, [fault, lambda: pictures[0]], row_only)
        return await pool.score(classifier, [lambda: pictures[0]], row_only)

    (row,) = asyncio.run(ask())
    assert row["label"]
    assert asyncio.run(pool.score(classifier, [], row_only)) == []
    pool.close()


def test_a_fault_of_one_picture_is_not_that_of_its_neighbours(classifier, pictures):
    gate = Gate(classifier)
    pool = Pool(lambda *seen: None, threads=1)

    def fault():
        raise ZeroDivisionError

    async def ask_all():
        tasks = []
        for picture in (lambda: pictures[0], lambda: pictures[1], fault, lambda: pictures[2]):
            tasks.append(asyncio.create_task(pool.score(gate, [picture], row_only)))
            await asyncio.sleep(0)
            while not gate.sizes:  # the first holds the thread, so that the others go together
                await asyncio.sleep(0.001)
        gate.open.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, second, failed, third = asyncio.run(ask_all())
    assert isinstance(failed, ZeroDivisionError)
    for (row,), expected in zip((first, second, third), classifier.rows(pictures[:3]), strict=True):
        assert row["label"] == expected["label"]
    pool.close()


def test_a_picture_that_never_ends_does_not_keep_the_service_from_ending(classifier, pictures, monkeypatch):
    monkeypatch.setattr("serve.pool.CLOSING", 0.2)
    gate, pool = Gate(classifier), Pool(lambda *seen: None, threads=1)

    async def ask():
        task = asyncio.create_task(pool.score(gate, [lambda: pictures[0]], row_only))
        while not gate.sizes:
            await asyncio.sleep(0.001)
        began = time.monotonic()
        pool.close()
        taken = time.monotonic() - began
        gate.open.set()
        await task
        return taken

    assert 0.2 <= asyncio.run(ask()) < 5
