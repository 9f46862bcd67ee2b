import pytest
import torch
from torch import nn

from sslbt import parallel
from sslbt.nn.batchnorm import synchronised
from sslbt.nn.encoder import Encoder
from sslbt.nn.heads import Classifier, Dropout


def test_dropout_keeps_each_feature_with_its_probability_and_the_mean_of_all() -> None:
    torch.manual_seed(0)
    features = torch.rand(4000, 8) + 1
    dropped = Dropout(0.3).train()(features)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], features[kept] / 0.7)
    torch.testing.assert_close(kept.float().mean(dim=0), torch.full((8,), 0.7), atol=0.04, rtol=0)
    agreeing = torch.corrcoef(kept.float().T).fill_diagonal_(0)
    assert agreeing.abs().max() < 0.07  # features are dropped each for itself


def test_nothing_is_dropped_where_nothing_is_trained_or_nothing_is_to_be() -> None:
    features = torch.rand(5, 8)
    assert torch.equal(Dropout(0.9).eval()(features), features)
    assert torch.equal(Dropout(0.0).train()(features), features)


def test_processes_drop_in_their_shares_what_one_would_drop(monkeypatch: pytest.MonkeyPatch) -> None:
    features, dropout = torch.rand(6, 8), Dropout(0.5).train()
    torch.manual_seed(3)
    whole = dropout(features)
    monkeypatch.setattr(parallel, "size", lambda: 3)
    shares = []
    for number in range(3):
        monkeypatch.setattr(parallel, "rank", lambda number=number: number)
        torch.manual_seed(3)
        shares.append(dropout(features[2 * number : 2 * number + 2]))
    assert torch.equal(torch.cat(shares), whole)


def test_synchronising_leaves_names_weights_and_scores_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, slices = Classifier(Encoder(4), 3), torch.rand(4, 1, 32, 32)
    model(slices)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        scores = model.eval()(slices)
        assert synchronised(model) is model
        assert not any(type(module).__name__ == "SyncedBatchNorm" for module in model.modules())  # alone: nothing to do
        monkeypatch.setattr(parallel, "size", lambda: 2)
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
        synchronised(model)
        assert {type(module).__name__ for module in norms} == {"SyncedBatchNorm"}
        assert torch.equal(model(slices), scores)
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("part", "frozen"), [("none", 0), ("half", 5), ("all", 9)])
def test_what_is_frozen_stays_as_it_is_in_training(part: str, frozen: int) -> None:
    model = Classifier(Encoder(8), 3)
    model.freeze(part)
    before = [
        {name: t.clone() for name, t in own.state_dict().items()} for own in (model.encoder.stem, *model.encoder.blocks)
    ]
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    model(torch.rand(8, 1, 32, 32)).square().sum().backward()
    optimizer.step()
    after = [own.state_dict() for own in (model.encoder.stem, *model.encoder.blocks)]
    same = [all(torch.equal(old[name], new[name]) for name in old) for old, new in zip(before, after, strict=True)]
    assert same == [True] * frozen + [False] * (9 - frozen)
    assert model.head.training
