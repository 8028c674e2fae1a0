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
    source = SOURCES[mode]
    channels, height, width = images.shape[2:]
    assert pad < min(height, width), f"cannot pad {height} × {width} images by {pad}"
    row, column = (torch.arange(size, device=images.device) for size in (height, width))
    top, left = (offsets.flatten(0, 1) - pad).unbind(1)
    rows = source(top[:, None] + row, height)  # [N, H], where N = R B
    columns = source(left[:, None] + torch.where(flips.flatten()[:, None], column.flip(0), column), width)
    framed = F.pad(images.flatten(0, 1), (0, 1, 0, 1))  # a row and a column of zeros after the last ones
    # Whole rows first, then pixels within them: on a CPU twice as fast as one gather of all pixels.
    planes = torch.arange(len(framed) * channels, device=images.device).view(-1, channels, 1) * (height + 1)
    bands = framed.reshape(-1, width + 1)[(planes + rows[:, None]).flatten()]
    bands = bands.view(-1, channels, height, width + 1)
    return bands.gather(3, columns[:, None, None].expand(-1, channels, height, width)).view(images.shape)


def zeros(place: Tensor, size: int) -> Tensor:
    """Places outside 0..size-1 are read from the zeros at `size`."""
    return torch.where((place < 0) | (place >= size), size, place)


def reflect(place: Tensor, size: int) -> Tensor:
    """Places outside 0..size-1 are read from as far inside, the edge being the mirror."""
    return size - 1 - (size - 1 - place.abs()).abs()


# Where a pixel of the padded image comes from, by its place along one axis.
SOURCES: dict[str, Callable[[Tensor, int], Tensor]] = {"zeros": zeros, "reflect": reflect}
