"""Scoring a folder, a zip or one file into a table, in bounded memory."""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import tee
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from tqdm import tqdm

from serve.pictures import Picture, all_from_bytes
from serve.session import Classifier
from sslbt.data.files import iterate
from sslbt.errors import UserError

DECODERS = 2
LOOKAHEAD = 16  # files read and decoded while the session computes
ROWS = 1024  # held before they are written
WRITERS = {".csv": pyarrow.csv.CSVWriter, ".parquet": pyarrow.parquet.ParquetWriter}


def score(model: Path, source: Path, output: Path) -> dict[str, Any]:
    """Score every slice of a source; a file that can't be read costs its own row only.

    Args:
        model: the classifier's ONNX file.
        source: a folder, a zip (zips inside it included), or one file.
        output: the table to write, `.csv` or `.parquet`: columns file, label, p_<class> for each class, confidence,
            abstain, reason, model_version. It appears when complete, never in part.

    Returns:
        `files`, `failed` and `abstained` counted, and `labels`, the number of files of each class.

    Raises:
        UserError: the model or the source can't be used, the output's suffix is neither, or it can't be written.
    """
    if output.suffix.lower() not in WRITERS:
        raise UserError(f"{output}: ends in neither .csv nor .parquet; choose one of the two")
    classifier = Classifier.load(model)
    partial = output.with_name(f".{output.name}.partial")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            summary = _write(partial, WRITERS[output.suffix.lower()], classifier, source)
            os.replace(partial, output)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{output}: can't be written ({error.strerror or error}); choose another place") from error
    return summary


def _write(path: Path, writer: type, classifier: Classifier, source: Path) -> dict[str, Any]:
    schema = _schema(classifier)
    labels: Counter[str | None] = Counter()
    abstained = 0
    held: list[dict[str, Any]] = []
    with ThreadPoolExecutor(DECODERS) as pool, writer(path, schema) as table:
        for row in tqdm(_rows(classifier, source, pool), desc="score", unit="file", disable=None):
            labels[row["label"]] += 1
            abstained += row["abstain"] and row["label"] is not None
            held.append(row)
            if len(held) == ROWS:
                table.write_table(pa.Table.from_pylist(held, schema))
                held.clear()
        table.write_table(pa.Table.from_pylist(held, schema))
    if not labels:
        raise UserError(f"{source}: holds no slice; is it the right folder or download?")
    failed = labels.pop(None, 0)
    return {"files": labels.total() + failed, "failed": failed, "abstained": abstained, "labels": dict(labels)}


def _schema(classifier: Classifier) -> pa.Schema:
    scores = [(f"p_{name}", pa.float32()) for name in classifier.classes]
    kinds = [("file", pa.string()), ("label", pa.string()), *scores, ("confidence", pa.float32())]
    return pa.schema([*kinds, ("abstain", pa.bool_()), ("reason", pa.string()), ("model_version", pa.string())])


def _rows(classifier: Classifier, source: Path, pool: ThreadPoolExecutor) -> Iterator[dict[str, Any]]:
    for_names, for_pictures = tee(_decoded(source, pool))  # holds one chunk of the session at most
    rows = classifier.rows(picture for _, picture in for_pictures)
    for row, (name, _) in zip(rows, for_names, strict=True):
        yield {"file": name, **row, "model_version": classifier.metadata["run_id"]}


def _decoded(source: Path, pool: ThreadPoolExecutor) -> Iterator[tuple[str, Picture]]:
    ahead: deque[Future[list[tuple[str, Picture]]]] = deque()
    for name, read in iterate(source):
        if Path(name).name == "cvind.mat":  # the dataset's folds, no slice
            continue
        ahead.append(pool.submit(all_from_bytes, _read(read, name), name))
        if len(ahead) > LOOKAHEAD:
            yield from ahead.popleft().result()
    while ahead:
        yield from ahead.popleft().result()


def _read(read: Callable[[], bytes], name: str) -> bytes | UserError:
    """At once, not in the pool: a zip inside a zip is closed when the walk leaves it."""
    try:
        return read()
    except UserError as error:
        return error
    except OSError as error:
        return UserError(f"{name}: can't be read ({error.strerror}); check the file and its mode")
