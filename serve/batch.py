"""Scoring many pictures into a table: on all cores, in bounded memory, going on where it was killed."""

import hashlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
from tqdm import tqdm

import sslbt
from serve.batch_input import Held, Input, open_input
from serve.batch_parts import WRITERS, Parts
from serve.batch_summary import Summary
from serve.pictures import all_from_bytes
from serve.session import Classifier, Row
from sslbt.cores import cores
from sslbt.data.files import File
from sslbt.data.slices import first_line
from sslbt.errors import UserError
from sslbt.terminal import say

AHEAD = 32  # files a core that wait for an earlier one
MEMORY = 2**28  # bytes of them
ROWS, SECONDS = 1024, 30.0  # a part has so many rows or took so long: no more is lost by a kill
DRIFT_FILES = 10_000  # of more, some are left out, evenly
FURTHER = (pa.field("strangeness", pa.float32()), pa.field("features", pa.list_(pa.float32())))  # of parts, for drift
QUIET = 60.0  # seconds between lines of progress where there is no terminal


def score(model: Path, source: Path, output: Path) -> Summary:
    """Score every slice of a source; a file that can't be read costs its own row only.

    Rows are kept in the folder `<output>.parts` until the output is complete: the same call goes on from them, however
    the earlier one ended, and begins anew where the model or the source has changed.

    Args:
        model: the classifier's ONNX file.
        source: see `batch_input.open_input`.
        output: the table to write, `.csv` or `.parquet`: columns file, label, p_<class> for each class, confidence,
            abstain, reason, model_version, rows in the source's order. It appears when complete, never in part.

    Raises:
        UserError: the model or the source can't be used, the output's suffix is neither, or it can't be written.
    """
    if output.suffix.lower() not in WRITERS:
        raise UserError(f"{output}: ends in neither .csv nor .parquet; choose one of the two")
    classifier = Classifier.load(model)
    given = open_input(source)
    if output.exists() and output.samefile(source):
        raise UserError(f"{output}: is the input; give the output another name")
    summary = Summary(classifier)
    columns = _columns(classifier)
    facts = {
        "model": hashlib.sha256(model.read_bytes()).hexdigest(),
        "input": given.fingerprint,
        "version of sslbt": sslbt.__version__,
    }
    try:
        if output.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        parts = Parts(output, pa.schema([*columns, *FURTHER]), facts)
        try:
            _score_the_rest(classifier, given, source, parts, summary)
            parts.join([field.name for field in columns], summary.add)
            parts.remove()
        finally:
            parts.close()
    except OSError as error:
        raise UserError(
            f"{output}: can't be written ({error.strerror or error}); free space or choose another place; what is "
            f"scored stays in {output.name}.parts, and the same command goes on from there"
        ) from error
    return summary


def _score_the_rest(classifier: Classifier, given: Input, source: Path, parts: Parts, summary: Summary) -> None:
    if parts.done:
        say(f"{parts.folder}: {parts.done} files are scored already; going on from there")
    first, began = parts.done, time.monotonic()
    held: list[Row] = []
    done, kept = first, began
    every = max(1, (given.total or 0) // DRIFT_FILES) if summary.drift else 0
    pace = 0.1 if sys.stderr.isatty() else QUIET
    with tqdm(
        desc="score",
        unit=" files",
        initial=first,
        total=given.total,
        mininterval=pace,
        maxinterval=max(10, pace),
        delay=pace,
    ) as bar:
        for done, rows in enumerate(_scored(classifier, given.start_at(first), first, every), first + 1):
            held += rows
            bar.update()
            if len(held) >= ROWS or time.monotonic() - kept > SECONDS:
                parts.add(held, done)
                held, kept = [], time.monotonic()
    if held:
        parts.add(held, done)
    if not done:
        parts.remove()
        raise UserError(f"{source}: holds no slice; is it the right folder or download?")
    summary.files, summary.scored, summary.seconds = done, done - first, time.monotonic() - began


def _columns(classifier: Classifier) -> list[pa.Field]:
    scores = [(f"p_{name}", pa.float32()) for name in classifier.classes]
    told = [("file", pa.string()), ("label", pa.string()), *scores, ("confidence", pa.float32())]
    told += [("abstain", pa.bool_()), ("reason", pa.string()), ("model_version", pa.string())]
    return [pa.field(*one) for one in told]


def _scored(classifier: Classifier, files: Iterator[File], first: int, every: int) -> Iterator[list[Row]]:
    """The rows of each file, in order, with what drift is told by for one of `every` files, counted from `first`.

    Each is read, decoded and scored in one thread, which nothing else waits for.
    Decoders and the session compute without Python's lock. A batch of several pictures is no faster on a CPU, and so
    what a file gets never depends on its neighbours.
    """
    threads = cores()
    pool = ThreadPoolExecutor(threads)
    ahead: deque[tuple[int, Future[list[Row]]]] = deque()
    held = 0
    try:
        for number, (name, reader) in enumerate(files, first):
            size = reader.size if isinstance(reader, Held) else 0
            ahead.append((size, pool.submit(_rows, classifier, name, reader, bool(every) and number % every == 0)))
            held += size
            while len(ahead) > AHEAD * threads or (held > MEMORY and len(ahead) > 1):
                size, future = ahead.popleft()
                yield future.result()
                held -= size
        while ahead:
            yield ahead.popleft()[1].result()
    finally:
        pool.shutdown(cancel_futures=True)


def _rows(classifier: Classifier, name: str, reader: Callable[[], bytes], whole: bool) -> list[Row]:
    """The rows of one file; `whole` ones have `FURTHER` columns too."""
    found = all_from_bytes(_read(reader, name), name) or [(name, UserError(f"{name}: holds no slice"))]
    names, pictures = map(list, zip(*found, strict=True))
    good = [picture for picture in pictures if isinstance(picture, np.ndarray)]
    try:
        scores = classifier.scores(good)
    except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
        said = UserError(f"{name}: the model can't score it ({first_line(error)})")
        pictures, scores = [said] * len(pictures), classifier.scores([])
    rows = list(classifier.told(pictures, scores))
    for slice_, row in zip(names, rows, strict=True):
        row |= {"file": slice_, "model_version": classifier.metadata["run_id"]}
    if whole:
        had = (row for row, picture in zip(rows, pictures, strict=True) if isinstance(picture, np.ndarray))
        for row, strangeness, features in zip(had, scores.strangeness, scores.features, strict=True):
            row |= {"strangeness": strangeness, "features": features}
    return rows


def _read(reader: Callable[[], bytes], name: str) -> bytes | UserError:
    try:
        return reader()
    except UserError as error:
        return error
    except OSError as error:
        return UserError(f"{name}: can't be read ({error.strerror}); check the file and its mode")
