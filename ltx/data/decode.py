"""From image files of any format and size to one uint8 tensor."""

import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor

from ltx.console import Console

log = logging.getLogger(__name__)

CHUNK = 64  # images per task; enough to hide the cost of handing out work


def extensions() -> set[str]:
    """The lower-case file extensions that PIL reads, each with its dot."""
    return {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}


def decode_all(files: list[Path], *, size: int, workers: int, title: str) -> tuple[Tensor, Tensor]:
    """Images uint8 [N, 3, size, size] and which of them, bool [N], could be read, with a progress bar."""
    images = np.zeros((len(files), 3, size, size), np.uint8)
    readable = np.zeros(len(files), np.bool_)

    def fill(start: int) -> None:
        for i in range(start, min(start + CHUNK, len(files))):
            try:
                images[i] = decode(files[i], size)
                readable[i] = True
            except Exception:  # PIL's readers meet a broken file with nearly any error there is
                log.debug("cannot decode %s", files[i], exc_info=True)

    starts = range(0, len(files), CHUNK)
    console = Console(stderr=True)
    with ThreadPoolExecutor(workers) as pool:  # PIL decodes without holding the interpreter's lock
        chunks = pool.map(fill, starts)
        for _ in track(chunks, title, len(starts), console=console, disable=not sys.stderr.isatty()):
            pass
    return torch.from_numpy(images), torch.from_numpy(readable)


def decode(path: Path, size: int) -> np.ndarray:
    """One image as uint8 [3, size, size], stretched to the square; raises whatever PIL raises."""
    with Image.open(path) as file:
        image: Image.Image = file
        if image.mode.startswith("I"):  # 16-bit grey, most of which `convert` would clip to white
            image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
        if "transparency" in image.info:  # PIL wants a palette's transparent entries to pass through RGBA
            image = image.convert("RGBA")
        image = image.convert("RGB")
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(image).transpose(2, 0, 1)
