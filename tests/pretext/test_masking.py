import pytest
import torch
from torch import Tensor

from sslbt.nn.encoder import Encoder
from sslbt.pretext.masking import Restoration, hidden_error, random_regions


def corners(region: Tensor) -> tuple[int, int, int, int]:
    rows, columns = region.any(dim=1).nonzero(), region.any(dim=0).nonzero()
    return int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("share", [(0.1, 0.4), (0.2, 0.2), (0.45, 0.6), (0.8, 0.95), (0.001, 0.01)])
@pytest.mark.parametrize("size", [32, 96])
def test_regions_are_rectangles_of_the_share_asked_for(share: tuple[float, float], size: int) -> None:
    regions = random_regions(300, size, share)
    assert regions.shape == (300, 1, size, size)
    assert regions.dtype == torch.bool
    for region in regions[:, 0]:
        top, bottom, left, right = corners(region)
        assert region.sum() == (bottom - top) * (right - left)  # no holes, no second rectangle
        rounding = (bottom - top + right - left) / 2 + 1  # half a pixel at each side
        assert share[0] * size**2 - rounding <= region.sum() <= share[1] * size**2 + rounding


def test_the_whole_range_of_areas_shapes_and_places_is_drawn() -> None:
    size, share = 96, (0.1, 0.4)
    boxes = [corners(region) for region in random_regions(4000, size, share)[:, 0]]
    areas = torch.tensor([(b - t) * (r - le) / size**2 for t, b, le, r in boxes])
    octaves = torch.tensor([(b - t) / (r - le) for t, b, le, r in boxes]).log2()
    assert areas.mean() == pytest.approx(0.25, abs=0.01)  # uniform: mean and quartile in the middle and at a quarter
    assert areas.quantile(0.25) == pytest.approx(0.175, abs=0.01)
    assert octaves.mean() == pytest.approx(0, abs=0.05)
    assert octaves.abs().max() < 1.1
    assert (octaves.abs() > 0.9).any()
    for low, high in [(0, 1), (2, 3)]:  # touching either border happens, leaving the picture cannot
        assert min(box[low] for box in boxes) == 0
        assert max(box[high] for box in boxes) == size


def test_every_call_hides_something_else() -> None:
    first, second = random_regions(8, 96, (0.1, 0.4)), random_regions(8, 96, (0.1, 0.4))
    assert all(not torch.equal(ours, theirs) for ours, theirs in zip(first, second, strict=True))
    assert len({region.numpy().tobytes() for region in first}) == 8


def test_the_error_is_that_of_a_loop_over_hidden_pixels() -> None:
    slices, restored = torch.rand(3, 1, 8, 8), torch.rand(3, 1, 8, 8)
    hidden = random_regions(3, 8, (0.1, 0.5))
    per_slice = []
    for number in range(3):
        squares = [
            (restored[number, 0, y, x] - slices[number, 0, y, x]).item() ** 2
            for y in range(8)
            for x in range(8)
            if hidden[number, 0, y, x]
        ]
        per_slice.append(sum(squares) / len(squares))
    assert hidden_error(restored, slices, hidden).item() == pytest.approx(sum(per_slice) / 3, rel=1e-5)


def test_what_is_made_of_visible_pixels_costs_nothing() -> None:
    slices, restored = torch.rand(3, 1, 16, 16), torch.rand(3, 1, 16, 16)
    hidden = random_regions(3, 16, (0.1, 0.5))
    error = hidden_error(restored, slices, hidden)
    assert torch.equal(hidden_error(restored + 5 * ~hidden, slices, hidden), error)
    assert hidden_error(restored + 5 * hidden, slices, hidden) > error
    assert hidden_error(slices, slices, hidden) == 0


def test_the_network_sees_the_mean_where_it_was_hidden_and_the_picture_elsewhere() -> None:
    model = Restoration(Encoder(4), 0.1, 0.4).eval()
    slices, hidden = torch.rand(3, 1, 32, 32), random_regions(3, 32, (0.1, 0.4))
    result = model(slices, hidden)
    for own, masked, where in zip(slices, result.masked, hidden, strict=True):
        torch.testing.assert_close(masked[where], own.mean().expand(int(where.sum())))
        assert torch.equal(masked[~where], own[~where])
    assert result.restored.shape == slices.shape
    other = torch.where(hidden, slices.flip(0), slices)
    other = torch.where(hidden, other + (slices - other).sum((1, 2, 3), True) / hidden.sum((1, 2, 3), True), other)
    torch.testing.assert_close(model(other, hidden).restored, result.restored)  # hidden pixels leave only their mean


def test_restoring_teaches_the_encoder() -> None:
    model = Restoration(Encoder(4), 0.1, 0.4).eval()
    slices, hidden = torch.rand(2, 1, 32, 32), random_regions(2, 32, model.share)
    hidden_error(model(slices, hidden).restored, slices, hidden).backward()
    assert model.encoder.stem[0].weight.grad.any()
