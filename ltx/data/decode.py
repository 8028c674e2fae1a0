"""From image files of any size to one uint8 tensor. They may be a stranger's: only raster formats are read."""

import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from warnings import catch_warnings, simplefilter

import numpy as np
import torch
from PIL import Image, ImageOps
from rich.progress import track
from torch import Tensor

from ltx.console import Console

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "TGA", "ICO", "JPEG2000", "PCX", "DIB", "AVIF")
"""What PIL reads by itself. It reads more, and asks Ghostscript for .eps and .ps, which is a program's interpreter."""
MOST = 64_000_000
"""Pixels of one image; more is no picture, but 13,000 x 13,000 of one colour in a file of 20 kB."""
CHUNK = 64  # images per task; enough to hide the cost of handing out work


def extensions() -> set[str]:
    """The lower-case file extensions of the formats that are read, each with its dot."""
    return {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}


def decode_all(files: list[Path], *, size: int, workers: int, title: str) -> tuple[Tensor, dict[int, str]]:
    """Images uint8 [N, 3, size, size], and why those could not be read that are left black, with a progress bar."""
    images = np.zeros((len(files), 3, size, size), np.uint8)
    failed: dict[int, str] = {}

    def fill(start: int) -> None:
        for i in range(start, min(start + CHUNK, len(files))):
            try:
                images[i] = decode(files[i], size)
            except Exception as error:  # PIL's readers meet a broken file with nearly any error there is
                failed[i] = str(error) if isinstance(error, Refused) else ""

    starts = range(0, len(files), CHUNK)
    console = Console(stderr=True)
    # Of too many pixels it only warns, below twice as many; we refuse.
    with (
        catch_warnings(),
        ThreadPoolExecutor(workers) as pool,
    ):  # PIL decodes without holding the interpreter's lock
        simplefilter("ignore", Image.DecompressionBombWarning)
        chunks = pool.map(fill, starts)
        for _ in track(chunks, title, len(starts), console=console, disable=not sys.stderr.isatty()):
            pass
    return torch.from_numpy(images), failed


class Refused(Exception):
    """An image that could be read, but is not; the reason is for its owner."""


def decode(path: Path, size: int) -> np.ndarray:
    """One image as uint8 [3, size, size], upright and stretched to the square; raises Refused, or what PIL raises."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # not to wait for the other end of a pipe
    with os.fdopen(handle, "rb") as content:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise Refused("no regular file")
        try:
            file = Image.open(content, formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise Refused(" ".join(str(error).split())) from error
        with file:
            if file.width * file.height > MOST:
                raise Refused(f"{file.width:,} x {file.height:,} pixels, more than {MOST:,}")
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):  # 16-bit grey, most of which `convert` would clip to white
                image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
            if "transparency" in image.info:  # PIL wants a palette's transparent entries to pass through RGBA
                image = image.convert("RGBA")
            image = image.convert("RGB")
            if image.size != (size, size):
                image = image.resize((size, size), Image.Resampling.BILINEAR)
            return np.asarray(image).transpose(2, 0, 1)
