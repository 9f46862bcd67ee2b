"""What an evaluation comes to, in words: the sentences at the top of its page, and what a reader must be warned of."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sslbt.evaluation.results import HEADLINE, Control, Results
from sslbt.report.page import interval, share, show

# Controls by name. The others are methods, which the classifier has to beat.
SHUFFLED = "shuffled labels"
BLANKED = "tumour painted over"
ELSEWHERE = "as much painted over"
BACKGROUND = "background only"
ALTERED = (BLANKED, ELSEWHERE, BACKGROUND)

ABOVE, UNCLEAR, BELOW = "above", "not clearly apart from", "below"
NEAR = 0.05  # a control no further below the classifier is near, however clear the difference
ECE, WIDE, FEW, PASSES = 0.05, 0.2, 10, 0.1  # what warnings begin at
GROUP, GROUPS = 5, 3  # patients from which on a group is spoken of, and how many groups are


def estimate(metrics: Mapping[Any, Any], name: str) -> str:
    """One of the figures, or of those in a table's row, with its interval where it has one."""
    low, high = (metrics.get(f"{name}_ci_{end}", math.nan) for end in ("low", "high"))
    return interval(metrics.get(name, math.nan), low, high)


def chance(results: Results) -> float:
    """The headline figure of whoever gives all patients one class."""
    return 1 / len(np.unique(results.predictions.by_patient().labels))


def verdict(results: Results, warning: str) -> list[str]:
    """The result in a sentence, and how it stands to the methods it was compared with; `warning` is the split's."""
    patients = results.predictions.by_patient()
    right = int((patients.predicted == patients.labels).sum())
    sentence = (
        f"Balanced accuracy over {_count(len(patients.labels), 'patient')}{'' if warning else ' it never saw'}: "
        f"{estimate(results.metrics, HEADLINE)}; chance would be {share(chance(results))}. "
        f"It names the class of {show(right)} patients rightly, and that of {results.metrics['accuracy']:.0%} of their "
        f"{show(len(results.predictions.labels))} slices."
    )
    methods = [control for control in results.controls if control.name not in (*ALTERED, SHUFFLED)]
    by_standing = {word: [f"“{c.name}”" for c in methods if standing(c) == word] for word in (ABOVE, UNCLEAR, BELOW)}
    parts = [f"{word} {listed(names)}" for word, names in by_standing.items() if names]
    return [sentence, *([f"On the same test it stands {'; '.join(parts)}."] if parts else [])]


def standing(control: Control) -> str:
    """Where the classifier stands to a control, by the paired interval of their difference."""
    low, high = control.difference
    return ABOVE if low > 0 else BELOW if high < 0 else UNCLEAR


def warnings(results: Results, warning: str, unknown_patients: int) -> Iterator[str]:
    """Everything that limits what the figures say; `warning` is that of the split."""
    if warning:
        yield warning
    yield from _of_controls(results)
    yield from _of_patients(results, unknown_patients)
    yield from _of_answers(results)
    yield from _of_pictures(results)


def _of_controls(results: Results) -> Iterator[str]:
    ours = results.metrics[HEADLINE]
    if not results.controls:
        yield "there is no control: nothing shows how far a dumb method gets on this test"
    for control in results.controls:
        value, (low, high) = control.metrics[HEADLINE], control.difference
        near = standing(control) != ABOVE or ours - value < NEAR
        figures = f"{share(value)} beside {share(ours)}, difference {signed(low)} to {signed(high)}"
        if control.name == SHUFFLED:
            if control.metrics.get(f"{HEADLINE}_ci_low", value) > chance(results):
                yield (
                    f"trained on shuffled labels, the same method reaches {estimate(control.metrics, HEADLINE)}, which "
                    f"is above chance ({share(chance(results))}): the test gives answers away, or chance was kind"
                )
        elif control.name == BLANKED and near:
            yield (
                f"it answers nearly as well without the tumour ({figures}): it goes by something else in the pictures, "
                f"at least in part"
            )
        elif control.name == BACKGROUND:
            if control.metrics.get(f"{HEADLINE}_ci_low", value) > chance(results):
                yield f"it tells classes apart by the air around the head alone ({figures}): the pictures give hints"
        elif control.name == ELSEWHERE:
            continue
        elif standing(control) == BELOW:
            yield f"“{control.name}” is better than the classifier ({figures})"
        elif near:
            clear = "" if standing(control) == ABOVE else "; the classifier is not clearly above it"
            yield f"“{control.name}” comes near the classifier ({figures}){clear}"


def _of_patients(results: Results, unknown: int) -> Iterator[str]:
    labels = results.predictions.by_patient().labels
    counts = np.bincount(labels, minlength=len(results.classes))
    missing = [name for name, count in zip(results.classes, counts, strict=True) if not count]
    if missing:
        yield f"no slice of {listed(missing)} is in the test: nothing is known about it"
    few = [(name, int(n)) for name, n in zip(results.classes, counts, strict=True) if 0 < n < FEW]
    if few:
        yield f"few patients: {listed([f'{count} of {name}' for name, count in few])}; each one moves the figures a lot"
    low, high = (results.metrics.get(f"{HEADLINE}_ci_{end}", math.nan) for end in ("low", "high"))
    if high - low > WIDE:
        yield f"the interval is {high - low:.2f} wide: differences smaller than that are not shown by this test"
    if unknown:
        yield (
            f"whose slice it is isn't known for {_count(unknown, 'slice')}; each counts as a patient of its own, so "
            f"intervals may be too narrow and patients may be on both sides of the split"
        )


def _of_answers(results: Results) -> Iterator[str]:
    if (ece := results.metrics["ece"]) > ECE:
        surer = results.predictions.probabilities.max(axis=1).mean() > results.metrics["accuracy"]
        way = "surer than it is right" if surer else "less sure than it is right"
        yield f"probabilities are off by {ece:.3f} on average (ECE): on the whole the classifier is {way}"
    answering = results.answering
    if answering.covered[2] < answering.level:
        yield (
            f"of its sets of plausible classes, {interval(*answering.covered)} hold the true one, fewer than the "
            f"{answering.level:.0%} promised: these patients differ from those it was set by"
        )
    if answering.answered < 0.5:
        yield f"it commits itself to one class in {answering.answered:.0%} of the slices only"


def _of_pictures(results: Results) -> Iterator[str]:
    for row in results.outliers.iloc[1:].to_dict("records"):
        if row["accepted"] > PASSES:
            yield f"{row['accepted']:.0%} of {row['kind']} pass, though it learnt from nothing like them"
    yield from _of_saliency(results)
    overall = results.metrics["accuracy"]
    groups = [row for row in results.groups.to_dict("records") if row["patients"] >= GROUP]
    worse = [row for row in groups if row["accuracy_ci_high"] < overall]
    for row in sorted(worse, key=lambda row: row["accuracy"])[:GROUPS]:
        found = estimate(row, "accuracy")
        yield f"it is worse on {row['by']} {row['group']}: accuracy {found}, against {share(overall)} of all slices"


def _of_saliency(results: Results) -> Iterator[str]:
    """Maps that find the tumour no better than what knows no picture explain nothing; the classifier's come first."""
    overall = results.saliency[results.saliency.by == "all"] if len(results.saliency) else results.saliency
    for row in overall.iloc[1:].to_dict("records"):
        ours = overall.iloc[0]
        if row["pointing"] >= ours.pointing:
            yield (
                f"“{row['method']}” points at or near the tumour at least as often as the classifier's maps "
                f"({share(row['pointing'])}, against {share(ours.pointing)}; into it {share(row['inside'])}, against "
                f"{share(ours.inside)}): the maps are weak proof that it goes by the tumour"
            )


def signed(value: float) -> str:
    """A difference in three digits, with its sign."""
    return f"{value:+.3f}".replace("-", "−")


def listed(names: list[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _count(number: int, what: str) -> str:
    return f"{show(number)} {what}{'' if number == 1 else 's'}"
