import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslbt.nn.decoder import Decoder
from sslbt.nn.encoder import Block, Encoder
from sslbt.nn.heads import Classifier, Projection

WIDTH = 4


def scramble(model: nn.Module) -> None:
    """Batch statistics as after some training, so that they matter."""
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.3)
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(WIDTH)
    scramble(encoder)
    return encoder.eval()


def test_the_default_has_the_weights_its_docstring_says() -> None:
    assert sum(weights.numel() for weights in Encoder().parameters()) == pytest.approx(2.8e6, rel=0.01)


@pytest.mark.parametrize("size", [32, 48, 96, 256])
def test_the_feature_map_has_a_sixteenth_of_the_side(encoder: Encoder, size: int) -> None:
    slices = torch.rand(2, 1, size, size)
    with torch.no_grad():
        assert encoder(slices).shape == (2, 8 * WIDTH, size // 16, size // 16)
        assert encoder.pooled(slices).shape == (2, encoder.channels) == (2, 8 * WIDTH)


def test_a_picture_moved_by_the_stride_moves_the_feature_map_by_one(encoder: Encoder) -> None:
    slices = F.pad(torch.rand(1, 1, 32, 32), (208, 208, 208, 208), value=0.25)  # 0.25 is what the encoder calls zero
    moved = slices.roll((encoder.stride, -encoder.stride), (2, 3))
    with torch.no_grad():
        here, there = encoder(slices), encoder(moved)
    inside = slice(10, 18)  # far enough from the border, whose padding reaches some positions inwards
    torch.testing.assert_close(there.roll((-1, 1), (2, 3))[:, :, inside, inside], here[:, :, inside, inside])
    assert not torch.allclose(there, here)


def test_pooled_is_the_mean_over_positions(encoder: Encoder) -> None:
    slices = torch.rand(3, 1, 64, 64)
    with torch.no_grad():
        positions = [encoder(slices)[:, :, y, x] for y in range(4) for x in range(4)]
        torch.testing.assert_close(encoder.pooled(slices), sum(positions) / 16)


def test_a_block_whose_convolutions_say_nothing_passes_its_input_on() -> None:
    block = Block(WIDTH, WIDTH).eval()
    nn.init.zeros_(block.convs[3].weight)
    x = torch.randn(2, WIDTH, 8, 8)
    torch.testing.assert_close(block(x), x.clamp_min(0))


def test_every_weight_takes_part(encoder: Encoder) -> None:
    model = Classifier(encoder, 3).train()
    model(torch.rand(4, 1, 32, 32)).square().sum().backward()
    assert [name for name, weights in model.named_parameters() if weights.grad is None or not weights.grad.any()] == []


@pytest.mark.parametrize("size", [32, 96])
def test_the_decoder_gives_back_a_picture_of_the_size_that_went_in(encoder: Encoder, size: int) -> None:
    slices = torch.rand(2, 1, size, size)
    assert Decoder(WIDTH)(encoder(slices)).shape == slices.shape


def test_projections_have_length_one() -> None:
    projected = Projection(8, out=5)(torch.randn(6, 8) * 100)
    assert projected.shape == (6, 5)
    torch.testing.assert_close(projected.square().sum(dim=1), torch.ones(6))


def test_a_slice_scores_the_same_alone_and_in_company(encoder: Encoder) -> None:
    model = Classifier(encoder, 3)
    scramble(model)
    model.eval()
    slices = torch.rand(5, 1, 32, 32)
    with torch.no_grad():
        together = model(slices)
        alone = torch.cat([model(own) for own in slices.split(1)])
    assert together.shape == (5, 3)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_training_drops_some_features_and_scoring_none(encoder: Encoder) -> None:
    model = Classifier(encoder, 3, dropout=0.5)
    slices = torch.rand(4, 1, 32, 32)

    def twice() -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return model(slices), model(slices)

    first, second = (model.train(), twice())[1]
    assert not torch.equal(first, second)
    first, second = (model.eval(), twice())[1]
    assert torch.equal(first, second)
