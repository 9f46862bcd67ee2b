from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from sslbt.errors import UserError
from sslbt.nn.encoder import Encoder
from sslbt.pretext.pairs import Contrast, Pairs

KINDS = ("patient", "views", "label")
ALONE = "P9"  # a patient with a single slice
# P1A and P1B are one family. Labels change from family to family, never within.
PATIENTS = {"P1A": 3, "P1B": 2, "P2": 4, "P3": 1, "P4": 5, "P5": 2, ALONE: 1}


@pytest.fixture
def table() -> pd.DataFrame:
    patients = [name for name, slices in PATIENTS.items() for _ in range(slices)]
    table = pd.DataFrame({"patient": patients})
    table["file"] = [f"{row}.mat" for row in range(len(table))]
    table["family"] = table.patient.str.replace(r"[AB]$", "", regex=True)
    table["label"] = pd.factorize(table.family)[0] % 3
    return table.sample(frac=1, random_state=0).reset_index(drop=True)


def pick(table: pd.DataFrame, column: str, rows: np.ndarray) -> np.ndarray:
    return table[column].to_numpy()[rows]


@pytest.mark.parametrize(("kind", "shared"), [("patient", "patient"), ("views", "file"), ("label", "label")])
def test_positive_pairs_share_what_they_should(table: pd.DataFrame, kind: str, shared: str) -> None:
    rows = Pairs(table, kind).positive(500, np.random.default_rng(0))
    assert rows.shape == (500, 2)
    of = pick(table, shared, rows)
    assert (of[:, 0] == of[:, 1]).all()


@pytest.mark.parametrize("kind", ["patient", "label"])
def test_a_slice_pairs_with_another_where_there_is_one_and_with_every_other_in_time(
    table: pd.DataFrame, kind: str
) -> None:
    rows = Pairs(table, kind).positive(4000, np.random.default_rng(0))
    itself = rows[:, 0] == rows[:, 1]
    single = table[kind].map(table[kind].value_counts()).to_numpy() == 1
    assert (itself == single[rows[:, 0]]).all()
    drawn = set(map(tuple, rows.tolist()))
    possible = {
        (a, b) for a in table.index for b in table.index if table[kind][a] == table[kind][b] and (a != b or single[a])
    }
    assert drawn == possible


@pytest.mark.parametrize("kind", ["patient", "label"])
def test_the_other_slice_is_any_of_its_kind_with_equal_chance(table: pd.DataFrame, kind: str) -> None:
    rows = Pairs(table, kind).positive(600 * len(table), np.random.default_rng(0))
    for row in table.index:
        others = [other for other in table.index if table[kind][other] == table[kind][row] and other != row] or [row]
        drawn = Counter(rows[rows[:, 0] == row, 1].tolist())
        assert set(drawn) == set(others)
        assert chisquare([drawn[other] for other in others]).pvalue > 1e-4 or len(others) == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=25), st.integers(1, 60), st.integers(0, 5))
def test_pairs_of_any_table_are_those_of_the_definition(patients: list[int], count: int, seed: int) -> None:
    names = [*map(str, patients), "of another family"]
    table = pd.DataFrame({"patient": names, "family": names, "file": range(len(names)), "label": 0})
    rows = Pairs(table, "patient").positive(count, np.random.default_rng(seed))
    assert rows.shape == (count, 2)
    for first, second in rows:
        assert names[first] == names[second]
        assert (first == second) == (names.count(names[first]) == 1)
    for begin in range(0, count, len(names)):  # every slice is first once before any is first again
        turn = rows[begin : begin + len(names), 0].tolist()
        assert len(set(turn)) == len(turn)


def test_a_patient_with_one_slice_pairs_with_itself(table: pd.DataFrame) -> None:
    (row,) = table.index[table.patient == ALONE]
    rows = Pairs(table, "patient").positive(len(table), np.random.default_rng(0))
    assert [row, row] in rows.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_slices_take_turns(table: pd.DataFrame, kind: str) -> None:
    rows = Pairs(table, kind).positive(3 * len(table), np.random.default_rng(0))
    assert set(Counter(rows[:, 0].tolist()).values()) == {3}
    assert sorted(rows[: len(table), 0]) == list(range(len(table)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 7, 500])
def test_negative_pairs_never_share_a_family(table: pd.DataFrame, kind: str, count: int) -> None:
    rows = Pairs(table, kind).negative(count, np.random.default_rng(0))
    assert rows.shape == (count, 2)
    families = pick(table, "family", rows)
    assert (families[:, 0] != families[:, 1]).all()
    if kind == "label":
        labels = pick(table, "label", rows)
        assert (labels[:, 0] != labels[:, 1]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_groups_hold_exactly_what_may_not_be_a_negative(table: pd.DataFrame, kind: str) -> None:
    groups = Pairs(table, kind).groups
    together = (table.label if kind == "label" else table.family).to_numpy()
    assert ((groups[:, None] == groups) == (together[:, None] == together)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_generator_decides_everything(table: pd.DataFrame, kind: str) -> None:
    def drawn(seed: int) -> list:
        pairs, generator = Pairs(table, kind), np.random.default_rng(seed)
        return [pairs.positive(30, generator).tolist(), pairs.negative(30, generator).tolist()]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


@pytest.mark.parametrize(("kind", "word"), [("patient", "family"), ("views", "family"), ("label", "class")])
def test_nobody_to_contrast_with_is_said(table: pd.DataFrame, kind: str, word: str) -> None:
    one = table[table.family == "P1"].reset_index(drop=True)
    with pytest.raises(UserError, match=f"pairs={kind}.*one.*{word}"):
        Pairs(one, kind)


def test_contrast_projects_both_halves_of_a_batch_by_the_statistics_of_all() -> None:
    torch.manual_seed(0)
    first, second = torch.rand(4, 1, 32, 32), torch.rand(4, 1, 32, 32)
    model = Contrast(Encoder(4), "ntxent", temperature=0.3)
    with torch.no_grad():
        together = model.projection(model.encoder.pooled(torch.cat([first, second])))
        ours, theirs = model(first, second)
        torch.testing.assert_close(torch.cat([ours, theirs]), together)
        alone = model.projection(model.encoder.pooled(first))
        assert not torch.allclose(ours, alone, atol=0.01)
        with torch.autocast("cpu", torch.bfloat16):
            assert model(first, second)[0].dtype == torch.float32
