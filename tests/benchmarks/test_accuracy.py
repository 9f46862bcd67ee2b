"""Phantoms, two folds, two draws of twelve labels: the accuracy table from nothing, again, and from what is there."""

import json
import os
import shutil
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from sslbt.config import Suggest
from sslbt.evaluation import outliers
from sslbt.evaluation.metrics import Predictions, classes_of, evaluate
from sslbt.steps.suggest import suggest
from sslbt.tracking.run import Silent

ASKED = ["sample:36", "--preset", "tiny", "--folds", "1,2", "--budgets", "12", "--draws", "0,1"]
WAYS = ("encoder", "contrastive", "scratch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the first call left its answers."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
        patch.setenv("SSLBT_HOME", str(home))
        patch.setattr(outliers, "fit", partial(outliers.fit, steps=2))  # a minute, and nothing here asks for it
        import accuracy

        accuracy.main(ASKED)
        yield home / "accuracy" / "tiny"


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """The same to be spoilt."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def told(folder: Path) -> dict[tuple[str, str], dict]:
    figures = json.loads((folder / "results.json").read_text())["figures"]
    return {(row["method"], row["metric"]): row for row in figures}


def answers(folder: Path, method: str, draw: int) -> pd.DataFrame:
    files = [folder / "answers" / f"{method.replace(' ', '_')}-patient-{fold}-12-{draw}.csv" for fold in (1, 2)]
    return pd.concat([pd.read_csv(file) for file in files])


def by_hand(table: pd.DataFrame) -> tuple[float, float]:
    """Accuracy of slices, balanced accuracy over families; by scikit-learn. A phantom's slices have one class."""
    names = [name for name in table if name.startswith("p_")]
    slices = accuracy_score(table["class"], table[names].idxmax(axis=1).str[2:])
    families = table.groupby("family")
    guessed = families[names].mean().idxmax(axis=1).str[2:]
    return slices, balanced_accuracy_score(families["class"].first(), guessed)


def test_figures_are_those_of_scikit_learn_pooled_over_folds_and_averaged_over_draws(folder: Path) -> None:
    found = told(folder)
    for method in (*WAYS, "raw pixels", "random encoder"):
        expected = np.mean([by_hand(answers(folder, method, draw)) for draw in (0, 1)], axis=0)
        rows = [found[method, metric] for metric in ("accuracy", "patient_balanced_accuracy")]
        assert [row["value"] for row in rows] == pytest.approx(expected)
        for row in rows:
            assert row["ci_low"] < row["value"] < row["ci_high"] or row["value"] == row["ci_high"] == 1
            assert np.shape(row["by_draw_and_fold"]) == (2, 2)


def test_no_family_is_in_two_folds_and_every_method_is_asked_about_the_same_slices(folder: Path) -> None:
    first = answers(folder, "scratch", 0)
    assert first.groupby("family").file.nunique().sum() == len(first) == first.file.nunique()
    for method in (*WAYS, "majority", "ten intensities", "learnt from the background"):
        assert list(answers(folder, method, 1).file) == list(first.file)


def test_a_way_is_above_scratch_by_the_difference_of_their_figures(folder: Path) -> None:
    found, pairs = told(folder), json.loads((folder / "results.json").read_text())["above_scratch"]
    assert {(row["method"], row["metric"]) for row in pairs} == {key for key in found if key[0] in WAYS[:2]}
    for row in pairs:
        ours, theirs = (found[method, row["metric"]]["value"] for method in (row["method"], "scratch"))
        assert row["difference"] == pytest.approx(ours - theirs)
        assert row["ci_low"] <= row["difference"] <= row["ci_high"]
        assert row["better"] == ("yes" if row["ci_low"] > 0 else "not clearly")


def test_the_interval_of_equal_draws_is_that_of_one(folder: Path) -> None:
    from accuracy_table import measured

    table = answers(folder, "encoder", 0)
    classes = classes_of(table)
    folds = [Predictions.from_table(own, classes) for _, own in table.groupby("file", sort=False)]
    once = evaluate(Predictions.from_table(table, classes), ())
    for row in measured("encoder", "12", [folds] * 3):
        name = row["metric"]
        assert (row["ci_low"], row["ci_high"]) == pytest.approx((once[f"{name}_ci_low"], once[f"{name}_ci_high"]))


def test_what_is_there_is_not_made_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import accuracy

    kept = [*folder.glob("answers/*"), *folder.glob("encoders/*.safetensors")]
    before = {path: path.stat().st_mtime_ns for path in kept}
    assert len(before) == 2 * (2 * 2 * 8) + 4  # answers and what they were made with, and encoders
    assert not list(folder.glob("unfinished/*"))
    accuracy.main(ASKED)
    assert {path: path.stat().st_mtime_ns for path in kept} == before

    table = capsys.readouterr().out
    value = told(folder)["contrastive", "accuracy"]["value"]
    assert f"| contrastive way | {value:.3f} (".replace("0.", ".") in table
    assert "(phantoms)" in table


def test_only_what_is_missing_is_made_and_till_then_left_out(
    folder: Path, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import accuracy

    gone = copied / "answers" / "encoder-patient-2-12-1.csv"
    before = gone.read_text()
    gone.unlink()
    accuracy.main([*ASKED, "--folder", str(copied), "--table-only", "--out", str(copied / "docs")])
    whole, found = told(folder), told(copied / "docs")
    for way in WAYS:  # by the draw that all have
        assert found[way, "accuracy"]["by_draw"] == whole[way, "accuracy"]["by_draw"][:1]
    assert json.loads((copied / "docs" / "results.json").read_text())["draws"] == {"12": [0]}
    assert (copied / "docs" / "accuracy.png").stat().st_size > 10_000
    assert "1 of 32 answers are missing" in capsys.readouterr().err
    assert not gone.exists()

    others = {path: path.stat().st_mtime_ns for path in copied.glob("answers/*.csv")}
    accuracy.main([*ASKED, "--folder", str(copied)])
    assert gone.read_text() == before
    assert {path: path.stat().st_mtime_ns for path in others} == others


def test_answers_of_other_data_or_another_encoder_are_refused(copied: Path) -> None:
    import accuracy

    asked = [*ASKED, "--folder", str(copied)]
    about = copied / "answers" / "scratch-patient-1-12-0.json"
    before = about.read_text()
    about.write_text(json.dumps(json.loads(before) | {"data_digest": "other"}))
    with pytest.raises(SystemExit, match=r"made with another data_digest, other where .* remove it to have it made"):
        accuracy.main([*asked, "--table-only"])
    about.write_text(before)

    encoders = copied / "encoders"
    os.replace(encoders / "encoder-patient-1.safetensors", encoders / "contrastive-patient-1.safetensors")
    with pytest.raises(SystemExit, match="made with another encoder"):
        accuracy.main([*asked, "--table-only"])
    with pytest.raises(SystemExit, match="pretrained by way=encoder on split=patient:1"):
        accuracy.main([*asked, "--ways", "contrastive"])
    with pytest.raises(SystemExit):
        accuracy.main([*asked, "--folds", "6"])


def test_a_variant_stands_beside_the_whole_recipe(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import ablation

    asked = ["sample:36", "--preset", "tiny", "--folds", "1,2", "--folder", str(copied)]
    asked += ["--variants", "labelled slices alone"]
    ablation.main([*asked, "--table-only"])
    assert "labelled slices alone" not in capsys.readouterr().out
    ablation.main(asked)
    lines = capsys.readouterr().out.splitlines()
    kept = copied / "ablation" / "learn_from-labels" / "answers"
    assert json.loads((kept / "contrastive-patient-1-12-0.json").read_text())["config"]["learn_from"] == "labels"
    for line, place in zip(lines[-2:], (copied, kept.parent), strict=True):
        expected = by_hand(answers(place, "contrastive", 0))
        assert [float(cell) for cell in line.split("|")[2:4]] == pytest.approx(expected, abs=5e-4)

    before = {path: path.stat().st_mtime_ns for path in kept.glob("*.csv")}
    ablation.main(asked)
    assert {path: path.stat().st_mtime_ns for path in kept.glob("*.csv")} == before
    assert capsys.readouterr().out.splitlines()[-2:] == lines[-2:]


def test_two_recipes_are_compared(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import accuracy
    import between

    monkeypatch.setattr(between, "open_study", lambda given: accuracy.open_study(Namespace(**vars(given) | here)))
    here = {"folder": copied}
    asked = ["--folds", "1,2", "--budgets", "12", "--draws", "0,1"]
    between.main(["sample:36", "tiny/contrastive", "tiny/scratch", *asked])
    cells = capsys.readouterr().out.splitlines()[-1].split("|")
    ours, theirs = (
        np.mean([by_hand(answers(copied, way, draw)) for draw in (0, 1)], axis=0) for way in ("contrastive", "scratch")
    )
    assert [float(cell.split("(")[0]) for cell in cells[3:5]] == pytest.approx(list(ours - theirs), abs=6e-4)
    between.main(["sample:36", "tiny/contrastive/12/1", "tiny/scratch", *asked])
    cells = capsys.readouterr().out.splitlines()[-1].split("|")
    one = np.array(by_hand(answers(copied, "contrastive", 1)))
    assert [float(cell.split("(")[0]) for cell in cells[3:5]] == pytest.approx(list(one - theirs), abs=6e-4)
    with pytest.raises(SystemExit, match="give PRESET/WAY"):
        between.main(["sample:36", "tiny/contrastive/12", "tiny/scratch", *asked])
    with pytest.raises(SystemExit, match="all-0 is not there"):
        between.main(["sample:36", "tiny/contrastive", "tiny/scratch", "--folds", "1", "--budgets", "all"])


def test_suggested_labels_are_those_of_suggest(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import accuracy

    asked = ["sample:36", "--preset", "tiny", "--folds", "1", "--draws", "1", "--folder", str(copied)]
    asked += ["--ways", "scratch", "--budgets", "12-suggested"]
    accuracy.main(asked)
    assert "| | 12-suggested labels |" in capsys.readouterr().out
    kept = copied / "answers" / "scratch-patient-1-12-suggested-1.csv"
    before = kept.stat().st_mtime_ns

    csv = copied / "asked.csv"
    encoder = copied / "encoders" / "contrastive-patient-1.safetensors"
    config = Suggest(data="sample:36", split="patient:1", pretrained=str(encoder), count=12, seed=1, output=str(csv))
    suggest(config, Silent("suggest", copied))
    named = pd.read_csv(copied / "labels" / "suggested-patient-1-1.csv")
    assert list(named.file) == list(pd.read_csv(csv).file)
    assert set(named["class"]) == set(pd.read_csv(kept)["class"])

    accuracy.main(asked)  # what is there is not made again, wherever the folder lies
    moved = copied.rename(copied.with_name("moved"))
    accuracy.main([*asked, "--folder", str(moved)])
    kept = moved / "answers" / kept.name
    assert kept.stat().st_mtime_ns == before
    labels = moved / "labels" / "suggested-patient-1-1.csv"
    labels.write_text("".join(labels.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(SystemExit, match="made with another labels"):
        accuracy.main([*asked, "--folder", str(moved)])


def test_of_the_same_cell_in_two_files_the_later_counts(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import accuracy_table

    found = json.loads((folder / "results.json").read_text())
    later = [row | {"value": 0.123} for row in found["figures"] if row["method"] == "scratch"]
    (tmp_path / "later.json").write_text(json.dumps({"figures": later, "above_scratch": []}))
    accuracy_table.main([str(folder / "results.json"), str(tmp_path / "later.json"), "--out", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("| control: from scratch |")).count(".123 (") == 2
    value = told(folder)["contrastive", "accuracy"]["value"]
    assert next(line for line in lines if line.startswith("| contrastive way |")).startswith(
        f"| contrastive way | {value:.3f} (".replace("0.", ".")
    )
    assert len([line for line in lines if line.startswith("| contrastive way | 12 |")]) == 2
    assert (tmp_path / "accuracy.png").stat().st_size > 10_000
