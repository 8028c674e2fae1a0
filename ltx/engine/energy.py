"""What the machine's own counters say of energy: RAPL for CPU packages, NVML for an NVIDIA GPU.

They count whole packages and whole GPUs: whatever else runs there is in them too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

POWERCAP = Path("/sys/class/powercap")  # of the Linux kernel, which calls AMD's packages intel-rapl too
SOURCES = ("cpu", "gpu")
OFTEN = 60.0
"""Seconds between two readings: 262 kJ in a minute would be 4 kW a package."""


@dataclass(frozen=True)
class Counter:
    """Energy in a unit of its own since a time of its own; starts over from 0 at its `limit`."""

    read: Callable[[], int]  # raises OSError if that is not possible
    limit: int
    joules: float  # of one unit


class Meter:
    """Joules of the CPU packages and of the GPU in use since it was made, [2]; NaN where no counter tells.

    A package's counter starts over after some 262 kJ, a quarter of an hour at 300 W: `tick` at every step.
    """

    def __init__(self, device: torch.device, before: Tensor | None = None) -> None:
        """`before` [2] was spent earlier."""
        self.sources = packages(), gpu(device)
        self.spent = torch.zeros(len(SOURCES), dtype=torch.float64) if before is None else before.clone()
        self.last = [values(counters) for counters in self.sources]
        self.looked = time.monotonic()

    def tick(self) -> None:
        """Read now and then, for a counter that starts over twice between two readings has lost a turn."""
        if time.monotonic() - self.looked > OFTEN:
            self.read()

    def read(self) -> Tensor:
        """Joules until now."""
        now = [values(counters) for counters in self.sources]
        rows = zip(self.sources, self.last, now, strict=True)
        self.spent += torch.tensor([between(*row) for row in rows], dtype=torch.float64)
        self.last, self.looked = now, time.monotonic()
        return self.spent.clone()


def values(counters: list[Counter]) -> list[int]:
    """What the counters show; nothing if one of them cannot be read, for a part is no sum."""
    try:
        return [counter.read() for counter in counters]
    except OSError:  # on most systems only root may read RAPL
        return []


def between(counters: list[Counter], then: list[int], now: list[int]) -> float:
    """Joules from one reading to the next, whichever started over meanwhile."""
    if not then or not now:
        return float("nan")
    rows = zip(counters, then, now, strict=True)
    return sum((b - a) % counter.limit * counter.joules for counter, a, b in rows)


def packages() -> list[Counter]:
    """A counter for each CPU package; memory and cores are not counted apart, nor the platform as a whole."""
    try:
        zones = [zone for zone in POWERCAP.glob("intel-rapl:*") if named(zone).startswith("package")]
        return [package(zone) for zone in zones]
    except OSError:
        return []


def named(zone: Path) -> str:
    return (zone / "name").read_text()


def package(zone: Path) -> Counter:
    """One package's microjoules."""
    limit = int((zone / "max_energy_range_uj").read_text()) + 1
    return Counter(lambda: int((zone / "energy_uj").read_text()), limit, 1e-6)


def gpu(device: torch.device) -> list[Counter]:
    """The counter of an NVIDIA GPU; none without NVIDIA's nvidia-ml-py, the extra `energy`."""
    if device.type != "cuda":
        return []
    try:
        import pynvml
    except ImportError:
        return []

    def millijoules() -> int:
        try:
            pynvml.nvmlInit()
            # Not by number: CUDA_VISIBLE_DEVICES renumbers what NVML counts from 0.
            uuid = torch.cuda.get_device_properties(device).uuid
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
            return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        except pynvml.NVMLError as error:  # such as a GPU older than Volta
            raise OSError(str(error)) from error

    return [Counter(millijoules, 2**64, 1e-3)]
