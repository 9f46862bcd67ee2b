"""Which pictures pass as a brain MRI that are none: of what evaluate measures, and of any pictures of yours.

    python benchmarks/outliers.py DATA [FOLDER ...]

DATA is what `sslbt prepare` takes; the score is fitted to its training patients, on one core. Each folder in a FOLDER
is a kind of pictures: PNG, JPEG or TIFF, coloured ones turned grey. Prints kind, number and share that passes, then
how long fitting and a score took.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from ending import in_a_sentence
from PIL import Image

from sslbt.data.cache import prepare
from sslbt.data.preprocess import Preprocess
from sslbt.data.source import Source
from sslbt.data.splits import make_split
from sslbt.evaluation import outliers
from sslbt.nn.outlier import Outlier

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


def share(outlier: Outlier, files: list[Path]) -> float:
    """Of these pictures, how many pass."""
    raw = [torch.from_numpy(np.array(Image.open(file).convert("F")))[None] for file in files]
    scores = outliers.score(outlier, torch.cat([Preprocess()(picture) for picture in raw]))
    return float((scores <= float(outlier.above)).mean())


def main(data: str, folders: list[Path]) -> None:
    torch.set_num_threads(1)
    if strange := [folder for folder in folders if not folder.is_dir()]:
        raise SystemExit(f"{strange[0]}: no folder")
    cache = prepare(Source(data))
    split = make_split(cache.table, "patient", cache.classes)
    began = time.perf_counter()
    outlier = outliers.fit(cache.pixels, split)
    fitted = time.perf_counter() - began

    test = cache.pixels[split.rows("test")]
    rows = [tuple(row) for row in outliers.acceptance(outlier, test).itertuples(index=False)]
    for kind in sorted(path for folder in folders for path in folder.iterdir() if path.is_dir()):
        files = sorted(file for file in kind.rglob("*") if file.suffix.lower() in SUFFIXES)
        if not files:
            raise SystemExit(f"{kind}: no PNG, JPEG or TIFF in it")
        rows.append((kind.name, len(files), share(outlier, files)))
    for name, count, passing in rows:
        print(f"{name:45} {count:5} {passing:7.1%}")

    one = outliers.score(outlier, torch.rand(1, 1, 256, 256))
    began = time.perf_counter()
    for _ in range(100):
        one = outliers.score(outlier, torch.rand(1, 1, 256, 256))
    assert np.isfinite(one).all()
    print(f"fitted in {fitted:.0f} s; a score takes {10 * (time.perf_counter() - began):.1f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("folders", type=Path, nargs="*", metavar="folder")
    given = parser.parse_args()
    with in_a_sentence():
        main(given.data, [folder.expanduser() for folder in given.folders])
