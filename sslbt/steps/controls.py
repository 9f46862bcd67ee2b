"""What stands beside a classifier's figures: dumb methods with the same labels, and itself on spoilt pictures."""

from collections.abc import Iterator

import numpy as np

from sslbt.config import Evaluate
from sslbt.errors import UserError
from sslbt.evaluation import altered, controls
from sslbt.evaluation.intervals import interval
from sslbt.evaluation.metrics import Predictions, headline, paired_difference
from sslbt.evaluation.metrics import evaluate as measure
from sslbt.evaluation.results import HEADLINE, Control
from sslbt.nn.encoder import Encoder
from sslbt.report import findings
from sslbt.steps.common import refuse_leak
from sslbt.steps.judge import Judge
from sslbt.terminal import say
from sslbt.tracking.models import CLASSIFIER, ENCODER, checkpoint_file
from sslbt.training import checkpoint

ABOUT = {
    "from scratch": "the same network trained on the same labels without pretraining",
    "majority": "always the commonest class among the labels",
    "raw pixels": "logistic regression on the slices at 32 x 32 pixels",
    "ten intensities": "logistic regression on ten figures of brightness, blind to place",
    "random encoder": "logistic regression on features of the same network with its first, random weights",
    findings.SHUFFLED: "logistic regression on the pretrained features with labels dealt out at random, mean of 20 "
    "deals: it has to be at chance",
    findings.BLANKED: "this classifier where the tumour is replaced by what surrounds it",
    findings.ELSEWHERE: "this classifier where as much is replaced beside the tumour: what painting itself costs",
    findings.BACKGROUND: "this classifier where the head is replaced by one grey",
    "learnt from the background": "logistic regression on the slices at 32 x 32 pixels, the head replaced by one grey: "
    "how much the air around heads gives away",
}

# The same for every classifier with these labels.
DUMB = ("majority", "raw pixels", "learnt from the background", "ten intensities", "random encoder")


def beside(cfg: Evaluate, judge: Judge) -> list[Control]:
    """Every control there can be on this test, measured as the classifier is."""
    found = [
        compared(name, judge.predictions, [judge.truth_of(judge.rows, own) for own in repeats], judge.cache.classes)
        for name, repeats in (*from_scratch(cfg, judge), *with_the_labels(judge))
    ]
    ours = judge.truth_of(judge.few, judge.probabilities(judge.slices(judge.few)))
    for name, rows, probabilities in spoilt(judge):
        same = np.isin(judge.few, rows)
        found.append(compared(name, ours.only(same), [judge.truth_of(rows, probabilities)], judge.cache.classes))
    return found


def compared(name: str, ours: Predictions, repeats: list[Predictions], classes: tuple[str, ...]) -> Control:
    """A control beside the classifier on the same slices; of repeats the mean."""
    metrics = controls.mean_metrics([measure(own, classes) for own in repeats])
    differences = np.mean([paired_difference(ours, own, HEADLINE) for own in repeats], axis=0)
    return Control(name, ABOUT[name], metrics, interval(differences, headline(ours)[HEADLINE] - metrics[HEADLINE]))


def from_scratch(cfg: Evaluate, judge: Judge) -> Iterator[tuple[str, list[np.ndarray]]]:
    """What the network of the run `scratch` answers."""
    if not cfg.scratch:
        return
    other, scratch = checkpoint.load_classifier(checkpoint_file(cfg.scratch, CLASSIFIER))
    if any(scratch[fact] != judge.about[fact] for fact in ("known_files", "classes")) or scratch["way"] != "scratch":
        raise UserError(f"scratch={cfg.scratch}: not the same labels trained from scratch; no fair control")
    refuse_leak(scratch["seen"], judge.split, f"scratch={cfg.scratch}")
    yield "from scratch", [Judge(other, scratch, judge.cache, judge.split).predictions.probabilities]


def with_the_labels(judge: Judge) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Methods that learn from the classifier's own labelled slices, where these are in this data."""
    about, classes = judge.about, len(judge.cache.classes)
    labels = np.array(about["known_labels"])
    yield "majority", [controls.majority(labels, len(judge.rows), classes)]
    if about["data_digest"] != judge.cache.digest:
        say("no controls that learn: the classifier's labelled slices are not in this data")
        return
    row_of = {file: row for row, file in enumerate(judge.cache.table.file)}
    labelled = np.array([row_of[file] for file in about["known_files"]])
    inputs = judge.slices(labelled), labels, judge.slices(judge.rows), classes
    yield "raw pixels", [controls.raw_pixels(*inputs)]
    without = altered.background_only(inputs[0]), labels, altered.background_only(inputs[2]), classes
    yield "learnt from the background", [controls.raw_pixels(*without)]
    yield "ten intensities", [controls.intensities(*inputs)]
    yield "random encoder", [controls.random_encoder(*inputs, int(about["width"]), seed=0)]
    yield findings.SHUFFLED, list(controls.shuffled_labels(pretrained(judge), *inputs, seed=0))


def pretrained(judge: Judge) -> Encoder:
    """The encoder as it was before it saw a label; with random weights where nothing was pretrained."""
    if judge.about["pretrained"] == "none":
        return Encoder(int(judge.about["width"]))
    return checkpoint.load_encoder(checkpoint_file(judge.about["pretrained"], ENCODER))[0]


def spoilt(judge: Judge) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """What the classifier makes of pictures that lack something: name, rows asked, probabilities."""
    masked = judge.few[judge.table(judge.few).tumour.notna().to_numpy()]
    if len(masked):
        slices, masks = judge.slices(masked), judge.masks(masked)
        yield findings.BLANKED, masked, judge.probabilities(altered.without_tumour(slices, masks))
        yield findings.ELSEWHERE, masked, judge.probabilities(altered.without_as_much(slices, masks, seed=0))
    else:
        say("no control without the tumour: these slices have no tumour masks")
    background = altered.background_only(judge.slices(judge.few))
    yield findings.BACKGROUND, judge.few, judge.probabilities(background)
