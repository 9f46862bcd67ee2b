import base64
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from serve.batch import score
from serve.batch_input import open_input
from sslbt.errors import UserError


@pytest.fixture
def table(tmp_path, model):
    """Scores a source, and reads the table."""

    def scored(source: Path) -> pd.DataFrame:
        score(model, source, tmp_path / "scores.csv")
        return pd.read_csv(tmp_path / "scores.csv", keep_default_na=False, na_values={"p_glioma": [""]})

    return scored


@pytest.fixture
def expected(classifier, pixels):
    """P of glioma for the fixtures' files, from the session alone."""
    eight_bits = (pixels // 4).astype(np.uint8)
    return {kind: classifier.scores([one]).probabilities[0, 1] for kind, one in (("mat", pixels), ("png", eight_bits))}


def test_a_parquet_of_images_gives_a_row_each_with_its_name(tmp_path, table, mat, png, expected):
    pages = io.BytesIO()
    two = [Image.fromarray(np.random.default_rng(i).integers(0, 9, (20, 20), np.uint8)) for i in (1, 2)]
    two[0].save(pages, "TIFF", save_all=True, append_images=two[1:])
    images = [mat, png, png[:60], None, b"", pages.getvalue()]
    pd.DataFrame({"file": ["1.mat", None, "bad.png", "none", "empty", "two.tif"], "image": images}).to_parquet(
        tmp_path / "named.parquet", row_group_size=2
    )
    found = table(tmp_path / "named.parquet")
    assert list(found.file) == ["1.mat", "row 1", "bad.png", "none", "empty", "two.tif#1", "two.tif#2"]
    np.testing.assert_allclose(found.p_glioma[:2], [expected["mat"], expected["png"]], rtol=1e-5)
    assert list(found.label == "") == [False, False, True, True, True, False, False]
    assert found.reason[3] == "none: holds no picture"


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary()])
def test_images_may_be_base64(tmp_path, table, png, expected, kind):
    texts = [base64.b64encode(png).decode(), base64.encodebytes(png).decode(), "no base64 at all"]
    pq.write_table(pa.table({"image": pa.array(texts).cast(kind)}), tmp_path / "b64.parquet")
    found = table(tmp_path / "b64.parquet")
    assert list(found.file) == ["row 0", "row 1", "row 2"]
    np.testing.assert_allclose(found.p_glioma[:2], expected["png"], rtol=1e-5)
    assert found.label[2] == ""


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("column", ["path", "file"])
def test_paths_are_relative_to_their_table_and_a_missing_one_costs_its_row(
    tmp_path, table, mat, png, expected, suffix, column, monkeypatch
):
    folder = tmp_path / "lists"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "ä, b.mat").write_bytes(mat)
    (tmp_path / "elsewhere.png").write_bytes(png)
    paths = ["in/ä, b.mat", str(tmp_path / "elsewhere.png"), "gone.png", "", "in", "../elsewhere.png"]
    listed = pd.DataFrame({"patient": range(6), column: paths})
    listed.to_csv(folder / "list.csv", index=False) if suffix == "csv" else listed.to_parquet(folder / "list.parquet")
    monkeypatch.chdir(folder.parent)
    found = table(Path("lists") / f"list.{suffix}")
    assert list(found.file) == ["in/ä, b.mat", paths[1], "gone.png", "row 3", "in", "../elsewhere.png"]
    np.testing.assert_allclose(found.p_glioma[[0, 1, 5]], [expected[kind] for kind in ("mat", "png", "png")], rtol=1e-5)
    assert found.reason[2] == f"gone.png: no such file in {folder}, where the table is"
    assert list(found.reason[2:5] != "") == [True] * 3


def test_it_can_start_anywhere(tmp_path, png):
    """Rows from any place on are those of the whole from there, whatever the row groups."""
    images = [b"picture %d" % number + b"\xff" for number in range(100)]
    names = [f"{number}.png" for number in range(100)]
    for rows in (7, 100):
        pq.write_table(pa.table({"image": images, "path": names}), tmp_path / "all.parquet", row_group_size=rows)
        given = open_input(tmp_path / "all.parquet")
        assert given.total == 100
        for done in (0, 1, 6, 7, 21, 50, 99, 100):
            assert [(name, read()) for name, read in given.start_at(done)] == list(zip(names, images, strict=True))[
                done:
            ]
    (tmp_path / "list.csv").write_text("\ufefffile\n" + "\n".join(names) + "\n")
    given = open_input(tmp_path / "list.csv")
    assert (given.total, [name for name, _ in given.start_at(97)]) == (100, names[97:])


def test_its_fingerprint_changes_with_what_it_lists(tmp_path, png):
    (tmp_path / "1.png").write_bytes(png)
    pd.DataFrame({"file": ["1.png", "2.png"]}).to_csv(tmp_path / "list.csv")
    before = open_input(tmp_path / "list.csv").fingerprint
    assert open_input(tmp_path / "list.csv").fingerprint == before
    (tmp_path / "2.png").write_bytes(png)
    assert open_input(tmp_path / "list.csv").fingerprint != before


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", b"name,class\n1.png,glioma\n", "names no column path or file"),
        ("a.csv", b"", "names no column path or file"),
        ("a.csv", b"file\n", "holds no slice"),
        ("a.csv", b"file\nbr\xe9cis.png\n", "no CSV in UTF-8"),
        ("a.parquet", b"PAR1 it is not", "can't be read"),
        ("a.parquet", pa.table({"name": ["1.png"]}), "has no column image"),
        ("a.parquet", pa.table({"image": [[1, 2]]}), "column image is of type list"),
        ("a.parquet", pa.table({"image": [{"bytes": b"1"}]}), "column image is of type struct"),
        ("a.parquet", pa.table({"image": pa.array([], pa.binary())}), "holds no slice"),
    ],
)
def test_what_is_no_such_table_is_named(tmp_path, model, name, content, sentence):
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        pq.write_table(content, tmp_path / name)
    with pytest.raises(UserError, match=f"{name}: .*{sentence}"):
        score(model, tmp_path / name, tmp_path / "scores.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_the_input_is_never_overwritten(tmp_path, model, png):
    (tmp_path / "1.png").write_bytes(png)
    (tmp_path / "scores.csv").write_text("file\n1.png\n")
    with pytest.raises(UserError, match="is the input"):
        score(model, tmp_path / "scores.csv", tmp_path / "." / "scores.csv")
    assert (tmp_path / "scores.csv").read_text() == "file\n1.png\n"


def test_the_name_of_a_column_is_no_text(tmp_path, png):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"imagé": [png], "image": [png]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace("imagé".encode(), b"imag\xfe\xfe"))
    with pytest.raises(UserError, match=r"a\.parquet: can't be read \(a column's name is no text\)"):
        open_input(path)


def test_a_damaged_page_keeps_what_was_scored(tmp_path, model, png):
    """What is scored before it stays, and the sentence names the file."""
    images = [png + bytes([number]) * 100_000 for number in range(30)]  # what follows the end of a PNG is not looked at
    path = tmp_path / "damaged.parquet"
    pq.write_table(pa.table({"image": images}), path, compression="none", use_dictionary=False, row_group_size=10)
    data = bytearray(path.read_bytes())
    start = pq.read_metadata(path).row_group(2).column(0).data_page_offset
    data[start : start + 40] = b"\xff" * 40
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"damaged\.parquet: can't be read"):
        score(model, path, tmp_path / "scores.csv")
    assert not (tmp_path / "scores.csv").exists()


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux says it so")
def test_memory_does_not_grow_with_the_rows(tmp_path, model, png):
    """Six times the rows, 140 MB more, in one row group as pandas writes them: the peak stays about where it was."""
    code = """
import re, sys
from pathlib import Path
from serve.batch import score
score(*map(Path, sys.argv[1:]))
print(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
"""
    image = png + bytes(8000)
    most = []
    for rows in (2000, 12_000):
        source, output = tmp_path / f"{rows}.parquet", tmp_path / f"{rows}.csv"
        pq.write_table(pa.table({"image": [image] * rows}), source, compression="none", use_dictionary=False)
        words = [sys.executable, "-c", code, model, source, output]
        most.append(int(subprocess.run(words, check=True, capture_output=True, text=True).stdout) / 2**10)
        assert len(pd.read_csv(output)) == rows
    assert source.stat().st_size > 150 * 2**20
    assert most[1] - most[0] < 40
