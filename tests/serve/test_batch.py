import io
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from serve import batch, batch_input
from serve.batch import score
from sslbt.data.matlab import write_folds
from sslbt.errors import UserError


@pytest.fixture
def folder(tmp_path, mat, png):
    """Two good slices, one broken, the dataset's folds and something else."""
    source = tmp_path / "slices"
    (source / "deep").mkdir(parents=True)
    (source / "1.mat").write_bytes(mat)
    (source / "deep" / "2.png").write_bytes(png)
    (source / "deep" / "10.png").write_bytes(png[:50])
    (source / "notes.txt").write_text("no slice")
    write_folds(source / "cvind.mat", np.ones(3))
    return source


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)


def nothing_else(folder: Path) -> bool:
    """Whether no trace of unfinished work is left."""
    return not [path for path in folder.rglob("*") if path.name.endswith((".partial", ".parts"))]


@pytest.mark.parametrize("name", ["scores.csv", "new/folder/scores.parquet", "SCORES.CSV"])
def test_a_folder_becomes_a_table(tmp_path, model, classifier, folder, pixels, name):
    summary = score(model, folder, tmp_path / name)
    table = pd.read_csv(tmp_path / name) if name.lower().endswith("csv") else pd.read_parquet(tmp_path / name)
    scores = [f"p_{c}" for c in classifier.classes]
    assert list(table) == ["file", "label", *scores, "confidence", "abstain", "reason", "model_version"]
    assert list(table["file"]) == ["1.mat", "deep/2.png", "deep/10.png"]
    np.testing.assert_allclose(
        table.loc[0, scores].astype(float), classifier.scores([pixels]).probabilities[0], atol=1e-6
    )
    assert table["label"].isna().tolist() == [False, False, True]
    assert table.loc[2, [*scores, "confidence"]].isna().all()
    assert table.loc[2, "abstain"]
    assert table.loc[2, "reason"].startswith("deep/10.png: ")
    assert set(table["model_version"]) == {classifier.metadata["run_id"]}
    assert (summary.files, summary.rows, summary.failed, summary.labels.total()) == (3, 3, 1, 2)
    assert str(summary).startswith("3 slices of 3 files: ")
    assert nothing_else(tmp_path)


def test_a_summary_counts_one_slice_as_people_do(tmp_path, model, folder):
    summary = score(model, folder / "1.mat", tmp_path / "one.csv")
    (label,) = summary.labels.elements()
    assert str(summary).startswith("1 slice of 1 file: ")
    assert f"{label} 1" in str(summary)


def test_nested_zips_and_single_files_score_the_same(tmp_path, model, folder):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        for path in sorted(folder.rglob("*.*")):
            archive.write(path, path.relative_to(folder))
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.writestr("part1.zip", inner.getvalue())
        archive.writestr("part2.zip", inner.getvalue())
    score(model, folder, tmp_path / "folder.csv")
    score(model, tmp_path / "outer.zip", tmp_path / "zip.csv")
    score(model, folder / "1.mat", tmp_path / "file.csv")
    expected = read(tmp_path / "folder.csv")
    pd.testing.assert_frame_equal(read(tmp_path / "zip.csv"), pd.concat([expected, expected], ignore_index=True))
    assert read(tmp_path / "file.csv")["p_glioma"].item() == expected["p_glioma"][0]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_more_files_than_are_held_at_once_keep_their_order(tmp_path, model, png, monkeypatch, suffix):
    monkeypatch.setattr(batch, "ROWS", 20)
    source = tmp_path / "many"
    source.mkdir()
    for number in range(90):
        (source / f"{number}.png").write_bytes(png if number % 7 else b"broken")
    score(model, source, tmp_path / f"scores.{suffix}")
    table = read(tmp_path / f"scores.{suffix}")
    assert list(table["file"]) == [f"{number}.png" for number in range(90)]
    assert table["label"].isna().tolist() == [number % 7 == 0 for number in range(90)]


def test_a_name_that_is_no_utf8_is_scored_all_the_same(tmp_path, model, png):
    source = tmp_path / "names"
    source.mkdir()
    try:
        (source / "br\udce9cis.png").write_bytes(png)
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system takes UTF-8 names only")
    score(model, source, tmp_path / "scores.csv")
    assert read(tmp_path / "scores.csv")["file"].item() == "br\\udce9cis.png"


def test_a_file_that_disappears_costs_its_row_only(tmp_path, model, folder, monkeypatch):
    def vanishing(source):
        for name, read in batch_iterate(source):
            if name == "1.mat":
                (source / name).unlink()
            yield name, read

    batch_iterate = batch_input.iterate
    monkeypatch.setattr(batch_input, "iterate", vanishing)
    assert score(model, folder, tmp_path / "scores.csv").failed == 2


def test_mistakes_are_named_and_leave_no_table(tmp_path, model, folder):
    with pytest.raises(UserError, match=r"scores\.txt: ends in neither"):
        score(model, folder, tmp_path / "scores.txt")
    with pytest.raises(UserError, match="gone: no such"):
        score(model, tmp_path / "gone", tmp_path / "scores.csv")
    with pytest.raises(UserError, match="no such file"):
        score(tmp_path / "gone.onnx", folder, tmp_path / "scores.csv")
    with pytest.raises(UserError, match="can't be written"):
        score(model, folder, folder / "1.mat" / "scores.csv")
    (tmp_path / "taken.csv").mkdir()
    with pytest.raises(UserError, match=r"taken\.csv: can't be written"):
        score(model, folder, tmp_path / "taken.csv")
    (folder / "1.mat").unlink()
    for path in (folder / "deep").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="holds no slice"):
        score(model, folder, tmp_path / "scores.csv")
    assert not (tmp_path / "scores.csv").exists()
    assert nothing_else(tmp_path)


def test_volumes_and_files_without_an_ending_are_scored(tmp_path, model, classifier):
    volume = np.random.default_rng(0).integers(1, 900, (40, 50, 3)).astype(np.int16)
    volume[:, :, 1] = 0
    source = tmp_path / "scans"
    source.mkdir()
    nibabel.Nifti1Image(volume, np.diag([1, 1, 6, 1])).to_filename(source / "scan.nii.gz")
    (source / "IM0001").write_bytes(Path(str(get_testdata_file("MR_small.dcm", download=False))).read_bytes())
    summary = score(model, source, tmp_path / "scores.csv")
    table = read(tmp_path / "scores.csv")
    assert list(table.file) == ["IM0001", "scan.nii.gz#1", "scan.nii.gz#2", "scan.nii.gz#3"]
    assert (summary.files, summary.rows, summary.failed) == (2, 4, 1)
    assert table.reason[2] == "scan.nii.gz#2: all pixels are equal; an empty slice can't be classified"
    scores = table[[f"p_{name}" for name in classifier.classes]].to_numpy(float)
    upright = volume[::-1, ::-1, 2].T.astype(float)  # the patient's right on the left, anterior at the top
    np.testing.assert_allclose(scores[3], classifier.scores([upright]).probabilities[0], atol=1e-6)
    raw = dcmread(source / "IM0001").pixel_array.astype(float)
    np.testing.assert_allclose(scores[0], classifier.scores([raw]).probabilities[0], atol=1e-5)
