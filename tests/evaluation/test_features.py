import numpy as np
import torch

from sslbt.evaluation.features import extract, logits
from sslbt.nn.encoder import Encoder
from sslbt.nn.heads import Classifier


def test_features_are_those_of_each_slice_alone_in_order() -> None:
    torch.manual_seed(0)
    encoder = Encoder(4).train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    slices = torch.rand(300, 1, 16, 16)  # more than one batch
    features = extract(encoder, slices)
    assert features.shape == (300, 32)
    assert features.dtype == np.float32
    for row in (0, 127, 128, 299):
        with torch.no_grad():
            np.testing.assert_allclose(features[row], encoder.pooled(slices[row : row + 1])[0], atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_logits_are_the_models_without_dropout() -> None:
    torch.manual_seed(0)
    model = Classifier(Encoder(4), 3, dropout=0.9).train()
    slices = torch.rand(130, 1, 16, 16)
    found = logits(model, slices)
    assert found.shape == (130, 3)
    assert np.array_equal(found, logits(model, slices))
    with torch.no_grad():
        np.testing.assert_allclose(found, model.eval()(slices), atol=1e-5)
