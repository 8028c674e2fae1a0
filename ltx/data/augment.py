"""Random crops and flips, for all replicates at once, on the device where the images lie."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def draw_crop_flip(generator: Generator, shape: tuple[int, ...], *, pad: int) -> tuple[Tensor, Tensor]:
    """Offsets int64 [*shape, 2] uniform in 0..2*pad and flips bool [*shape] of a fair coin."""
    device = generator.device
    offsets = torch.randint(2 * pad + 1, (*shape, 2), generator=generator, device=device)
    flips = torch.randint(2, shape, generator=generator, device=device).bool()
    return offsets, flips


def crop_flip(images: Tensor, offsets: Tensor, flips: Tensor, *, pad: int, mode: str = "zeros") -> Tensor:
    """Pad images [R, B, C, H, W], of any dtype, crop each back to H × W at its offset, mirror some.

    Offsets int64 [R, B, 2] are the (row, column) of the crop in the padded image, `pad` being the middle;
    flips are bool [R, B]. As with torchvision's RandomCrop before ToTensor and Normalize, "zeros" pads with
    raw pixel 0, black before normalisation; "reflect" mirrors the image without repeating its edge.
    """
    channels, height, width = images.shape[2:]
    padded = PAD[mode](images.flatten(0, 1), pad)  # [N, C, H + 2 pad, W + 2 pad], where N = R B
    n, _, tall, wide = padded.shape
    top, left = offsets.flatten(0, 1).unbind(1)
    rows = top[:, None] + torch.arange(height, device=images.device)  # [N, H]
    column = torch.arange(width, device=images.device)
    columns = left[:, None] + torch.where(flips.flatten()[:, None], column.flip(0), column)  # [N, W]
    # Whole rows first, then pixels within them: on a CPU twice as fast as one gather of all pixels.
    plane = torch.arange(n * channels, device=images.device).view(n, channels, 1) * tall
    bands = padded.reshape(-1, wide)[(plane + rows[:, None]).flatten()].view(n, channels, height, wide)
    pixels = columns[:, None, None].expand(n, channels, height, width)
    return bands.gather(3, pixels).view(images.shape)


def pad_zeros(images: Tensor, pad: int) -> Tensor:
    """Images [N, C, H, W] with `pad` zeros on each side."""
    return F.pad(images, (pad, pad, pad, pad))


def pad_reflect(images: Tensor, pad: int) -> Tensor:
    """Images [N, C, H, W] with `pad` mirrored pixels on each side, at most the image less its edge."""
    for dim in (2, 3):  # by index, since F.pad does not reflect bytes on every device
        last = images.shape[dim] - 1
        assert pad <= last, f"cannot reflect {pad} pixels of {last + 1}"
        place = torch.arange(-pad, last + 1 + pad, device=images.device).abs()
        images = images.index_select(dim, last - (last - place).abs())
    return images


PAD: dict[str, Callable[[Tensor, int], Tensor]] = {"zeros": pad_zeros, "reflect": pad_reflect}
