"""Whenever a batch is killed, the same call goes on, and its table is that of a call nobody disturbed."""

import errno
import io
import os
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from serve import batch, batch_parts
from serve.batch import score
from sslbt.errors import UserError

# Children are forked before anything has started a thread, so that the libraries are loaded once.
PRELUDE = """
import os, random, signal, sys, time
from pathlib import Path
from serve import batch, batch_parts
model, source, folder = map(Path, sys.argv[1:4])
batch.ROWS = 25

def child(output, prepare=lambda: None):
    number = os.fork()
    if not number:
        prepare()
        try:
            batch.score(model, source, output)
        finally:
            os._exit(0)
    return number

def end(number):
    return os.WTERMSIG(os.waitpid(number, 0)[1]) == signal.SIGKILL
"""

# At any time, again and again until one is quicker than its end; the table may be there and its parts not yet gone.
RANDOM = """
killed = 0
chance = random.Random(0)
for round in range(3):
    output = folder / f"random{round}.csv"
    while not output.exists() or output.with_name(f"{output.name}.parts").exists():
        number = child(output)
        time.sleep(chance.uniform(0.02, 0.3 + 0.05 * killed))
        os.kill(number, signal.SIGKILL)
        killed += end(number)
print(killed)
"""

# Just before and just after each rename, and amid the removal of what is no longer needed.
DECISIVE = """
def at(module, name, count, after):
    def prepare():
        calls, real = [], getattr(module, name)
        def deadly(*arguments, **named):
            calls.append(arguments)
            if len(calls) == count and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*arguments, **named)
            if len(calls) == count and after:
                os.kill(os.getpid(), signal.SIGKILL)
            return result
        setattr(module, name, deadly)
    return prepare

killed = 0
moments = [(os, "replace", count, after) for count in (1, 2, 3, 8, 9, 10) for after in (False, True)]
moments += [(os, "unlink", count, after) for count in (1, 4) for after in (False, True)]
moments += [(os, "fsync", count, False) for count in (1, 3, 4)]
for place, moment in enumerate(moments):
    killed += end(child(folder / f"decisive{place}.csv", at(*moment)))
    end(child(folder / f"decisive{place}.csv"))
print(killed)
"""


@pytest.fixture
def source(tmp_path, png, mat):
    """200 files, some broken, one of three slices."""
    folder = tmp_path / "slices"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for number in range(200):
        buffer = io.BytesIO()
        Image.fromarray(noise.integers(0, 255, (40, 40), np.uint8)).save(buffer, "PNG")
        (folder / f"{number}.png").write_bytes(b"broken" if number % 11 == 0 else buffer.getvalue())
    pages = [Image.fromarray(noise.integers(0, 255, (40, 40), np.uint8)) for _ in range(3)]
    pages[0].save(folder / "60.tif", save_all=True, append_images=pages[1:])
    return folder


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("moments", [RANDOM, DECISIVE])
def test_a_kill_neither_doubles_nor_loses_a_row(tmp_path, model, source, moments):
    score(model, source, tmp_path / "undisturbed.csv")
    folder = tmp_path / "killed"
    words = [sys.executable, "-c", PRELUDE + moments, model, source, folder]
    killed = int(subprocess.run(words, check=True, capture_output=True, text=True, timeout=300).stdout)
    assert killed >= (5 if moments == RANDOM else 15)
    expected = (tmp_path / "undisturbed.csv").read_bytes()
    tables = sorted(folder.glob("*.csv"))
    assert len(tables) >= 3
    for table in tables:
        assert table.read_bytes() == expected, table
        assert not table.with_name(f"{table.name}.parts").exists()
    assert len(pd.read_csv(tmp_path / "undisturbed.csv")) == 203


@pytest.fixture
def begun(tmp_path, model, source, monkeypatch):
    """An output of which half is in parts, the disk being full."""
    monkeypatch.setattr(batch, "ROWS", 25)
    write, count = batch_parts._write_whole, []

    def full(*arguments):
        count.append(1)
        if len(count) > 4:  # the manifest and three parts
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(*arguments)

    output = tmp_path / "scores.csv"
    with monkeypatch.context() as disk:
        disk.setattr(batch_parts, "_write_whole", full)
        with pytest.raises(UserError, match=r"can't be written \(No space left.*stays in scores\.csv\.parts"):
            score(model, source, output)
    assert not output.exists()
    return output


def scored_files(monkeypatch) -> list[str]:
    """The names of files that are scored from now on."""
    names, rows = [], batch._rows

    def noted(classifier, name, *rest):
        names.append(name)
        return rows(classifier, name, *rest)

    monkeypatch.setattr(batch, "_rows", noted)
    return names


def test_after_a_full_disk_it_goes_on(model, source, begun, monkeypatch, capsys):
    names = scored_files(monkeypatch)
    summary = score(model, source, begun)
    assert "73 files are scored already" in capsys.readouterr().err  # 75 rows, three of them of one file
    assert (len(names), summary.scored, summary.files) == (128, 128, 201)
    assert len(pd.read_csv(begun)) == summary.rows == 203
    assert summary.failed == 19


def test_what_changed_begins_anew(model, source, begun, write_tiny, tmp_path, monkeypatch, capsys):
    metadata = {one.key: one.value for one in onnx.load(model).metadata_props}
    other = write_tiny(tmp_path / "other.onnx", metadata | {"run_id": "f" * 32})
    names = scored_files(monkeypatch)
    score(other, source, begun)
    assert "the model changed since; beginning anew" in capsys.readouterr().err
    assert len(names) == 201
    assert set(pd.read_csv(begun).model_version) == {"f" * 32}


def test_changed_pictures_begin_anew(model, source, begun, monkeypatch, capsys):
    (source / "1.png").write_bytes((source / "2.png").read_bytes() + b"more")
    names = scored_files(monkeypatch)
    score(model, source, begun)
    assert "the input changed since; beginning anew" in capsys.readouterr().err
    assert len(names) == 201
    table = pd.read_csv(begun)
    assert table.confidence[1] == table.confidence[2]


def test_parts_of_another_version_begin_anew(model, source, begun, monkeypatch, capsys):
    monkeypatch.setattr(batch, "FURTHER", (*batch.FURTHER, pa.field("later", pa.string())))
    names = scored_files(monkeypatch)
    score(model, source, begun)
    assert "the columns changed since; beginning anew" in capsys.readouterr().err
    assert len(names) == 201


def test_two_at_once_are_refused(model, source, begun):
    parts = batch_parts.Parts(begun, pa.schema([]), {})
    with pytest.raises(UserError, match=r"scores\.csv: another process is making it"):
        score(model, source, begun)
    parts.close()


def test_who_comes_while_the_parts_are_removed_is_refused(model, source, begun, monkeypatch):
    """Otherwise his first parts would be removed too, and rows would be missing without a word."""
    remove, refused = batch_parts.shutil.rmtree, []

    def late(folder, **how):
        with pytest.raises(UserError, match=r"scores\.csv: another process is making it"):
            batch_parts.Parts(begun, pa.schema([]), {})
        refused.append(folder)
        remove(folder, **how)

    monkeypatch.setattr(batch_parts.shutil, "rmtree", late)
    score(model, source, begun)
    assert refused == [begun.with_name("scores.csv.parts")]
    assert not refused[0].exists()


def test_an_interrupted_one_says_where_it_goes_on(tmp_path, model, png, capsys):
    """Ctrl-C at the command line: exit code 130, one sentence, parts stay, and the same call goes on."""
    source, output = tmp_path / "many.parquet", tmp_path / "scores.parquet"
    pq.write_table(pa.table({"image": [png] * 10_000}), source)
    words = ["--model", str(model), "--input", str(source), "--output", str(output)]
    process = subprocess.Popen(
        [sys.executable, "-m", "sslbt", "score", *words], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    while not list(tmp_path.glob("*.parts/*.parquet")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "interrupted; the same command continues where this one stopped" in said
    assert "Traceback" not in said
    assert not output.exists()
    summary = score(model, source, output)
    assert "files are scored already" in capsys.readouterr().err
    assert summary.scored < summary.files == 10_000
    assert list(pd.read_parquet(output).file) == [f"row {number}" for number in range(10_000)]
