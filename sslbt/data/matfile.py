"""Writing MATLAB v7.3 files in the layout of the figshare brain tumour dataset: what `formats.read_mat` reads."""

from pathlib import Path

import h5py
import numpy as np

USERBLOCK = b"MATLAB 7.3 MAT-file, HDF5 schema 1.00 .".ljust(116) + b"\0" * 8 + b"\x00\x02IM" + b"\0" * 384


def write_mat(
    path: Path, pixels: np.ndarray, label: int, patient: str, mask: np.ndarray, synthetic: bool = False
) -> None:
    """One slice as the dataset stores it, a struct `cjdata`.

    Args:
        path: the file to write.
        pixels: (height, width) int16, upright.
        label: 1 meningioma, 2 glioma, 3 pituitary tumour.
        patient: the PID.
        mask: (height, width) bool, where the tumour is.
        synthetic: add the attribute `synthetic = 1` to the struct.
    """
    with h5py.File(path, "w", userblock_size=512) as f:
        cjdata = f.create_group("cjdata")
        cjdata.attrs["MATLAB_class"] = np.bytes_("struct")
        if synthetic:
            cjdata.attrs["synthetic"] = np.int32(1)
        _put(cjdata, "PID", np.array([[ord(c)] for c in patient], np.uint16), "char", MATLAB_int_decode=2)
        _put(cjdata, "image", pixels.T, "int16")
        _put(cjdata, "label", np.array([[float(label)]]), "double")
        _put(cjdata, "tumorBorder", outline(mask).reshape(1, -1), "double")
        _put(cjdata, "tumorMask", mask.T.astype(np.uint8), "logical", MATLAB_int_decode=1)
    _stamp(path)


def write_folds(path: Path, folds: np.ndarray) -> None:
    """The dataset's `cvind.mat`: entry i is the fold (1..5) of file i + 1."""
    with h5py.File(path, "w", userblock_size=512) as f:
        _put(f, "cvind", folds.reshape(1, -1).astype(float), "double")
    _stamp(path)


def outline(mask: np.ndarray, points: int = 24) -> np.ndarray:
    """At most `points` corners (x, y) in pixels of a mask (height, width), in order around its centre."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    y, x = np.nonzero(mask & ~inner)
    around = np.argsort(np.arctan2(y - y.mean(), x - x.mean()), kind="stable")
    chosen = around[np.linspace(0, len(around), min(points, len(around)), endpoint=False).astype(int)]
    return np.stack([x[chosen], y[chosen]], axis=1).astype(float)


def _put(group: h5py.Group, name: str, array: np.ndarray, matlab_class: str, **attributes: int) -> None:
    packed = {"compression": "gzip", "compression_opts": 1, "shuffle": True} if array.size > 1000 else {}
    dataset = group.create_dataset(name, data=array, **packed)
    dataset.attrs["MATLAB_class"] = np.bytes_(matlab_class)
    for key, value in attributes.items():
        dataset.attrs[key] = np.int32(value)


def _stamp(path: Path) -> None:
    with open(path, "r+b") as f:
        f.write(USERBLOCK)
