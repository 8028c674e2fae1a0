"""Crops and flips equal torchvision's, and are drawn evenly."""

import pytest
import torch
from torch import Tensor

from ltx.data.augment import crop_flip, draw_crop_flip

PAD = 4
CORNERS = [(0, 0), (0, 2 * PAD), (2 * PAD, 0), (2 * PAD, 2 * PAD), (PAD, PAD), (3, 7)]
TORCHVISION_MODE = {"zeros": "constant", "reflect": "reflect"}


def reference(image: Tensor, offset: tuple[int, int], flip: bool, mode: str) -> Tensor:
    """What torchvision makes of one image [C, H, W]."""
    from torchvision.transforms import functional

    padded = functional.pad(image, [PAD], padding_mode=TORCHVISION_MODE[mode])
    crop = functional.crop(padded, *offset, *image.shape[1:])
    return functional.hflip(crop) if flip else crop


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_crops_and_flips_equal_torchvisions_at_every_corner(mode: str, dtype: torch.dtype) -> None:
    images = torch.randint(256, (2, 6, 3, 9, 7), generator=torch.Generator().manual_seed(0)).to(dtype)
    offsets = torch.tensor([CORNERS, CORNERS])
    flips = torch.tensor([[False] * 6, [True] * 6])
    made = crop_flip(images, offsets, flips, pad=PAD, mode=mode)
    assert made.dtype == dtype
    for r in range(2):
        for b, offset in enumerate(CORNERS):
            assert torch.equal(made[r, b], reference(images[r, b], offset, bool(flips[r, b]), mode))


def test_a_tiny_image_by_hand() -> None:
    image = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8).view(1, 1, 1, 2, 2)
    flip, keep = torch.tensor([[True]]), torch.tensor([[False]])
    corner = torch.tensor([[[0, 0]]])
    assert crop_flip(image, corner, keep, pad=1).flatten().tolist() == [0, 0, 0, 1]
    assert crop_flip(image, corner, flip, pad=1).flatten().tolist() == [0, 0, 1, 0]
    assert crop_flip(image, corner, keep, pad=1, mode="reflect").flatten().tolist() == [4, 3, 2, 1]
    assert crop_flip(image, corner, flip, pad=0).flatten().tolist() == [2, 1, 4, 3]


def test_the_middle_offset_without_a_flip_changes_nothing() -> None:
    images = torch.rand(2, 3, 1, 8, 8)
    middle = torch.full((2, 3, 2), PAD)
    assert torch.equal(crop_flip(images, middle, torch.zeros(2, 3, dtype=torch.bool), pad=PAD), images)


def test_a_replicate_does_not_know_its_neighbours() -> None:
    images = torch.rand(3, 5, 3, 8, 8)
    offsets, flips = draw_crop_flip(torch.Generator().manual_seed(1), (3, 5), pad=2)
    together = crop_flip(images, offsets, flips, pad=2)
    for r in range(3):
        alone = crop_flip(images[r : r + 1], offsets[r : r + 1], flips[r : r + 1], pad=2)
        assert torch.equal(together[r : r + 1], alone)


def test_views_with_odd_strides_are_read_rightly() -> None:
    images = torch.rand(2, 5, 8, 8, 3).permute(0, 1, 4, 2, 3)
    offsets, flips = draw_crop_flip(torch.Generator().manual_seed(1), (2, 5), pad=2)
    for mode in TORCHVISION_MODE:
        want = crop_flip(images.contiguous(), offsets, flips, pad=2, mode=mode)
        assert torch.equal(crop_flip(images, offsets, flips, pad=2, mode=mode), want)


def test_offsets_and_flips_are_uniform() -> None:
    offsets, flips = draw_crop_flip(torch.Generator().manual_seed(0), (90_000,), pad=PAD)
    assert offsets.shape == (90_000, 2)
    assert offsets.dtype == torch.int64
    assert flips.dtype == torch.bool
    # All 9 × 9 × 2 outcomes together, so that a dependence between row, column and flip would show as well.
    outcome = (offsets[:, 0] * 9 + offsets[:, 1]) * 2 + flips
    counts = torch.bincount(outcome, minlength=162).double()
    expected = 90_000 / 162
    chi_square = float(((counts - expected).square() / expected).sum())
    assert 106 < chi_square < 229  # the 0.01 % and 99.99 % points of chi-square with 161 degrees of freedom


def test_the_generator_alone_decides_the_draw() -> None:
    first = draw_crop_flip(torch.Generator().manual_seed(7), (2, 3), pad=1)
    torch.manual_seed(99)
    again = draw_crop_flip(torch.Generator().manual_seed(7), (2, 3), pad=1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
