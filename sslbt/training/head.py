"""The added layers' first weights: logistic regression on the features of the encoder as it is.

Fine-tuning from random layers bends good features out of shape before the layers mean anything; fitted layers first
keep them (Kumar et al. 2022, "LP-FT", arXiv:2202.10054).
"""

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from sslbt.evaluation.features import extract
from sslbt.nn.heads import Classifier

INVERSE_PENALTY = 0.001  # scikit-learn's C: a dozen slices in hundreds of dimensions need a strong penalty


def fit_head(model: Classifier, slices: Tensor, labelled: Tensor, labels: Tensor) -> None:
    """Set the head of `model` in place.

    Args:
        model: its encoder stays as it is.
        slices: (n, 1, size, size) whatever there is to learn the features' mean and spread from; needs no labels.
        labelled: (m, 1, size, size).
        labels: (m,).
    """
    normalize, _, linear = model.head
    assert isinstance(normalize, nn.BatchNorm1d)
    assert isinstance(linear, nn.Linear)
    spread = torch.from_numpy(extract(model.encoder, slices))
    mean, variance = spread.mean(dim=0), spread.var(dim=0)
    normalize.load_state_dict({"running_mean": mean, "running_var": variance, "num_batches_tracked": torch.tensor(1)})
    features = normalize.eval()(torch.from_numpy(extract(model.encoder, labelled)).to(linear.weight.device))
    fitted = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000, class_weight="balanced")
    fitted.fit(features.cpu().numpy(), labels.cpu().numpy())
    weight, bias = torch.from_numpy(fitted.coef_), torch.from_numpy(fitted.intercept_)
    if len(fitted.classes_) == 2:  # of two classes scikit-learn gives one row, the second's less the first's
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.zero_()
        linear.weight[fitted.classes_] = weight.to(linear.weight)
        linear.bias[fitted.classes_] = bias.to(linear.bias)
