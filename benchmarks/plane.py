"""How well planes are estimated, and the weights that do it: sslbt/data/plane.safetensors.

    python benchmarks/plane.py FIGSHARE              # accuracy by cross-validation, and on the test part
    python benchmarks/plane.py FIGSHARE --write      # the weights, too

tests/data/planes.csv holds planes told by eye, from contact sheets: five slices of each family of the train and
validation parts of split=patient, eight of each test family, spread over the family's files. All choices were made by
the cross-validation.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from ending import in_a_sentence
from safetensors.numpy import save_file
from scipy.ndimage import gaussian_filter, rotate, zoom
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from sslbt.data.cache import prepare
from sslbt.data.plane import PLANES, WEIGHTS, decide, describe, estimate_planes
from sslbt.data.source import Source
from sslbt.data.splits import make_split
from sslbt.evaluation.intervals import mean_interval

LABELS = Path(__file__).parents[1] / "tests" / "data" / "planes.csv"
STRENGTH = 0.3  # inverse of the penalty
PARTS = 10  # of the cross-validation


def flipped(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return picture[:, ::-1]


def darker(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return 255 * (picture / 255) ** 1.8


def turned(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """By 8 to 15 degrees, either way."""
    return rotate(picture, generator.choice([-1, 1]) * generator.uniform(8, 15), reshape=False, order=1)


def closer(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A fifth of the field of view is cut off, and often part of the head with it."""
    return zoom(picture[25:230, 25:230], 256 / 205, order=1)


def smaller(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """By two fifths, and anywhere in the picture."""
    small = zoom(gaussian_filter(picture, 1), 0.6, order=1)
    top, left = generator.integers(0, 256 - len(small), 2)
    return np.pad(small, ((top, 256 - len(small) - top), (left, 256 - len(small) - left)))


def noisy(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    real, imaginary = generator.normal(0, 20, (2, 256, 256))
    return np.hypot(picture + real, imaginary)


ALTERED = (flipped, darker, turned, closer, smaller, noisy)
LEARNT = (turned, closer)  # fitted on as well


def features(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """What describes the slices as they are, and altered in each way."""
    found = {"as it is": np.stack([describe(picture) for picture in pixels])}
    for alter in ALTERED:
        generator = np.random.default_rng(0)
        pictures = (alter(picture.astype(float), generator).clip(0, 255) for picture in pixels)
        found[alter.__name__] = np.stack([describe(picture.astype(np.uint8)) for picture in pictures])
    return found


def fit(described: dict[str, np.ndarray], planes: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weight (3, features) and bias (3,)."""
    learnt = [described[name][rows] for name in ("as it is", *(alter.__name__ for alter in LEARNT))]
    model = LogisticRegression(C=STRENGTH, max_iter=3000)
    model.fit(np.concatenate(learnt), np.tile(planes[rows], len(learnt)))
    return model.coef_, model.intercept_


def show(name: str, planes: np.ndarray, estimated: np.ndarray) -> None:
    right, refused = (estimated == planes).sum(), (estimated == "").sum()
    print(f"{name:32} {right:4} of {len(planes)} right ({right / len(planes):.1%}), {refused} not named", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()

    # 1. What was told by eye, and where it is in the data.
    cache = prepare(Source(data=options.data))
    split = make_split(cache.table, "patient", cache.classes).table
    labelled = split.reset_index(names="row").merge(pd.read_csv(LABELS), on="file", validate="one_to_one")
    test = labelled.part == "test"
    known, unseen = labelled[~test].reset_index(drop=True), labelled[test].reset_index(drop=True)
    planes = known.plane.to_numpy(str)
    if known.family.nunique() < PARTS:
        raise SystemExit(f"{options.data}: next to none of the slices of {LABELS.name}; give the figshare data set")

    # 2. Families left out in turn.
    described = features(cache.pixels[known.row])
    estimated = {name: np.empty(len(known), PLANES.dtype) for name in described}
    for rows, left_out in GroupKFold(PARTS).split(known, groups=known.family):
        weight, bias = fit(described, planes, rows)
        for name, values in described.items():
            estimated[name][left_out] = decide(values[left_out] @ weight.T + bias)
    for name, found in estimated.items():
        show(f"cross-validated, {name}", planes, found)

    # 3. The weights, and the test families that they never saw.
    weight, bias = fit(described, planes, np.arange(len(known)))
    if options.write:
        weights = {"weight": weight, "bias": bias}
        # safetensors writes bytes as they lie in memory, and scikit-learn gives columns first.
        save_file({name: np.ascontiguousarray(values, np.float32) for name, values in weights.items()}, WEIGHTS)
    pixels = cache.pixels[unseen.row]
    start = time.perf_counter()
    found = estimate_planes(pixels)
    milliseconds = (time.perf_counter() - start) / len(pixels) * 1000
    show("test, by the shipped weights", unseen.plane.to_numpy(str), found)
    _, low, high = mean_interval((found == unseen.plane).to_numpy(float), unseen.family.to_numpy())
    print(f"95 % interval over families: {low:.1%} to {high:.1%}")
    print(pd.crosstab(unseen.plane, pd.Series(found, name="estimated")).to_string())
    print(f"{milliseconds:.2f} ms a slice")


if __name__ == "__main__":
    with in_a_sentence():
        main()
