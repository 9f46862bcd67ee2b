"""From a few labelled patients to likely classes of others, by whose slices look alike."""

import numpy as np
from scipy.sparse import csr_array, diags_array, eye_array
from scipy.sparse.linalg import spsolve
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

NEIGHBOURS = 10
TEMPERATURE = 0.1  # how fast a link weakens with cosine distance
ALPHA = 0.95  # how much of what a patient is taken for comes from others


def propagate(features: np.ndarray, patients: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How likely each patient's slices are of each class (Zhou et al. 2004, "Local and Global Consistency").

    Every slice is linked to the nearest of other patients; links of all slices of two patients together say how much
    alike these are, and along them labels travel. A patient has one class: where one slice misleads, the others tell.
    Classes are scaled to the same sum (class mass normalisation, Zhu et al. 2003).

    Args:
        features: (slices, channels) of a pretrained encoder.
        patients: (slices,) whose they are.
        labels: (slices,) from 0 on, -1 where unknown; all known ones of a patient are the same.

    Returns:
        (slices, classes), rows sum to 1; equal for all slices of a patient, certain for the labelled ones'.
    """
    _, own = np.unique(patients, return_inverse=True)
    slices = np.bincount(own)
    belongs = csr_array((1 / slices[own], (own, np.arange(len(own)))))
    links = belongs @ _nearest_of_others(features, own) @ belongs.T
    links = links + links.T

    given = np.full(len(slices), -1)
    given[own[labels >= 0]] = labels[labels >= 0]
    told = given >= 0
    known = np.eye(labels.max() + 1)[given] * told[:, None]
    degree = diags_array(1 / np.sqrt(links.sum(axis=1).clip(1e-12)))
    system = eye_array(len(slices)) - ALPHA * degree @ links @ degree
    spread = spsolve(system.tocsc(), known / known.sum(axis=0).clip(1))
    likely = spread.clip(1e-12) / spread.sum(axis=1, keepdims=True).clip(1e-12)
    likely = likely / likely.mean(axis=0)
    likely = likely / likely.sum(axis=1, keepdims=True)
    return np.where(told[:, None], known, likely)[own]


def _nearest_of_others(features: np.ndarray, own: np.ndarray) -> csr_array:
    """(slices, slices): links to the nearest slices of other patients, by the cosine of what sets slices apart."""
    unit = normalize(features.astype(np.float64))
    unit = normalize(unit - unit.mean(axis=0))
    asked = min(NEIGHBOURS + np.bincount(own).max(), len(own) - 1)  # so many that enough of others are among them
    distance, found = NearestNeighbors(n_neighbors=asked).fit(unit).kneighbors()
    other = own[found] != own[:, None]
    near = other & (other.cumsum(axis=1) <= NEIGHBOURS)
    row = np.nonzero(near)[0]
    cosine = 1 - distance[near] ** 2 / 2
    return csr_array((np.exp(cosine / TEMPERATURE), (row, found[near])), shape=(len(own), len(own)))


def surest(likely: np.ndarray, patients: np.ndarray, labels: np.ndarray, share: float) -> np.ndarray:
    """Rows of the labelled patients, and of this share of all patients whose class is surest, in rising order."""
    names, first, own = np.unique(patients, return_index=True, return_inverse=True)
    sureness = likely.max(axis=1)[first]
    order = np.argsort(-sureness, kind="stable")
    chosen = np.zeros(len(names), bool)
    chosen[order[: round(share * len(names))]] = True
    chosen[own[labels >= 0]] = True
    return np.flatnonzero(chosen[own])
