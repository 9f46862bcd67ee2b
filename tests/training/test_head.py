import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from sslbt.evaluation.features import extract, logits
from sslbt.nn.encoder import Encoder
from sslbt.nn.heads import Classifier
from sslbt.training.head import INVERSE_PENALTY, fit_head

LABELS = torch.tensor([0] * 20 + [1] * 6 + [2] * 10)


def pictures(labels: Tensor) -> Tensor:
    """Noise that is the brighter, the higher the class."""
    return (torch.rand(len(labels), 1, 32, 32) + 0.5 * labels[:, None, None, None]) / 2


@pytest.fixture
def model() -> Classifier:
    return Classifier(Encoder(8), 3)


def test_the_head_is_logistic_regression_on_standardised_features(model: Classifier) -> None:
    everybody, labelled, unseen = pictures(torch.arange(60) % 3), pictures(LABELS), pictures(torch.arange(30) % 3)
    fit_head(model, everybody, labelled, LABELS)

    scaler = StandardScaler().fit(extract(model.encoder, everybody))
    scaler.scale_ = np.sqrt(scaler.var_ + model.head[0].eps)  # a channel that hardly varies doesn't count in full
    regression = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000, class_weight="balanced")
    regression.fit(scaler.transform(extract(model.encoder, labelled)), LABELS.numpy())
    wanted = regression.predict_proba(scaler.transform(extract(model.encoder, unseen)))
    found = softmax(logits(model, unseen), axis=1)
    np.testing.assert_allclose(found, wanted, atol=0.005)
    assert found.std(axis=0).max() > 0.03
    assert (found.argmax(axis=1) == np.arange(30) % 3).mean() > 0.5


def test_of_two_classes_it_is_logistic_regression_too() -> None:
    labels = torch.tensor([0] * 20 + [1] * 6)
    model, shown = Classifier(Encoder(8), 2), pictures(labels)
    fit_head(model, shown, shown, labels)
    scaler = StandardScaler().fit(extract(model.encoder, shown))
    scaler.scale_ = np.sqrt(scaler.var_ + model.head[0].eps)
    features = scaler.transform(extract(model.encoder, shown))
    regression = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000, class_weight="balanced")
    wanted = regression.fit(features, labels.numpy()).predict_proba(features)
    found = softmax(logits(model, shown), axis=1)
    np.testing.assert_allclose(found, wanted, atol=0.005)
    assert found.std(axis=0).max() > 0.03


def test_the_encoder_stays_as_it_is(model: Classifier) -> None:
    before = {name: tensor.clone() for name, tensor in model.encoder.state_dict().items()}
    fit_head(model, pictures(LABELS), pictures(LABELS), LABELS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.encoder.state_dict().items())


def test_the_fitted_head_can_be_trained_on(model: Classifier) -> None:
    fit_head(model, pictures(LABELS), pictures(LABELS), LABELS)
    model.train()(pictures(LABELS)).square().sum().backward()
    assert all(weights.grad.any() for weights in model.parameters())
