import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from sslbt.evaluation.calibration import fit_temperature
from sslbt.evaluation.metrics import expected_calibration_error


def simulate(temperature: float, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels that follow them once they are divided by `temperature`."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (count, 3)) * temperature
    shares = softmax(logits / temperature, axis=1).cumsum(axis=1)
    return logits, (generator.random((count, 1)) > shares).sum(axis=1)


@pytest.mark.parametrize("temperature", [0.2, 0.7, 1.0, 2.5, 8.0])
def test_a_known_temperature_is_found(temperature: float) -> None:
    logits, labels = simulate(temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


def test_no_other_temperature_fits_better() -> None:
    logits, labels = simulate(3.0, count=60)

    def surprise(temperature: float) -> float:
        return -log_softmax(logits / temperature, axis=1)[np.arange(60), labels].mean()

    found = surprise(fit_temperature(logits, labels))
    assert found <= min(surprise(temperature) for temperature in np.geomspace(0.06, 19, 200)) + 1e-6


def test_it_makes_confidence_honest() -> None:
    logits, labels = simulate(4.0)
    before = expected_calibration_error(labels, softmax(logits, axis=1))
    after = expected_calibration_error(labels, softmax(logits / fit_temperature(logits, labels), axis=1))
    assert after < 0.02 < 0.1 < before


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("right", [True, False])
def test_answers_all_right_or_all_wrong_give_a_number_all_the_same(right: bool) -> None:
    labels = np.array([0, 1, 2])
    found = fit_temperature(10 * np.eye(3)[labels if right else labels[::-1] - 1], labels)
    assert np.exp(-3) <= found <= np.exp(3)
    assert (found < 1) == right
