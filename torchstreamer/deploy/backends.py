"""What runs a recorded step: each takes a graph ``(x, *states) -> (y, *states)`` and gives a function of tensors.

Programs check nothing: they take memory as it lies, so all tensors must be contiguous.
"""

import importlib.util
import os
import shutil
import tempfile
import warnings
import weakref
from typing import Any, Callable, Dict, List, Sequence, Tuple, Type

import torch
from torch import Tensor, fx, nn

from ..errors import require_packages
from .cuda_graphs import CudaGraph
from .few_rows import few_rows, few_rows_options
from .fusible import fusible
from .inductor import inductor

__all__ = ["BACKENDS", "KERNELS", "SETTINGS", "Program", "available", "quietly"]

_ONNX = ("onnx", "onnxscript", "onnxruntime")

# Which kernels each backend can take, besides the libraries' ("").
KERNELS: Dict[str, Tuple[str, ...]] = {
    "aot": ("few rows", "", "packed", "tuned"),
    "inductor": ("few rows", "", "packed", "tuned"),
    "onnx": ("",),
    "cudagraph": ("", "fused"),
    "eager": ("",),
    "stream": ("",),
}

# What makes the compilers take them. Weights in oneDNN's layout, which freezing leads to, serve long steps; in short
# ones its calls cost more than the library's.
SETTINGS: Dict[str, Dict[str, Any]] = {
    "": {},
    "packed": {"freezing": True},
    "tuned": {"freezing": True, "max_autotune": True, "max_autotune_gemm_backends": "CPP,ATEN"},
    "tuned on a GPU": {"max_autotune": True, "max_autotune_gemm_backends": "ATEN,TRITON"},
}


class Program:
    """A compiled step, with states in the form that suits it.

    Args:
        graph: the step
        args: an example of its inputs
        kernels: ``""``, ``"packed"``, ``"tuned"`` or ``"fused"``; see `Candidate`
    """

    def __init__(self, graph: fx.GraphModule, args: Sequence[Tensor], kernels: str) -> None:
        raise NotImplementedError

    def run(self, x: Tensor, states: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        """The output and the next states. No gradients flow, whatever the mode."""
        raise NotImplementedError

    def pack(self, rows: List[Tensor]) -> List[Tensor]:
        """States of what the memories hold."""
        return rows

    def unpack(self, states: List[Tensor]) -> List[Tensor]:
        """What the memories hold."""
        return states


class _Eager(Program):
    def __init__(self, graph: fx.GraphModule, args: Sequence[Tensor], kernels: str) -> None:
        self.graph: Any = graph

    def run(self, x: Tensor, states: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        with torch.no_grad():
            y, *following = self.graph(x, *states)
        return y, following


def _worded(graph: fx.GraphModule, kernels: str) -> fx.GraphModule:
    return few_rows(fusible(graph)) if kernels == "few rows" else fusible(graph)


def _options(kernels: str) -> Dict[str, Any]:
    return few_rows_options() if kernels == "few rows" else SETTINGS[kernels]


class _Inductor(_Eager):
    def __init__(self, graph: fx.GraphModule, args: Sequence[Tensor], kernels: str) -> None:
        self.graph = inductor(_worded(graph, kernels), args, {"cpp_wrapper": True, **_options(kernels)})


class _Flat(nn.Module):
    # All states of one dtype side by side in one tensor: a call costs by the number of tensors. States that the step
    # only reads transposed lie so already.
    def __init__(self, graph: fx.GraphModule, states: Sequence[Tensor]) -> None:
        super().__init__()
        self.recorded = graph
        self.dtypes = sorted({state.dtype for state in states}, key=str)
        self.kinds = [self.dtypes.index(state.dtype) for state in states]
        self.turned = [_read_transposed(node) for node in graph.graph.find_nodes(op="placeholder")[1:]]
        self.shapes = [state.shape for state in self.turn(states)]

    def turn(self, states: Sequence[Tensor]) -> List[Tensor]:
        return [state.transpose(1, 2) if turned else state for state, turned in zip(states, self.turned, strict=True)]

    def pack(self, rows: Sequence[Tensor]) -> List[Tensor]:
        turned = self.turn(rows)
        return [
            torch.cat([state.reshape(-1) for state, kind in zip(turned, self.kinds, strict=True) if kind == i])
            for i in range(len(self.dtypes))
        ]

    def unpack(self, states: Sequence[Tensor]) -> List[Tensor]:
        at = [0] * len(states)
        rows = []
        for shape, kind in zip(self.shapes, self.kinds, strict=True):
            rows.append(states[kind].narrow(0, at[kind], shape.numel()).view(shape))
            at[kind] += shape.numel()
        return self.turn(rows)

    def forward(self, x: Tensor, *states: Tensor) -> Tuple[Tensor, ...]:
        y, *following = self.recorded(x, *self.unpack(states))
        return (y, *self.pack(following))


def _read_transposed(state: fx.Node) -> bool:
    return bool(state.users) and all(
        user.target == torch.ops.aten.transpose.int and user.args[1:] == (1, 2) for user in state.users
    )


class _Exported(Program):
    # What takes an exported program, with flat states.
    def __init__(self, graph: fx.GraphModule, args: Sequence[Tensor], kernels: str) -> None:
        self.flat = _Flat(graph, args[1:])
        inputs = (args[0], *self.flat.pack(args[1:]))
        self.build(torch.export.export(self.flat, inputs, strict=False), len(inputs) - 1, kernels)
        # Only the shapes are needed from here on.
        self.flat.recorded = None  # type: ignore[assignment]

    def build(self, program: Any, count: int, kernels: str) -> None:
        raise NotImplementedError

    def pack(self, rows: List[Tensor]) -> List[Tensor]:
        return self.flat.pack(rows)

    def unpack(self, states: List[Tensor]) -> List[Tensor]:
        return [state.contiguous() for state in self.flat.unpack(states)]


class _Aot(_Exported):
    def __init__(self, graph: fx.GraphModule, args: Sequence[Tensor], kernels: str) -> None:
        super().__init__(_worded(graph, kernels), args, kernels)

    def build(self, program: Any, count: int, kernels: str) -> None:
        from torch._inductor import aoti_compile_and_package, aoti_load_package

        folder = tempfile.mkdtemp(prefix="torchstreamer-")
        weakref.finalize(self, shutil.rmtree, folder, True)
        path = os.path.join(folder, "step.pt2")
        aoti_compile_and_package(program, package_path=path, inductor_configs=_options(kernels))
        self.call = aoti_load_package(path).loader.run

    def run(self, x: Tensor, states: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        found = self.call([x, *states])
        return found[0], found[1:]


class _Onnx(_Exported):
    def build(self, program: Any, count: int, kernels: str) -> None:
        require_packages('backend="onnx" runs with it', *_ONNX)
        import onnxruntime  # type: ignore[import-untyped]

        self.names = ["x", *(f"s{i}" for i in range(count))]
        written = torch.onnx.export(
            program,
            dynamo=True,
            input_names=self.names,
            output_names=["y", *(f"next.{name}" for name in self.names[1:])],
            verbose=False,
        )
        assert written is not None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        with tempfile.TemporaryDirectory(prefix="torchstreamer-") as folder:
            path = os.path.join(folder, "step.onnx")
            written.save(path)
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.taken = {value.name for value in self.session.get_inputs()}

    def run(self, x: Tensor, states: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        values = zip(self.names, (x.detach(), *states), strict=True)
        feed = {name: value.numpy() for name, value in values if name in self.taken}
        y, *following = (torch.from_numpy(value) for value in self.session.run(None, feed))
        return y, following


class _CudaGraph(Program):
    def __init__(self, graph: fx.GraphModule, args: Sequence[Tensor], kernels: str) -> None:
        self.states = states = [value.clone() for value in args[1:]]

        def advance(x: Tensor, *states: Tensor) -> Tensor:
            y, *following = graph(x, *states)
            for state, after in zip(states, following, strict=True):
                state.copy_(after)
            return y

        run = inductor(advance, [args[0].clone(), *states], {}) if kernels == "fused" else advance
        self.captured = CudaGraph(lambda x: [run(x, *states)], args[:1], keeps=run)
        # The graph has one memory for its states. Whoever's they are gets copies when another stream comes.
        self.holder: List[Tensor] = []

    def run(self, x: Tensor, states: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        with torch.no_grad():
            if states is not self.holder:
                self.holder[:] = [state.clone() for state in self.holder]
                for mine, given in zip(self.states, states, strict=True):
                    mine.copy_(given)
                self.holder = list(self.states)
            return self.captured(x)[0], self.holder


BACKENDS: Dict[str, Type[Program]] = {
    "eager": _Eager,
    "inductor": _Inductor,
    "aot": _Aot,
    "onnx": _Onnx,
    "cudagraph": _CudaGraph,
}


def available(device: torch.device) -> List[str]:
    """The backends that can be tried on a device, of those that promise anything."""
    if device.type == "cuda":
        return ["cudagraph"]
    found = ["aot", "inductor"]
    if all(importlib.util.find_spec(name) for name in _ONNX):
        found.append("onnx")
    return found


def quietly(make: Callable[[], Program]) -> Program:
    """A program made without the warnings of the compilers."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return make()
