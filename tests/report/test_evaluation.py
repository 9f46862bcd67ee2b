import base64
import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from reader import Page

from sslbt.evaluation.answering import curve
from sslbt.evaluation.metrics import Predictions, paired_difference
from sslbt.evaluation.metrics import evaluate as measure
from sslbt.evaluation.results import HEADLINE, Answering, Control, Results, Shown
from sslbt.report.card import About
from sslbt.report.evaluation import evaluation_report
from sslbt.report.findings import BACKGROUND, BLANKED, ELSEWHERE, SHUFFLED
from sslbt.report.page import HEAT, OUTLINE, interval, overlay

CLASSES = ("meningioma", "glioma", "pituitary")
LIMITS, FAILS, WORSE = "What limits this", "Where it fails", "When pictures get worse"
PNG = "data:image/png;base64,"
STRUCTURE = (
    "html head meta title style body main section div h1 h2 h3 p strong ul li dl dt dd table thead tbody tr th td"
)
HARMLESS = {*STRUCTURE.split(), *["img", "figure", "figcaption", "pre", "span", "i", "b"]}
KNOWN = {*["class", "src", "alt", "width", "scope", "lang", "charset", "name", "content", "http-equiv", "style"]}
EVIL = "\"'><script>alert(2)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}&lt;{% raw %}"
ABOUT = About(
    name="contrastive way, 12 labels",
    synthetic=False,
    data="figshare",
    digest="d1g35t",
    licence="CC BY 4.0, somebody",
    split="patient",
    split_hash="5p17",
    warning="",
    unknown_patients=0,
    labelled=12,
    training=1760,
    validation_families=31,
    size=128,
    width=32,
    weights=2_790_000,
    temperature=1.37,
    run="r0n",
    classifier="c1a55",
    pretraining="pr3",
    code="51ed669",
    date="2026-11-25",
    commands=("mlflow run . -e finetune -P labels=12", "mlflow run . -e evaluate -P model=c1a55"),
)


@pytest.fixture(autouse=True)
def _charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts, which take long to draw, are not drawn."""
    monkeypatch.setattr("sslbt.report.page.picture", lambda figure: PNG)


def answers(patients: int = 60, right: float = 3.0, seed: int = 0, classes: tuple[str, ...] = CLASSES) -> Predictions:
    """Five slices of each patient; the higher `right`, the oftener the truth is found."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(patients) % len(classes), 5)
    scores = generator.normal(size=(len(labels), len(classes))) + right * np.eye(len(classes))[labels]
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    families = np.repeat([f"P{number:03}" for number in range(patients)], 5)
    return Predictions(labels, probabilities, families, np.array([f"{row}.mat" for row in range(len(labels))]))


def control(name: str, ours: Predictions, theirs: Predictions, classes: tuple[str, ...] = CLASSES) -> Control:
    low, high = np.percentile(paired_difference(ours, theirs, HEADLINE), [2.5, 97.5])
    return Control(name, f"what {name} is", measure(theirs, classes), (low, high))


def table(names: str, *rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=names.split())


GROUPS = "by group slices patients accuracy accuracy_ci_low accuracy_ci_high"
ROBUSTNESS = "change strength balanced_accuracy balanced_accuracy_ci_low balanced_accuracy_ci_high"
SALIENCY = "method by group slices pointing pointing_ci_low pointing_ci_high inside inside_ci_low inside_ci_high "
SALIENCY += "share share_ci_low share_ci_high"


def made(
    predictions: Predictions | None = None, controls: list[Control] | None = None, classes: tuple[str, ...] = CLASSES
) -> Results:
    """A sound evaluation, where nothing calls for a warning."""
    ours = predictions or answers(classes=classes)
    chance = answers(right=0, seed=1, patients=len(np.unique(ours.families)), classes=classes)
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256), np.uint8)
    mask = np.zeros((256, 256), bool)
    mask[100:150, 100:150] = True
    heat = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    wrong = np.flatnonzero(ours.predicted != ours.labels)[:2]

    def shown(row: int) -> Shown:
        return Shown(ours.files[row], ours.families[row], ours.labels[row], ours.probabilities[row], pixels, heat, mask)

    return Results(
        classes=classes,
        predictions=ours,
        uncalibrated=answers(len(np.unique(ours.families)), seed=2, classes=classes).probabilities,
        metrics=measure(ours, classes) | {"ece": 0.03},
        controls=[control("raw pixels", ours, chance, classes)] if controls is None else controls,
        answering=Answering(0.9, 0.12, 31, (0.95, 0.9, 0.99), 0.7, 0.98, curve(ours)),
        outliers=table("kind pictures accepted", ("slices of this test", 300, 0.98), ("chest X-rays", 200, 0.05)),
        groups=table(
            GROUPS, ("plane", "axial", 150, 40, 0.9, 0.85, 0.97), ("plane", "coronal", 150, 40, 0.9, 0.8, 0.98)
        ),
        robustness=table(ROBUSTNESS, ("noise", 0, 0.9, 0.8, 0.95), ("noise", 0.1, 0.7, 0.6, 0.8)),
        saliency=table(SALIENCY, ("Grad-CAM", "all", "all", 300, 0.58, 0.5, 0.66, 0.4, 0.3, 0.5, 0.31, 0.26, 0.37)),
        worst=[shown(row) for row in wrong],
        examples=[shown(0)],
    )


def page(results: Results | None = None, **about: object) -> Page:
    return Page(evaluation_report(results or made(), replace(ABOUT, **about)))


def warned(results: Results, **about: object) -> list[str]:
    return page(results, **about).said(LIMITS, "li")


def test_saliency_that_knows_no_more_than_the_middle_of_the_picture_is_told() -> None:
    own = made().saliency
    below, above = (own.assign(method="middle", pointing=value) for value in (0.5, 0.6))
    assert warned(replace(made(), saliency=pd.concat([own, below]))) == []
    (said,) = warned(replace(made(), saliency=pd.concat([own, above])))
    assert (
        "“middle” points at or near the tumour at least as often as the classifier's maps (0.600, against 0.580" in said
    )


def test_nothing_is_loaded_nothing_runs_and_the_page_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # with charts
    html = evaluation_report(made(), ABOUT)
    check_harmless(Page(html))
    assert len(html) < 1e6


def check_harmless(shown: Page) -> None:
    assert {tag for tag, _ in shown.tags} <= HARMLESS
    for tag, attributes in shown.tags:
        assert attributes.keys() <= KNOWN
        assert (attributes.get("src") or PNG).startswith((PNG, "data:image/jpeg;base64,"))
        assert tag != "img" or attributes["alt"]  # whoever can't see it is told
    policies = [attributes["content"] for _, attributes in shown.tags if "http-equiv" in attributes]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_hostile_names_are_text() -> None:
    results = made(classes=(EVIL, "glioma"))
    strange = replace(results.worst[0], file=EVIL, family=EVIL)
    results = replace(
        results,
        worst=[strange],
        controls=[replace(results.controls[0], name=EVIL, about=EVIL, difference=(-1, 1))],
        groups=table(GROUPS, (EVIL, EVIL, 9, 9, 0.1, 0.0, 0.2)),
        robustness=results.robustness.assign(change=EVIL),
        saliency=results.saliency.assign(method=EVIL),
        outliers=table("kind pictures accepted", ("slices", 9, 1.0), (EVIL, 9, 1.0)),
    )
    facts = dict.fromkeys(("name", "data", "digest", "licence", "split", "warning", "run", "code"), EVIL)
    shown = page(results, **facts, commands=(EVIL,))
    check_harmless(shown)
    assert EVIL in shown.said("How to repeat it", "pre")
    assert f"{EVIL}, patient {EVIL}" in shown.said(FAILS, "figcaption")
    assert [EVIL, "9", "100.0%"] in shown.tables["What it must refuse"]
    assert EVIL in shown.said(LIMITS, "li")


def test_the_first_screen_says_what_was_found() -> None:
    results = made()
    first, second = page(results).said("Evaluation: contrastive way, 12 labels", "p")[:2]
    metrics = results.metrics
    value, low, high = (f"{metrics[HEADLINE + end]:.3f}" for end in ("", "_ci_low", "_ci_high"))
    assert f"over 60 patients it never saw: {value} ({low} to {high}); chance would be 0.333." in first
    assert f"that of {metrics['accuracy']:.0%} of their 300 slices" in first
    assert second == "On the same test it stands above “raw pixels”."
    assert warned(results) == []


def test_tables_hold_what_was_measured() -> None:
    results = made()
    shown = page(results)
    rows = {row[0]: row[1:] for row in shown.tables["Results"]}
    metrics = results.metrics
    assert rows["accuracy"] == [
        f"{metrics[name]:.3f} ({metrics[name + '_ci_low']:.3f} to {metrics[name + '_ci_high']:.3f})"
        for name in ("accuracy", "patient_accuracy")
    ]
    assert rows["Brier score"][0].startswith(f"{metrics['brier']:.3f}")
    for row, name in zip(shown.tables["Each class against the rest, over slices"][1:], CLASSES, strict=True):
        assert row[:2] == [name, "100"]
        assert row[2].startswith(f"{metrics[f'recall_{name}']:.3f}")
    assert shown.tables["By group"][1] == ["plane: axial", "150", "40", "0.900 (0.850 to 0.970)"]
    assert shown.tables["Where it looks"][1] == [
        "Grad-CAM",
        "all",
        "300",
        "0.580 (0.500 to 0.660)",
        "0.400 (0.300 to 0.500)",
        "0.310 (0.260 to 0.370)",
    ]
    assert "on this test they hold it in 0.950 (0.900 to 0.990)" in shown.said("When it answers", "li")
    assert "it answers in 70% of the slices; 98% of these answers are right" in shown.said("When it answers", "li")


def test_calibration_is_told_before_and_after() -> None:
    results = made()
    before, after = page(results).tables["Do probabilities mean what they say?"][1:]
    right = np.eye(3)[results.predictions.labels]
    for row, given in ((before, results.uncalibrated), (after, results.predictions.probabilities)):
        assert row[2] == f"{np.mean([((p - t) ** 2).sum() for p, t in zip(given, right, strict=True)]):.3f}"
        assert row[3] == f"{given.max(axis=1).mean():.3f}"


def beside(name: str, theirs: float, low: float, high: float, ends: tuple[float, float] = (0.0, 1.0)) -> Results:
    """A classifier at 0.9 beside one control."""
    results = made()
    figures = {HEADLINE: theirs, f"{HEADLINE}_ci_low": ends[0], f"{HEADLINE}_ci_high": ends[1]}
    metrics = results.metrics | {HEADLINE: 0.9, f"{HEADLINE}_ci_low": 0.85, f"{HEADLINE}_ci_high": 0.95}
    return replace(results, metrics=metrics, controls=[Control(name, "it", figures, (low, high))])


@pytest.mark.parametrize(
    ("name", "theirs", "low", "high", "ends", "words"),
    [
        ("raw pixels", 0.5, 0.3, 0.5, (0, 1), None),
        ("raw pixels", 0.87, 0.01, 0.05, (0, 1), "“raw pixels” comes near the classifier (0.870 beside 0.900, diff"),
        ("raw pixels", 0.8, -0.02, 0.2, (0, 1), "difference −0.020 to +0.200); the classifier is not clearly above it"),
        ("raw pixels", 0.95, -0.1, -0.01, (0, 1), "“raw pixels” is better than the classifier"),
        (BLANKED, 0.89, -0.02, 0.04, (0, 1), "it answers nearly as well without the tumour (0.890"),
        (BLANKED, 0.6, 0.2, 0.4, (0, 1), None),
        (ELSEWHERE, 0.9, -0.01, 0.01, (0, 1), None),  # as it should be
        (BACKGROUND, 0.5, 0.3, 0.5, (0.4, 0.6), "it tells classes apart by the air around the head alone (0.500"),
        (BACKGROUND, 0.36, 0.4, 0.6, (0.3, 0.4), None),
        (
            SHUFFLED,
            0.45,
            0.3,
            0.5,
            (0.4, 0.5),
            "shuffled labels, the same method reaches 0.450 (0.400 to 0.500), which",
        ),
        (SHUFFLED, 0.34, 0.5, 0.6, (0.25, 0.45), None),
    ],
)
def test_a_control_that_comes_near_is_told_in_words(
    name: str, theirs: float, low: float, high: float, ends: tuple[float, float], words: str | None
) -> None:
    said = warned(beside(name, theirs, low, high, ends))
    assert (words in said[0] and len(said) == 1) if words else said == []


@pytest.mark.parametrize(
    ("low", "high", "word"), [(0.1, 0.2, "above"), (-0.1, 0.2, "not clearly apart from"), (-0.2, -0.1, "below")]
)
def test_where_the_classifier_stands_to_a_control(low: float, high: float, word: str) -> None:
    shown = page(beside("raw pixels", 0.7, low, high))
    assert f"it stands {word} “raw pixels”." in shown.said("Evaluation: contrastive way, 12 labels", "p")[1]
    (row,) = shown.tables["Beside controls"][1:]
    signs = [f"{value:+.3f}".replace("-", "−") for value in (low, high)]
    assert row == ["raw pixels", f"{word} it", "0.700 (0.000 to 1.000)", " to ".join(signs)]
    assert "raw pixels: it" in shown.said("Beside controls", "li")


def test_a_classifier_without_controls_is_warned_of() -> None:
    assert "there is no control" in warned(made(controls=[]))[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metrics": {"ece": 0.08}}, "probabilities are off by 0.080 on average (ECE): on the whole the classifier is"),
        ({"metrics": {f"{HEADLINE}_ci_low": 0.5, f"{HEADLINE}_ci_high": 0.77}}, "the interval is 0.27 wide"),
        ({"answering": {"covered": (0.8, 0.7, 0.88)}}, "0.800 (0.700 to 0.880) hold the true one, fewer than the 90%"),
        ({"answering": {"answered": 0.3}}, "it commits itself to one class in 30% of the slices only"),
        ({"outliers": {"accepted": [0.98, 0.24]}}, "24% of chest X-rays pass, though it learnt from nothing like them"),
        ({"groups": {"accuracy_ci_high": [0.5, 1.0]}}, "it is worse on plane axial"),
    ],
)
def test_what_limits_the_figures_is_said(change: dict, words: str) -> None:
    results = made()
    for name, values in change.items():
        now = getattr(results, name)
        changed = now | values if isinstance(now, dict) else now.assign(**values) if name != "answering" else None
        results = replace(results, **{name: replace(now, **values) if changed is None else changed})
    (said,) = warned(results)
    assert words in said


def test_few_patients_and_missing_classes_are_said() -> None:
    said = warned(made(answers(patients=27)))
    assert "few patients: 9 of meningioma, 9 of glioma and 9 of pituitary; each one moves the figures a lot" in said
    ours = answers(patients=40, classes=CLASSES[:2])
    wider = np.hstack([ours.probabilities, np.zeros((200, 1))])
    results = made(replace(ours, probabilities=wider), controls=[])
    shown = page(results)
    assert "no slice of pituitary is in the test: nothing is known about it" in shown.said(LIMITS, "li")
    assert "chance would be 0.500" in shown.said("Evaluation: contrastive way, 12 labels", "p")[0]
    assert shown.tables["Each class against the rest, over slices"][3][1] == "0"


def test_warnings_of_the_split_and_of_patients() -> None:
    shown = page(warning="split=slices leaks", unknown_patients=3)
    said = shown.said(LIMITS, "li")
    assert not any("never saw" in text for _, _, text in shown.texts)
    assert said[0] == "split=slices leaks"
    assert said[1].startswith("whose slice it is isn't known for 3 slices")
    card = dict(page(warning="split=slices leaks").tables["Card of the classifier"])
    assert card["20 Disjoint by"] == "Not wholly by patient: split=slices leaks."


def test_what_was_not_measured_is_said_in_a_line() -> None:
    results = made()
    names = ("groups", "robustness", "saliency", "outliers")
    silent = replace(results.answering, answered=0.0, accuracy=float("nan"))
    empty = {name: pd.DataFrame() for name in names}
    shown = page(replace(results, **empty, worst=[], examples=[], answering=silent))
    assert "it answers in 0% of the slices; none of these answers are right" in shown.said("When it answers", "li")
    assert shown.said(WORSE, "p") == ["Not measured."]
    assert shown.said(FAILS, "p") == ["No answer was wrong."]
    assert shown.said("Where it looks", "p") == ["Not measured: no tumour is outlined in these data."]
    assert "By group" not in [text for _, tag, text in shown.texts if tag == "h3"]
    card = dict(shown.tables["Card of the classifier"])
    assert card["30 Robustness"] == "Not measured."
    assert card["31 Explainability"] == "Not measured: no tumour is outlined in these data."


def test_the_worst_cases_show_probabilities_and_truth() -> None:
    results = made()
    case = replace(results.worst[0], truth=0, probabilities=np.array([0.07, 0.9, 0.03]), saliency=None, mask=None)
    shown = page(replace(results, worst=[case]))
    assert "meningioma, taken for glioma" in shown.said(FAILS, "p")
    assert shown.said(FAILS, "span") == ["glioma", "0.90", "meningioma", "0.07", "pituitary", "0.03"]
    kinds = [
        attributes["class"]
        for tag, attributes in shown.tags
        if tag == "div" and "bar" in (attributes.get("class") or "")
    ]
    assert kinds[-3:] == ["bar wrong", "bar right", "bar other"]
    assert f"{case.file}, patient {case.family}" in shown.said(FAILS, "figcaption")


def test_the_true_class_is_shown_however_unlikely_it_seemed() -> None:
    names = tuple("abcdef")
    results = made(classes=names)
    case = replace(results.worst[0], truth=5, probabilities=np.array([0.5, 0.3, 0.1, 0.07, 0.02, 0.01]))
    assert page(replace(results, worst=[case])).said(FAILS, "span")[::2] == ["a", "b", "c", "f"]


def test_the_card_and_the_way_to_repeat_it() -> None:
    shown = page(pretraining="")
    card = dict(shown.tables["Card of the classifier"])
    assert card["24 Initialisation"] == "Random weights."
    assert "2,790,000 weights" in card["22 Model"]
    assert card["35 Numbers"] == ("300 test slices of 60 patients: 20 of meningioma, 20 of glioma and 20 of pituitary.")
    assert "CC BY 4.0, somebody" in card["7 Data"]
    assert shown.said("How to repeat it", "pre") == [" ".join(ABOUT.commands)]
    assert ["pretraining", "none: trained from scratch"] in shown.tables["How to repeat it"]
    assert ["split", "patient, hash 5p17"] in shown.tables["How to repeat it"]


def test_phantoms_are_called_phantoms() -> None:
    shown = page(synthetic=True)
    assert any("drawn by the software" in text for _, tag, text in shown.texts if tag == "p")
    assert dict(shown.tables["Card of the classifier"])["7 Data"].startswith("Phantoms")


def test_equal_results_give_an_equal_page() -> None:
    assert evaluation_report(made(), ABOUT) == evaluation_report(made(), ABOUT)


def opened(src: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(src.partition(",")[2]))), float)


def test_an_overlay_has_the_outline_around_the_mask_and_heat_where_it_is() -> None:
    pixels = np.full((256, 256), 100, np.uint8)
    mask = np.zeros((256, 256), bool)
    mask[64:128, 64:128] = True
    heat = np.zeros((64, 64), np.float32)
    heat[40:, 40:] = 1
    seen = opened(overlay(pixels, mask, heat, "a slice", 144).src)
    np.testing.assert_allclose(seen[63, 70:120].mean(axis=0), OUTLINE, atol=25)  # JPEG
    np.testing.assert_allclose(seen[70:120, 70:120].mean(axis=(0, 1)), 100, atol=3)  # the tumour itself is left free
    np.testing.assert_allclose(seen[200:, 200:].mean(axis=(0, 1)), 0.35 * 100 + 0.65 * np.array(HEAT), atol=3)
    np.testing.assert_allclose(seen[:40, :40].mean(axis=(0, 1)), 100, atol=3)


def test_a_slice_alone_is_grey() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    seen = opened(overlay(np.kron(pixels, np.ones((8, 8), np.uint8)), None, None, "", 144).src)
    assert np.ptp(seen, axis=2).max() <= 2
    np.testing.assert_allclose(seen[4::8, 4::8, 0], pixels, atol=20)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.69949, 0.5556, 0.829), "0.699 (0.556 to 0.829)"),
        ((0.5, float("nan"), float("nan")), "0.500"),
        ((float("nan"),) * 3, "–"),
    ],
)
def test_intervals_in_three_digits(numbers: tuple[float, float, float], text: str) -> None:
    assert interval(*numbers).replace("\u00a0", " ") == text
