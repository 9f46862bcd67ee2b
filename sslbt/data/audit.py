"""Whether anything of the test was to be seen in training: families, folds and pictures on both sides of a split."""

from dataclasses import dataclass

import pandas as pd

from sslbt.data.cache import Cache
from sslbt.data.splits import PARTS, Split


@dataclass(frozen=True)
class Audit:
    """What was found."""

    crossing: pd.DataFrame  # family, parts, slices: families in more than one part
    pairs: pd.DataFrame  # pictures of different families that show the same: files, patients, parts, likeness, leak
    fold_families: int  # families that lie in several of the dataset's own folds
    fold_slices: int  # and their slices
    stops: bool  # a leak that the split was meant to rule out

    @property
    def leaks(self) -> pd.DataFrame:
        """The pairs whose two pictures are in different parts."""
        return self.pairs[self.pairs.leak]

    @property
    def facts(self) -> dict[str, float]:
        """In numbers."""
        return {
            "crossing_families": float(len(self.crossing)),
            "crossing_slices": float(self.crossing.slices.sum()),
            "similar_pairs": float(len(self.pairs)),
            "leaking_pairs": float(len(self.leaks)),
            "fold_crossing_families": float(self.fold_families),
            "fold_crossing_slices": float(self.fold_slices),
        }

    @property
    def findings(self) -> list[str]:
        """In words."""
        said = [_leak(self.leaks)] if len(self.leaks) else ["no picture, nor a copy of it, is in two parts"]
        if len(self.crossing):
            said.append(
                f"patient families in two parts: {len(self.crossing)}, with {self.crossing.slices.sum()} slices"
            )
        else:
            said.append("no patient family is in two parts")
        if unseen := len(self.pairs) - len(self.leaks):
            said.append(f"pictures of different patients that show the same, within one part: {unseen} pairs")
        if self.fold_families:
            said.append(
                f"patient families across the data's own folds: {self.fold_families}, {self.fold_slices} slices"
            )
        return said


def audit(cache: Cache, split: Split) -> Audit:
    """Look for what leaks between the parts of a split."""
    table = split.table[split.table.part.isin(PARTS)]
    families = table.groupby("family").agg(
        parts=("part", lambda parts: " ".join(sorted(set(parts)))), slices=("file", "size")
    )
    crossing = families[families.parts.str.contains(" ")].reset_index()

    pairs = cache.similar.copy()
    for side in ("first", "second"):
        own = split.table.iloc[pairs[side]]
        for name in ("file", "patient", "part"):
            pairs[f"{side}_{name}"] = own[name].to_numpy()
    judged = pairs.first_part.isin(PARTS) & pairs.second_part.isin(PARTS)
    pairs["leak"] = judged & (pairs.first_part != pairs.second_part)

    folded = cache.table[cache.table.fold > 0].groupby("family").agg(folds=("fold", "nunique"), slices=("file", "size"))
    across = folded[folded.folds > 1]
    stops = bool(pairs.leak.any()) and split.name != "slices"  # that one leaks by its nature, and says so
    return Audit(crossing, pairs, len(across), int(across.slices.sum()), stops)


def _leak(leaks: pd.DataFrame) -> str:
    worst = leaks.iloc[0]
    kind = "the same picture" if worst.likeness > 0.9999 else "almost the same picture"
    more = f", and {len(leaks) - 1} more such pairs" if len(leaks) > 1 else ""
    return (
        f"{worst.first_file} (patient {worst.first_patient}, {worst.first_part}) and {worst.second_file} (patient "
        f"{worst.second_patient}, {worst.second_part}) are {kind}{more}"
    )
