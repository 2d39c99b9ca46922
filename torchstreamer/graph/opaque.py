"""Modules that stay whole in a capture, and operations that the exporter cannot follow by itself.

All uses of torch's custom operators stand here. For the time of an export the ``forward`` of a module with a handler
is replaced by a custom operator, whose output shape the handler's ``output_length`` says; ``max_pool1d``, which
specialises its length in the exporter, becomes an operator with a symbolic shape, and so do recurrent layers and
``istft``.
"""

# torch.library has no types.
# mypy: disable-error-code="no-untyped-call"

from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from ..core.axes import Axes
from ..core.example import first_line
from ..core.registry import create_stream, is_handled
from ..core.stream import BaseStream
from ..errors import StreamError, UnsupportedModuleError
from ..layers.pooling import pool_reach
from .inlined import line_up, ported_shapes, takes
from .inverse_calls import WholeInverses, define_inverses
from .loops import define_loops
from .patch_calls import patches_of_all_time
from .recurrent_calls import WholeRecurrences, define_recurrences
from .several import PortedGraphStream

__all__ = ["Leaf", "leaves_whole"]


@dataclass
class Leaf:
    """A call of a module that stays whole."""

    module: nn.Module
    stream: BaseStream
    shapes: Sequence[Sequence[int]] = ()  # of its outputs, where it has several, for 3 rows


Prepared = Union[BaseStream, UnsupportedModuleError]

_calls: List[Leaf] = []  # of the export at work
_zeros: List[WholeRecurrences] = []  # who knows which tensors are zeros
_library: List[Any] = []


def _define() -> None:
    # Once a process, at the first capture.
    if _library:
        return
    library = torch.library.Library("torchstreamer", "FRAGMENT")
    library.define("leaf(Tensor x, int call) -> Tensor")
    library.define("leaf.turned(Tensor x, Tensor[] state, int call) -> Tensor[]")
    library.define("leaf.ported(Tensor[] xs, int call) -> Tensor[]")
    define_recurrences(library)
    define_inverses(library)
    define_loops(library)
    library.define(
        "max_pool1d(Tensor self, int kernel_size, int stride, int padding, int dilation, bool ceil_mode) -> Tensor"
    )
    library.define(
        "ceil_pool(Tensor self, bool largest, int[] kernel_size, int[] stride, int[] padding, int[] dilation, "
        "bool count_include_pad, int? divisor_override) -> Tensor"
    )
    torch.library.register_fake("torchstreamer::ceil_pool", _pool_shape, lib=library)
    torch.library.register_fake("torchstreamer::leaf", _leaf_shape, lib=library)
    torch.library.register_fake("torchstreamer::leaf.ported", _ported_shapes, lib=library)
    torch.library.register_fake("torchstreamer::leaf.turned", _turned_shapes, lib=library)
    torch.library.register_fake("torchstreamer::max_pool1d", _max_pool_shape, lib=library)
    _library.append(library)


def _leaf_shape(x: Tensor, call: int) -> Tensor:
    stream = _calls[call].stream
    lines = stream.lines()
    # A formula without conditions, which the exporter would decide once for all lengths.
    length = stream.output_length(x.shape[-1], True) if lines is None else lines[1].formula(x.shape[-1])
    channels = stream.output_channels(int(x.shape[-2]))
    if channels < 0:
        channels = int(x.shape[-2])
    return x.new_empty([*x.shape[:-2], channels, length], dtype=stream.output_dtype(x.dtype))


def _ported_shapes(xs: List[Tensor], call: int) -> List[Tensor]:
    leaf = _calls[call]
    assert isinstance(leaf.stream, PortedGraphStream)
    return ported_shapes(leaf.stream, line_up(leaf.module, leaf.stream), xs)


def _turned_shapes(x: Tensor, state: Sequence[Tensor], call: int) -> List[Tensor]:
    leaf = _calls[call]
    axes = leaf.stream.axes
    assert axes is not None
    y = _leaf_shape(x.permute([axes.takes.index(axis) for axis in "bct"]), call)
    found = []
    for each, shape in zip(axes.outputs(), leaf.shapes, strict=True):
        if "t" in each:
            found.append(y.permute(["bct".index(axis) for axis in each]))
        else:
            rows = y.shape[0]
            found.append(y.new_empty([rows if axis == "b" else size for axis, size in zip(each, shape, strict=True)]))
    return found


def _pooled(n: Any, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> Any:
    """Length of a pooled axis."""
    return pool_reach(kernel, stride, padding, dilation, ceil_mode).lines()[1].formula(n)


def _max_pool_shape(x: Tensor, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> Tensor:
    return x.new_empty([*x.shape[:-1], _pooled(x.shape[-1], kernel, stride, padding, dilation, ceil_mode)])


def _pool_shape(
    x: Tensor, largest: bool, kernel: List[int], stride: List[int], padding: List[int], dilation: List[int],
    count_include_pad: bool, divisor: Optional[int],
) -> Tensor:  # fmt: skip
    axes = len(kernel)
    sizes = [
        _pooled(n, k, s, p, d, True)
        for n, k, s, p, d in zip(x.shape[-axes:], kernel, stride, padding, dilation, strict=True)
    ]
    return x.new_empty([*x.shape[:-axes], *sizes])


class _SymbolicPools(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if func is F.unfold:
            patches = patches_of_all_time(*args, **named)
            if patches is not None:
                return patches
        if func in _POOLS and not named.get("return_indices"):
            if func in _CEIL_POOLS:
                bound = _CEIL_POOLS[func](*args, **named)
                if bound is not None:
                    return torch.ops.torchstreamer.ceil_pool(*bound)
            else:
                return _max_pool(*args[:6], **{key: value for key, value in named.items() if key != "return_indices"})
        return func(*args, **named)


def _max_pool(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Tensor:
    def first(value: Any) -> int:
        return int(value[0] if isinstance(value, (list, tuple)) else value)

    kernel = first(kernel_size)
    step = kernel if stride is None or stride == [] else first(stride)
    return torch.ops.torchstreamer.max_pool1d(input, kernel, step, first(padding), first(dilation), ceil_mode)


def _list(value: Any, axes: int) -> List[int]:
    found = [int(item) for item in value] if isinstance(value, (list, tuple)) else [int(value)]
    return found * axes if len(found) == 1 else found


def _average(axes: int) -> Callable[..., Any]:
    def bound(
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: Optional[int] = None,
    ) -> Any:
        if not ceil_mode:
            return None
        kernel = _list(kernel_size, axes)
        step = kernel if stride is None or stride == [] else _list(stride, axes)
        return input, False, kernel, step, _list(padding, axes), [1] * axes, count_include_pad, divisor_override

    return bound


def _largest(axes: int) -> Callable[..., Any]:
    def bound(
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        if not ceil_mode or return_indices:
            return None
        kernel = _list(kernel_size, axes)
        step = kernel if stride is None or stride == [] else _list(stride, axes)
        return input, True, kernel, step, _list(padding, axes), _list(dilation, axes), True, None

    return bound


# In ceil mode the exporter takes one branch of the rule for the last window.
_CEIL_POOLS: Dict[Any, Callable[..., Any]] = {
    F.avg_pool1d: _average(1),
    torch.avg_pool1d: _average(1),
    F.avg_pool2d: _average(2),
    F.avg_pool3d: _average(3),
    F.max_pool2d: _largest(2),
    F.max_pool3d: _largest(3),
}
_POOLS = frozenset([torch.max_pool1d, F.max_pool1d, *_CEIL_POOLS])


@contextmanager
def leaves_whole(net: nn.Module, factory: Callable[[nn.Module], Optional[Any]]) -> Iterator[List[Leaf]]:
    """For the time of an export, let each module for which ``factory`` gives one be a single operation.

    Yields:
        the calls of such modules, in order, filled while the export runs
    """
    _define()
    _calls.clear()
    # While the export runs, weights are fake tensors, of which a handler can read no numbers. And a handler may have
    # another module captured, which needs an export of its own.
    ready = {module: _prepared(module) for module in _outermost(net, factory)}
    patched: Dict[nn.Module, Any] = {}
    for module, prepared in ready.items():
        patched[module] = module.__dict__.get("forward")
        module.__dict__["forward"] = _whole(module, module.forward, prepared)
    calls: List[Leaf] = []
    try:
        with _SymbolicPools(), WholeInverses(), WholeRecurrences(net) as recurrences:
            _zeros.append(recurrences)
            yield calls
        made = list(_calls)
    finally:
        _calls.clear()
        _zeros.clear()
        for module, forward in patched.items():
            del module.__dict__["forward"]
            if forward is not None:
                module.__dict__["forward"] = forward
    # Every call is a stream of its own.
    calls += [Leaf(call.module, create_stream(call.module), call.shapes) for call in made]


def _outermost(net: nn.Module, factory: Callable[[nn.Module], Optional[Any]]) -> Iterator[nn.Module]:
    seen = set()
    # A handler may have its own module captured.
    waiting = list(net.children()) if is_handled(net) else [net]
    while waiting:
        module = waiting.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        if factory(module) is not None:
            yield module
        else:
            waiting += module.children()


def _whole(module: nn.Module, forward: Callable[..., Any], prepared: Prepared) -> Callable[..., Any]:
    @wraps(forward)  # the exporter asks for its signature
    def call(*args: Any, **kwargs: Any) -> Any:
        given = [value for value in pytree.tree_leaves((args, kwargs)) if value is not None]
        tensors = [value for value in given if isinstance(value, Tensor)]
        if not args or not tensors or tensors[0] is not args[0] or len(tensors) != len(given):
            return forward(*args, **kwargs)
        if isinstance(prepared, UnsupportedModuleError):
            raise prepared
        stream = prepared
        if isinstance(stream, PortedGraphStream):
            if not takes(stream, tensors):
                return forward(*args, **kwargs)
            line_up(module, stream)  # refuses what has none
            _calls.append(Leaf(module, stream))
            return stream.structure.filled(torch.ops.torchstreamer.leaf.ported(tensors, len(_calls) - 1))
        axes = stream.axes
        others = tensors[1:]
        if others and (axes is None or len(others) != len(axes.state)):
            return forward(*args, **kwargs)  # a handler takes one input; with more the operations inside are followed
        if axes is None or axes.plain:
            _calls.append(Leaf(module, stream))
            return torch.ops.torchstreamer.leaf(args[0], len(_calls) - 1)
        if len(_zeros) > 0 and all(_zeros[-1].is_zero(state) for state in others):
            others = []
        _calls.append(Leaf(module, stream, _shapes_of(module, forward, axes, args[0])))
        found = torch.ops.torchstreamer.leaf.turned(args[0], others, len(_calls) - 1)
        return _structured(axes.gives, iter(found))

    return call


def _shapes_of(module: nn.Module, forward: Callable[..., Any], axes: Axes, x: Tensor) -> List[List[int]]:
    """Shapes of all outputs for three rows of a few samples."""
    sizes = {"b": 3, "c": x.shape[axes.takes.index("c")], "t": 8}
    with disable_proxy_modes_tracing():
        found = pytree.tree_leaves(forward(x.new_empty([sizes[axis] for axis in axes.takes])))
    shapes = [list(y.shape) if isinstance(y, Tensor) else [] for y in found]
    if [len(shape) for shape in shapes] != [len(each) for each in axes.outputs()]:
        raise UnsupportedModuleError(
            "invalid_axes",
            module,
            f"it gives outputs of shapes {shapes}, and its handler says {axes.gives!r}",
            "give the handler's axes a word for each output, with a letter for each axis",
        )
    return shapes


def _structured(gives: Any, outputs: Iterator[Any]) -> Any:
    return next(outputs) if isinstance(gives, str) else tuple(_structured(each, outputs) for each in gives)


def _prepared(module: nn.Module) -> Prepared:
    """A stream that says what a module gives, or the error that is raised if the module is called."""
    try:
        stream = create_stream(module)
        if not isinstance(stream, PortedGraphStream):  # of which `line_up` asks more
            stream.output_length(1, True)
        return stream
    except UnsupportedModuleError as error:
        return error
    except StreamError as error:
        return UnsupportedModuleError(
            "no_output_length",
            module,
            f"the length of what its handler gives is not known: {error}",
            "define output_length(n, final) in the handler",
        )
    except Warning:
        raise
    except Exception as error:
        return UnsupportedModuleError(
            "handler_fails",
            module,
            f"its handler raised {first_line(error)}",
            f"mend the factory that was registered for {type(module).__name__} with register_streamer",
        )
