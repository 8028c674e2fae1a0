"""The energy counters: a made-up powercap tree and a made-up NVML, and that absent is absent."""

import sys
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest
import torch
from conftest import compose_task

from ltx.config.compose import compose
from ltx.core.session import Session
from ltx.core.ticket import Round
from ltx.engine import energy
from ltx.engine.energy import Meter
from ltx.engine.train import train
from ltx.experiment.execute import execute

CPU = torch.device("cpu")
TINY = ["model.hidden=[10]", "recipe.steps=20", "recipe.eval_every=20", "method.levels=1", "replicates=2",
        "controls=[]"]  # fmt: skip


def zone(root, number, name, joules, limit=262_143):
    """A zone of the tree as the kernel shows it, in microjoules."""
    folder = root / f"intel-rapl:{number}"
    folder.mkdir(parents=True, exist_ok=True)
    content = {"name": name, "energy_uj": joules * 10**6, "max_energy_range_uj": limit * 10**6}
    for file, value in content.items():
        (folder / file).write_text(f"{value}\n")
    return folder


@pytest.fixture
def powercap(tmp_path, monkeypatch):
    """An empty tree in place of the machine's own."""
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "powercap")
    return tmp_path / "powercap"


def test_packages_are_added_and_their_parts_and_the_platform_left_out(powercap):
    for number, name in (("0", "package-0"), ("1", "package-1"), ("0:0", "dram"), ("2", "psys")):
        zone(powercap, number, name, joules=100)
    meter = Meter(CPU)
    for number, name, joules in (("0", "package-0", 130), ("1", "package-1", 112), ("0:0", "dram", 900)):
        zone(powercap, number, name, joules)
    assert meter.read()[0] == pytest.approx(42)
    zone(powercap, "0", "package-0", joules=131)
    assert meter.read()[0] == pytest.approx(43)


def test_a_counter_that_starts_over_loses_nothing(powercap):
    zone(powercap, "0", "package-0", joules=950, limit=1000)
    meter = Meter(CPU, before=torch.tensor([7.0, 0.0], dtype=torch.float64))
    zone(powercap, "0", "package-0", joules=20, limit=1000)
    assert meter.read()[0] == pytest.approx(77)


def test_a_counter_that_starts_over_between_two_checkpoints_loses_nothing(powercap, monkeypatch):
    """300 W for an hour turn a counter of 262 kJ four times; it is looked at every minute, whoever asks when."""
    clock, joules = [0.0], [0]
    monkeypatch.setattr(energy.time, "monotonic", lambda: clock[0])
    zone(powercap, "0", "package-0", joules=0)
    meter = Meter(CPU)
    for _ in range(3600):
        clock[0], joules[0] = clock[0] + 1, joules[0] + 300
        zone(powercap, "0", "package-0", joules=joules[0] % 262_143)
        meter.tick()
    assert meter.read()[0] == pytest.approx(300 * 3600)


def test_a_training_looks_at_its_meter_at_every_step(monkeypatch):
    seen = []
    monkeypatch.setattr(Meter, "tick", lambda meter: seen.append(1))
    task, plan = compose_task("model.hidden=[4]", "recipe.steps=7", "replicates=1")
    train(task, Round(0, task.dense(), plan), Session())
    assert len(seen) == 7


def test_without_counters_there_is_no_number(powercap):
    assert Meter(CPU).read().isnan().tolist() == [True, True]


@pytest.mark.parametrize("lost", ["energy_uj", "max_energy_range_uj", "name"])
def test_one_unreadable_package_is_no_sum(powercap, lost):
    zone(powercap, "0", "package-0", joules=1)
    path = zone(powercap, "1", "package-1", joules=1) / lost
    path.unlink()
    path.mkdir()  # which nobody can read, not even root
    assert Meter(CPU).read().isnan().tolist() == [True, True]


def test_a_counter_lost_on_the_way_leaves_no_number(powercap):
    folder = zone(powercap, "0", "package-0", joules=1)
    meter = Meter(CPU)
    (folder / "energy_uj").unlink()
    assert meter.read()[0].isnan()
    zone(powercap, "0", "package-0", joules=2)
    assert meter.read()[0].isnan()


class NVMLError(Exception):
    """As pynvml has it."""


@pytest.fixture
def gpu(monkeypatch):
    """An NVML with one GPU, whose counter is `gpu.millijoules`."""
    nvml, state = ModuleType("pynvml"), SimpleNamespace(millijoules=5000)

    def by_uuid(uuid):
        assert uuid == "GPU-1234-abcd"
        return uuid

    def spent(handle):
        if state.millijoules is None:
            raise NVMLError("Not Supported")
        return state.millijoules

    names = {"NVMLError": NVMLError, "nvmlInit": lambda: None, "nvmlDeviceGetHandleByUUID": by_uuid}
    for name, value in (names | {"nvmlDeviceGetTotalEnergyConsumption": spent}).items():
        setattr(nvml, name, value)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    properties = SimpleNamespace(uuid="1234-abcd")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    return state


def test_the_gpu_in_use_is_counted_beside_the_packages(powercap, gpu):
    meter = Meter(torch.device("cuda:0"))
    gpu.millijoules = 6500
    cpu, joules = meter.read().tolist()
    assert cpu != cpu
    assert joules == pytest.approx(1.5)
    assert Meter(CPU).read()[1].isnan()  # a GPU that is not in use is nobody's cost


def test_a_gpu_without_a_counter_has_no_number(powercap, gpu):
    gpu.millijoules = None
    assert Meter(torch.device("cuda:0")).read()[1].isnan()


def test_without_nvidias_library_the_gpu_has_no_number(powercap, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert Meter(torch.device("cuda:0")).read()[1].isnan()


def costs(folder):
    return pd.read_csv(folder / "costs.csv")


def test_a_run_tells_its_joules_where_the_machine_does(powercap, tmp_path, monkeypatch):
    zone(powercap, "0", "package-0", joules=0)
    spent = iter(range(0, 10_000, 10))  # each reading of the file finds ten joules more
    counter = energy.Counter(lambda: next(spent), 10**9, 1.0)
    monkeypatch.setattr(energy, "packages", lambda: [counter])
    folder = execute(compose([*TINY, f"out={tmp_path}"]))
    table = costs(folder)
    # Ten joules a round from its first reading to its last, shared by two seeds.
    assert table.cpu_joules.tolist() == [5.0] * 4
    assert table.search_cpu_joules.tolist() == [0.0, 0.0, 5.0, 5.0]
    assert table.total_cpu_joules.tolist() == [5.0, 5.0, 10.0, 10.0]
    assert table.gpu_joules.isna().all()
    again = execute(compose([*TINY, f"out={tmp_path}"]))  # replayed, not measured again
    assert costs(again).equals(table)


def test_a_run_without_counters_has_empty_cells_and_no_column_in_its_table(powercap, tmp_path):
    from ltx import report

    folder = execute(compose([*TINY, f"out={tmp_path}"]))
    columns = [c for c in costs(folder) if "joules" in c]
    assert len(columns) == 6
    assert costs(folder)[columns].isna().all().all()
    report.draw([folder])
    assert "J, CPU" not in (folder / "accuracy_vs_sparsity.md").read_text()


def test_the_table_has_a_column_for_the_joules_that_are_there(powercap, tmp_path, monkeypatch):
    from ltx import report

    spent = iter(range(0, 10_000, 10))
    monkeypatch.setattr(energy, "packages", lambda: [energy.Counter(lambda: next(spent), 10**9, 1.0)])
    folder = execute(compose([*TINY, f"out={tmp_path}"]))
    report.draw([folder])
    text = (folder / "accuracy_vs_sparsity.md").read_text()
    assert "| total s | total J, CPU |" in text
    assert "J, GPU" not in text
    assert "counters" in text
