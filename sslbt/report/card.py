"""The card of a classifier: what is known of it, and what is not, by the items of CLAIM that apply.

CLAIM: Checklist for Artificial Intelligence in Medical Imaging, 2024 update (Tejani et al. 2024, Radiology: Artificial
Intelligence 6(4): e240300, doi 10.1148/ryai.240300).
"""

from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from sslbt.evaluation.results import HEADLINE, Results
from sslbt.report.findings import ALTERED, estimate, listed
from sslbt.report.page import Table, share, show


@dataclass(frozen=True)
class About:
    """What an evaluation's step knows beside what it measured."""

    name: str  # of the classifier, such as "contrastive way, 12 labels"
    synthetic: bool  # phantoms
    data: str  # as the user called it
    digest: str  # of the data
    licence: str  # licence and source of the data; "" where unknown
    split: str  # its name
    split_hash: str
    warning: str  # of the split; "" for none
    unknown_patients: int  # slices of whom nobody knows whose they are
    labelled: int  # slices whose labels it learnt from
    training: int  # slices of the training part, with and without labels
    validation_families: int  # patients it was chosen and calibrated by
    size: int  # side in pixels
    width: int  # channels of the first stage
    weights: int  # how many
    temperature: float
    run: str  # of this evaluation
    classifier: str  # run or file of the fine-tuning
    pretraining: str  # run or file; "" where it was trained from scratch
    code: str  # version
    date: str
    commands: tuple[str, ...]  # that repeat it, in order


def card(results: Results, about: About) -> Table:
    """One row an item; items about a manuscript, such as title and abstract, are left out."""
    sections = (*_design(results, about), *_model(about), *_tests(results, about), *_limits(results, about))
    return Table(("item of CLAIM", "what holds here"), [(item, text) for item, text in sections], texts=2)


def _design(results: Results, about: About) -> list[tuple[str, str]]:
    return [
        (
            "3, 41 Intended use",
            "Research and teaching: how far self-supervised pretraining gets with few labels. No medical device; not "
            "for diagnosis, triage or any decision about a patient.",
        ),
        ("5, 6 Design, goal", "Retrospective; classification of single slices, and of patients by their slices' mean."),
        ("7 Data", _data(about)),
        (
            "8, 12 Inclusion, missing data",
            "Every slice the data hold and that can be read; slices without content and damaged files are refused by "
            "name (see the data report). How patients came into the data is not known here.",
        ),
        (
            "9 Preprocessing",
            f"Brightness spread by slice, by its own values; squared, {about.size} pixels a side. The exported model "
            "does the same inside.",
        ),
        ("11 De-identification", "As the data came; only pixels, label, patient number and mask are used."),
        ("13 Acquisition", "Not recorded here: scanner, field strength and sequence are unknown."),
        (
            "14 to 18 Reference standard",
            "The labels that came with the data. Who set them, by what, and how far experts agree is not known here.",
        ),
        ("19 Partitions", f"Split {about.split}, hash {about.split_hash}; stored with the run."),
        (
            "20 Disjoint by",
            f"Not wholly by patient: {about.warning}."
            if about.warning
            else "Patient family: slices of one patient, and of numbers that may be one patient, are on one side.",
        ),
        ("21 Sample size", "What the data hold; no size was planned."),
    ]


def _data(about: About) -> str:
    if about.synthetic:
        return "Phantoms drawn by the software. Nothing here holds for real tumours."
    return f"{about.data} (digest {about.digest}). {about.licence or 'Licence and source are not recorded here.'}"


def _model(about: About) -> list[tuple[str, str]]:
    start = f"The encoder that {about.pretraining} pretrained." if about.pretraining else "Random weights."
    return [
        (
            "22 Model",
            f"One-channel ResNet-18 whose first stage has {about.width} channels, with a linear head; "
            f"{show(about.weights)} weights. One slice in, a probability for each class out.",
        ),
        (
            "23 Software",
            f"sslbt {about.code}; " + ", ".join(f"{name} {version(name)}" for name in ("torch", "scikit-learn")),
        ),
        ("24 Initialisation", start),
        (
            "25 Training",
            f"Labels of {show(about.labelled)} slices; the training part has {show(about.training)}. Settings are in "
            "the runs named under “How to repeat it”.",
        ),
        (
            "26, 27 Selection, ensembles",
            f"The last epoch. {show(about.validation_families)} validation patients gave the temperature "
            f"({about.temperature:.3g}) and the threshold of its answers. One network, no ensemble. Test patients "
            "chose nothing.",
        ),
    ]


def _tests(results: Results, about: About) -> list[tuple[str, str]]:
    patients = results.predictions.by_patient()
    counts = np.bincount(patients.labels, minlength=len(results.classes))
    of_class = [f"{count} of {name}" for name, count in zip(results.classes, counts, strict=True)]
    altered = [control.name for control in results.controls if control.name in ALTERED]
    changes = list(dict.fromkeys(row["change"] for row in results.robustness.to_dict("records")))
    checked = [*changes, *altered]
    return [
        (
            "28, 29 Metrics, uncertainty",
            "Balanced accuracy over patients first. 95% intervals by bootstrap over patients, with a prior patient "
            "of each class; differences to controls are paired over the same patients.",
        ),
        ("30 Robustness", f"Measured: {listed(checked)}." if checked else "Not measured."),
        (
            "31 Explainability",
            "Saliency maps, held against outlined tumours: see “Where it looks”."
            if len(results.saliency)
            else "Not measured: no tumour is outlined in these data.",
        ),
        (
            "32, 33 Internal, external test",
            "All of these data are test: external where they come from elsewhere than those it was trained on."
            if about.split == "none"
            else "Internal: patients of the same data. Not tested on those of another hospital.",
        ),
        (
            "35 Numbers",
            f"{show(len(results.predictions.labels))} test slices of {show(counts.sum())} patients: "
            f"{listed(of_class)}.",
        ),
        ("36 Demographics", "Not in the data: age and sex are unknown, so fairness between groups is untested."),
        (
            "37, 38 Performance",
            f"Balanced accuracy over patients {estimate(results.metrics, HEADLINE)}, over slices "
            f"{estimate(results.metrics, 'balanced_accuracy')}; calibration error {share(results.metrics['ece'])}.",
        ),
        ("39 Failures", f"{len(results.worst)} of the surest wrong answers and groups of slices are shown above."),
    ]


def _limits(results: Results, about: About) -> list[tuple[str, str]]:
    return [
        (
            "40 Limits",
            f"It knows {listed(list(results.classes))} only and names one of them for every brain, healthy or "
            "with another disease. Slices are chosen by people who knew of the tumour. One collection of data.",
        ),
        ("42, 43 Availability", "Commands, run ids and hashes are above; code under Apache License 2.0."),
        ("44 Funding", "Not recorded."),
    ]
