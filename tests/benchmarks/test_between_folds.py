"""Differences over folds, from figures made up here, beside the textbook's sum for pairs."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

T_OF_THREE = 3.182446  # 97.5 % of Student's t with three degrees of freedom, from a printed table


@pytest.fixture(autouse=True)
def importable() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
        yield


def results(file: Path, folds: str, draws: list[int], by_draw_and_fold: np.ndarray, labels: str = "123") -> str:
    """A results.json with one way; patients have half of what slices have."""
    figures = [
        {"method": "encoder", "labels": labels, "metric": metric, "by_draw_and_fold": (share * own).tolist()}
        for metric, share, own in (
            ("accuracy", 1, by_draw_and_fold),
            ("patient_balanced_accuracy", 0.5, by_draw_and_fold),
        )
    ]
    about = {"folds": {fold: f"hash of {fold}" for fold in folds}, "draws": {labels: draws}}
    file.write_text(json.dumps(about | {"figures": figures}))
    return f"{file}:encoder"


def test_the_interval_is_by_student_over_folds_and_draws_of_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import between_folds

    chance = np.random.default_rng(0)
    ours, theirs = chance.uniform(0.7, 0.9, (3, 4)), chance.uniform(0.5, 0.8, (2, 5))
    between_folds.main(
        [results(tmp_path / "a.json", "1245", [0, 1, 2], ours), results(tmp_path / "b.json", "12345", [2, 0], theirs)]
    )

    ours, theirs = ours[[0, 2]].mean(axis=0), theirs[[1, 0]][:, [0, 1, 3, 4]].mean(axis=0)
    for cell, share in zip(capsys.readouterr().out.split("|")[-3:-1], (1, 0.5), strict=True):
        more = share * (ours - theirs)
        half = T_OF_THREE * np.sqrt(((more - more.mean()) ** 2).sum() / 3 / 4)
        expected = f"{more.mean():+.3f} ({more.mean() - half:+.3f} to {more.mean() + half:+.3f})"
        assert cell.strip() == expected.replace("0.", ".")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (("1", [0], "123"), "fewer than two folds and draws in common"),
        (("123", [1], "123"), "fewer than two folds and draws in common"),
        (("123", [0], "12"), "no number of labels in common"),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path: Path, other: tuple[str, list[int], str], said: str) -> None:
    import between_folds

    folds, draws, labels = other
    first = results(tmp_path / "a.json", "123", [0], np.ones((1, 3)))
    second = results(tmp_path / "b.json", folds, draws, np.ones((1, len(folds))), labels)
    with pytest.raises(SystemExit, match=said):
        between_folds.main([first, second])


@pytest.mark.parametrize("given", ["{0}/none.json:encoder", "{0}/a.json", "{0}/a.json:scratch"])
def test_a_file_that_is_none_is_named(tmp_path: Path, given: str) -> None:
    import between_folds

    first = results(tmp_path / "a.json", "12", [0], np.ones((1, 2)))
    with pytest.raises(SystemExit, match="between_folds: ") as stopped:
        between_folds.main([first, given.format(tmp_path)])
    assert str(tmp_path) in str(stopped.value)
