"""The page of a prepared dataset: how much of what it holds, how it looks, what leaks, what was refused."""

from collections.abc import Iterator
from pathlib import PurePath

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sslbt.data.audit import Audit
from sslbt.data.cache import Cache
from sslbt.data.splits import LEFT_OUT, PARTS, Split
from sslbt.report.page import Picture, Table, chart, grey, render, show

SLICES = 8  # of a class in the montage
MONTAGES = 12  # classes in the montage
COLUMNS = 6  # classes up to which tables of other things have a column for each
SIZES, FAMILIES, FINDINGS, REFUSALS = 10, 50, 20, 200  # rows of a table
FEW_FAMILIES, LARGE_SHARE, MANY_SLICES, IMBALANCE = 5, 0.2, 20, 10  # what warnings begin at

EIGHT_BIT = "look like 8 bit (0 to 255)"
RANGES = {  # by what they reach
    1: "look like fractions (0 to 1)",
    2**8 - 1: EIGHT_BIT,
    2**12 - 1: "look like 12 bit (0 to 4,095)",
    2**16 - 1: "look like 16 bit (0 to 65,535)",
}

Classes = list[tuple[str, pd.DataFrame]]  # name and slices of every class, the unlabelled ones last


def data_report(cache: Cache, split: Split, found: Audit, source: str) -> str:
    """A self-contained HTML page.

    Args:
        cache: the dataset.
        split: who is on which side.
        found: the audit of that split.
        source: where the slices come from, as the user called it.
    """
    whose = cache.table.patient.where(cache.table.patient != "", cache.table.family)
    table = cache.table.assign(part=split.table.part.to_numpy(), patient=whose)
    classes = [(name, table[table.label == label]) for label, name in enumerate(cache.classes)]
    if (table.label < 0).any():
        classes.append(("unlabelled", table[table.label < 0]))
    planes = table.plane.replace("", "not recorded")
    sizes = table.height.astype(str) + "\u00a0×\u00a0" + table.width.astype(str)
    volumes, refused = _refused(cache.refused)
    return render(
        "data.html.jinja",
        f"Data report: {PurePath(source).name or source}",
        cache.synthetic,
        [("data", cache.digest), ("split", f"{split.name} {split.hash}"), ("from", source)],
        numbers=_numbers(table, cache),
        warnings=[*_leaks(split, found), *_warnings(table, classes, cache.unknown_patients)],
        by_class=_by_class(table, classes),
        by_part=_by_part(classes),
        side=cache.pixels.shape[1],
        montage=[(name, _montage(cache.pixels, own)) for name, own in classes[:MONTAGES] if len(own)],
        unseen=_more(len(classes), MONTAGES, "classes"),
        per_patient=_per_patient(table),
        by_plane=_counted(classes, planes, "plane") if any(table.plane) else None,
        by_size=_counted(classes, sizes, "size"),
        intensities=_intensities(classes),
        families=_families(table),
        findings=found.findings,
        pairs=_pairs(cache.pixels, found.pairs),
        crossing=_limited(("family", "parts", "slices"), found.crossing.values.tolist(), FINDINGS, "families", texts=2),
        volumes=volumes,
        refused=refused,
    )


def _numbers(table: pd.DataFrame, cache: Cache) -> list[tuple[str, int]]:
    labelled = int((table.label >= 0).sum())
    return [
        ("slices", len(table)),
        ("patients", table.patient.nunique()),
        ("families", table.family.nunique()),
        ("classes", len(cache.classes)),
        ("labelled", labelled),
        ("unlabelled", len(table) - labelled),
        ("tumours outlined", int(table.tumour.notna().sum())),
        ("refused", len(cache.refused)),
    ]


def _leaks(split: Split, found: Audit) -> list[str]:
    leaks = [found.findings[0]] if len(found.leaks) else []
    return leaks + ([split.warning] if split.warning else [])


def _warnings(table: pd.DataFrame, classes: Classes, unknown: int) -> Iterator[str]:
    if unknown:
        yield (
            f"whose they are is not known of {show(unknown)} of {show(len(table))} slices: each file of them counts as "
            "a patient of its own, so intervals are too narrow, and nobody can tell whether a training saw the patient"
        )
    labelled = [(name, own) for name, own in classes if len(own) and own.label.iloc[0] >= 0]
    for name, own in labelled:
        if (families := own.family.nunique()) < FEW_FAMILIES:
            only = "one patient family" if families == 1 else f"{families} patient families"
            yield f"class {name} is of {only} only: figures about it will say little"
    for name, own in labelled:
        largest = own.patient.value_counts()
        above = int((largest > LARGE_SHARE * len(own)).sum())
        if above:
            share = f"{largest.index[0]} has {largest.iloc[0] / len(own):.0%} of its slices"
            more = f", and {above - 1} more above {LARGE_SHARE:.0%}" if above > 1 else ""
            yield f"class {name}: patient {share} ({show(largest.iloc[0])} of {show(len(own))}){more}"
    if len(table) > MANY_SLICES and table.patient.is_unique and not unknown:
        yield "every patient has exactly one slice: is the patient pattern right?"
    sizes = sorted((len(own), name) for name, own in labelled)
    if sizes and sizes[-1][0] > IMBALANCE * sizes[0][0]:
        (few, rare), (many, common) = sizes[0], sizes[-1]
        yield f"classes are out of balance: {show(many)} slices of {common}, {show(few)} of {rare}"
    kinds = {name: _range(own) for name, own in labelled}
    if len(set(kinds.values())) > 1 and EIGHT_BIT in kinds.values():
        names = ", ".join(name for name, kind in kinds.items() if kind == EIGHT_BIT)
        yield f"intensities of {names} {EIGHT_BIT}, those of the other classes do not: do they come from elsewhere?"
    if unlabelled := int((table.label < 0).sum()):
        yield f"{show(unlabelled)} of {show(len(table))} slices are unlabelled: they serve pretraining only"


def _by_class(table: pd.DataFrame, classes: Classes) -> Table:
    def row(name: str, own: pd.DataFrame) -> tuple[object, ...]:
        per_patient = own.patient.value_counts()
        return name, len(own), len(per_patient), own.family.nunique(), _spread(per_patient)

    head = ("class", "slices", "patients", "families", "per patient")
    total = row("all", table) if len(classes) > 1 else ()
    return Table(head, [row(name, own) for name, own in classes], total=total)


def _by_part(classes: Classes) -> Table:
    parts = [part for part in (*PARTS, LEFT_OUT) if any((own.part == part).any() for _, own in classes)]

    def cell(own: pd.DataFrame) -> str:
        return f"{show(len(own))} ({show(own.family.nunique())})" if len(own) else "0"

    return Table(("class", *parts), [(name, *(cell(own[own.part == part]) for part in parts)) for name, own in classes])


def _montage(pixels: np.ndarray, own: pd.DataFrame) -> list[Picture]:
    """Middle slices of patients evenly taken from the class; where there are too few patients, more slices of them."""
    by_patient = own.groupby("patient").patient
    aside = (by_patient.cumcount() - by_patient.transform("size") // 2).abs()
    rows = own.index[aside.to_numpy().argsort(kind="stable")]
    patients = max(own.patient.nunique(), min(SLICES, len(own)))
    chosen = rows[np.linspace(0, patients - 1, min(SLICES, patients)).astype(int)]
    return [grey(pixels[row], own.file[row], pixels.shape[1]) for row in sorted(chosen)]


def _per_patient(table: pd.DataFrame) -> Picture:
    counts = table.patient.value_counts()
    step = -(-int(counts.max()) // 40)
    figure = Figure(figsize=(4.8, 2), layout="constrained")
    axis = figure.subplots()
    axis.hist(counts, list(np.arange(0.5, counts.max() + step, step)), color="#2a7f88", rwidth=0.85)
    axis.set(xlabel="slices of a patient", ylabel="patients")
    for edge in (axis.xaxis, axis.yaxis):
        edge.set_major_locator(MaxNLocator(integer=True))
    axis.spines[["top", "right"]].set_visible(False)
    return chart(figure, f"histogram: patients have {_spread(counts)} slices, median (least to most)")


def _counted(classes: Classes, values: pd.Series, name: str) -> Table | None:
    """How many slices have which value, most frequent first, and how many of each class."""
    shown = classes if 1 < len(classes) <= COLUMNS else []
    rows = [
        (value, count, *(int((values[own.index] == value).sum()) for _, own in shown))
        for value, count in values.value_counts().head(SIZES).items()
    ]
    head = (name, "slices", *(name for name, _ in shown))
    return _limited(head, rows, SIZES, f"{name}s", among=values.nunique())


def _range(own: pd.DataFrame) -> str:
    """What kind of numbers the pixels of these slices seem to be."""
    low, high = own.low.min(), own.high.max()
    if low < 0:
        return f"go below 0 ({show(low)} to {show(high)})"
    return next((words for most, words in RANGES.items() if high <= most), "are larger than 16 bit")


def _intensities(classes: Classes) -> Table:
    rows = [(name, _range(own), _spread(own.low), _spread(own.high)) for name, own in classes if len(own)]
    return Table(("class", "its intensities", "darkest pixel", "brightest pixel"), rows, texts=2)


def _families(table: pd.DataFrame) -> Table | None:
    merged = table[table.groupby("family").patient.transform("nunique") > 1]
    rows = [
        (family, ", ".join(sorted(set(own.patient))), ", ".join(sorted(set(own["class"]) - {""})), len(own))
        for family, own in merged.groupby("family")
    ]
    return _limited(("family", "patients", "class", "slices"), rows, FAMILIES, "families", texts=3)


def _pairs(pixels: np.ndarray, pairs: pd.DataFrame) -> Table | None:
    """Those in two parts first."""

    def side(pair: dict, which: str) -> tuple[Picture, str]:
        file, patient, part = (pair[f"{which}_{name}"] for name in ("file", "patient", "part"))
        return grey(pixels[pair[which]], "", 72), f"{file}, patient {patient or 'unknown'}, {part}"

    rows = [
        (*side(pair, "first"), *side(pair, "second"), "yes" if pair["leak"] else "no", pair["likeness"])
        for pair in pairs.sort_values("leak", ascending=False, kind="stable").head(FINDINGS).to_dict("records")
    ]
    head = ("", "one", "", "other", "leaks", "likeness")
    return _limited(head, rows, FINDINGS, "pairs", texts=5, among=len(pairs))


def _refused(refused: pd.DataFrame) -> tuple[Table | None, Table | None]:
    """Slices of volumes by reason, since there may be thousands; everything else one by one."""
    reasons = [reason.removeprefix(f"{path}: ") for path, reason in zip(refused.path, refused.reason, strict=True)]
    parts = refused.path.astype(str).str.extract(r"^(.*)#\d+$")[0]
    table = refused.assign(reason=reasons, volume=parts)
    of_volumes = table.groupby("reason").volume.agg(["count", "nunique", "first"])
    of_volumes = of_volumes[of_volumes["count"] > 1].sort_values("count", ascending=False)
    single = table[table.volume.isna() | ~table.reason.isin(of_volumes.index)]
    grouped = [(reason, first, files, slices) for reason, (slices, files, first) in of_volumes.iterrows()]
    return (
        _limited(("reason", "for example in", "files", "slices"), grouped, REFUSALS, "reasons", texts=2),
        _limited(("file", "reason"), single[["path", "reason"]].values.tolist(), REFUSALS, "files", texts=2),
    )


def _limited(
    head: tuple[str, ...], rows: list, most: int, what: str, texts: int = 1, among: int | None = None
) -> Table | None:
    """A table of the first rows, which says how many more there are; None without any."""
    return Table(head, rows[:most], texts, more=_more(among or len(rows), most, what)) if rows else None


def _more(count: int, most: int, what: str) -> str:
    return f"and {show(count - most)} more {what}" if count > most else ""


def _spread(values: pd.Series) -> str:
    """Median, and lowest and highest where they differ."""
    if values.empty:
        return "–"
    low, high = values.min(), values.max()
    return show(low) if low == high else f"{show(values.median())} ({show(low)} to {show(high)})"
