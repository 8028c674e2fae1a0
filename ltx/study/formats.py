"""Files that a network is handed on in: how each is written, and how its own runtime computes it.

Every graph takes pixels float32 [N, C, H, W] as they are stored, 0 to 255, and gives logits [N, K].
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from ltx.errors import UserError, demand

Shape = tuple[int, ...]
Model = Callable[[np.ndarray], np.ndarray]
"""Pixels float32 [N, C, H, W] to logits float32 [N, K]."""

LARGEST_BATCH = 4096
"""What ExecuTorch plans its memory for, and the most examples that a graph takes at once."""


class Deployed(nn.Module):
    """A network behind the data's normalisation."""

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels [N, C, H, W], 0 to 255, to logits [N, K]."""
        logits: Tensor = self.network(pixels * self.scale + self.shift)
        return logits


@dataclass(frozen=True)
class Format:
    """A kind of file."""

    suffix: str
    write: Callable[[Deployed, Shape], bytes]
    open: Callable[[Path, int], Model] | None = None  # (file, threads or 0 for all) to what computes it
    needs: tuple[str, ...] = ()  # packages that do not come with ltx
    runtime: str = "torch"


def installed(name: str, format: Format) -> None:
    """Raise UserError, which says what to install, where a format's packages are missing."""
    missing = [package for package in format.needs if find_spec(package) is None]
    if missing:
        extra = format.suffix.removeprefix(".").replace("pte", "executorch")
        raise UserError(f"{name} needs {', '.join(missing)}: pip install 'ltx[{extra}]'")


@contextmanager
def quiet() -> Iterator[None]:
    """Exporters warn and log about themselves; nothing of that is about the network."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


# -- writing


def state_dict(network: Deployed, shape: Shape) -> bytes:
    """What `torch.save` makes of the network's tensors, which PyTorch reads with weights_only=True."""
    file = BytesIO()
    torch.save(network.network.state_dict(), file)
    return file.getvalue()


def safetensors(network: Deployed, shape: Shape) -> bytes:
    return safetensors_bytes({k: t.contiguous() for k, t in network.network.state_dict().items()})


def exported(network: Deployed, shape: Shape) -> Any:
    """The network's graph, for any number of examples; raises UserError for what torch cannot trace."""
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    try:
        with quiet():
            return torch.export.export(network, (torch.zeros(2, *shape),), dynamic_shapes=({0: batch},))
    except Exception as error:  # whatever tracing stumbles over
        raise refused("torch.export", error) from error


def refused(what: str, error: BaseException) -> UserError:
    why = " ".join(str(error).split())[:300]
    return UserError(f"{what} cannot take this network: {type(error).__name__}: {why}")


def pt2(network: Deployed, shape: Shape) -> bytes:
    file = BytesIO()
    with quiet():
        torch.export.save(exported(network, shape), file)
    return file.getvalue()


def onnx(network: Deployed, shape: Shape) -> bytes:
    graph = exported(network, shape)
    try:
        with quiet():
            program = torch.onnx.export(
                graph, dynamo=True, input_names=["pixels"], output_names=["logits"], verbose=False
            )
    except Exception as error:  # an operator that ONNX lacks
        raise refused("ONNX", error) from error
    content: bytes = program.model_proto.SerializeToString()  # type: ignore[union-attr]
    return content


def executorch(network: Deployed, shape: Shape) -> bytes:
    """For XNNPACK, the CPU library that ExecuTorch brings along."""
    graph = exported(network, shape)
    try:
        with quiet():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower

            lowered = to_edge_transform_and_lower(graph, partitioner=[XnnpackPartitioner()])
            return bytes(lowered.to_executorch().buffer)
    except Exception as error:  # an operator that ExecuTorch lacks
        raise refused("ExecuTorch", error) from error


def int8(content: bytes, pixels: np.ndarray) -> bytes:
    """An ONNX file whose convolutions and dense layers compute in int8, ranges measured on `pixels`.

    Weights have 7 bits: sums of two products overflow int16 on CPUs with AVX2 but no VNNI, and a VGG's int8 form
    named the class that its float form does for 86 % of the images there, with 7 bits for 99 %.
    """
    import onnx as library
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Batches(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(np.array_split(pixels, max(1, len(pixels) // 100)))

        def get_next(self) -> Any:
            batch = next(self.left, None)
            return None if batch is None else {"pixels": batch}

    model = library.load_from_string(content)
    del model.graph.value_info[:]  # torch's annotations of shapes are not those that the quantizer infers
    with quiet(), tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "int8.onnx")
        quantize_static(
            *(model, out, Batches()),
            per_channel=True,
            reduce_range=True,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"],
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
        return out.read_bytes()


# -- running


def open_pt2(path: Path, threads: int) -> Model:
    with quiet():
        network = torch.export.load(path).module()

    def model(pixels: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(network(torch.from_numpy(pixels)))

    return limited(model, threads)


def limited(model: Model, threads: int) -> Model:
    """A torch model that uses so many threads while it computes."""
    if not threads:
        return model

    def within(pixels: np.ndarray) -> np.ndarray:
        before = torch.get_num_threads()
        if before == threads:
            return model(pixels)
        torch.set_num_threads(threads)
        try:
            return model(pixels)
        finally:
            torch.set_num_threads(before)

    return within


def open_onnx(path: Path, threads: int) -> Model:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {"pixels": pixels})[0]


def open_executorch(path: Path, threads: int) -> Model:
    with quiet():
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        method = Runtime.get().load_program(path).load_method("forward")

    def model(pixels: np.ndarray) -> np.ndarray:
        return np.asarray(method.execute([torch.from_numpy(pixels)])[0])

    def within(pixels: np.ndarray) -> np.ndarray:
        if threads and portable_lib._threadpool_get_thread_count() != threads:
            portable_lib._unsafe_reset_threadpool(threads)
        return model(pixels)

    return within


FORMATS = {
    "state_dict": Format(".pt", state_dict),
    "safetensors": Format(".safetensors", safetensors),
    "pt2": Format(".pt2", pt2, open_pt2),
    "onnx": Format(".onnx", onnx, open_onnx, ("onnx", "onnxscript", "onnxruntime"), "onnxruntime"),
    "executorch": Format(".pte", executorch, open_executorch, ("executorch",), "executorch"),
}


def opened(path: Path, threads: int = 0) -> Model:
    """What computes a file, by its suffix; raises UserError for a file that is no model."""
    found = {format.suffix: (name, format) for name, format in FORMATS.items() if format.open}
    demand(path.suffix in found, "FILE", path, f"choose a run or a file that ends in {', '.join(found)}")
    name, format = found[path.suffix]
    installed(name, format)
    demand(path.is_file(), "FILE", path, "there is no such file")
    assert format.open is not None
    try:
        return format.open(path, threads)
    except Exception as error:  # whatever a runtime raises for bytes that are no model
        raise UserError(f"{path} is no {name} model: {' '.join(str(error).split())[:200]}") from error
