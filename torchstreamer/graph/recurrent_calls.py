"""Recurrent layers stay whole in a capture: their operators, which the exporter would unroll, become our own."""

# torch.library has no types.
# mypy: disable-error-code="no-untyped-call"

import linecache
import sys
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import UnsupportedModuleError

__all__ = ["RECURRENCES", "WholeRecurrences", "define_recurrences"]

RECURRENCES = ("gru", "lstm", "rnn_tanh", "rnn_relu")

_ZEROS = ("zeros", "zeros_like", "new_zeros")
_PACKED = (
    "it packs sequences of several lengths into one, which ties the rows to each other and to lengths that are not yet "
    "known",
    "give the recurrent layer the padded signal; rows of a stream end by themselves, with final=True, or by the "
    "lengths and flags of StaticStream",
)


def define_recurrences(library: Any) -> None:
    """Define the operators."""
    for mode in RECURRENCES:
        library.define(
            f"{mode}(Tensor x, Tensor[] hx, Tensor[] weights, int layers, bool bidirectional, bool batch_first, "
            "bool drops) -> Tensor[]"
        )
        torch.library.register_fake(f"torchstreamer::{mode}", _shapes(mode), lib=library)


def _shapes(mode: str) -> Any:
    def shapes(
        x: Tensor,
        hx: Sequence[Tensor],
        weights: Sequence[Tensor],
        layers: int,
        bidirectional: bool,
        batch_first: bool,
        drops: bool,
    ) -> List[Tensor]:
        runs, out = layers * (2 if bidirectional else 1), weights[1].shape[1]
        rows = x.shape[0 if batch_first else 1]
        sizes = [out, weights[1].shape[0] // 4] if mode == "lstm" else [out]
        y = x.new_empty([*x.shape[:2], out * (2 if bidirectional else 1)])
        return [y, *(x.new_empty([runs, rows, size]) for size in sizes)]

    return shapes


class WholeRecurrences(TorchFunctionMode):
    """While a model is exported, calls of recurrent operators are calls of our own.

    Args:
        net: the model
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.zeros: Dict[int, Tuple[Tensor, int]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in RECURRENCES and not named and len(args) == 9:
            if isinstance(args[3], bool):
                return self._called(name, *args)
            raise self._packed()
        if name == "_pack_padded_sequence":
            raise self._packed()
        y = func(*args, **named)
        if name in _ZEROS and isinstance(y, Tensor):
            self.zeros[id(y)] = (y, y._version)
        return y

    def _called(
        self,
        mode: str,
        x: Tensor,
        hx: Any,
        weights: List[Tensor],
        bias: bool,
        layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> Tuple[Tensor, ...]:
        states = list(hx) if isinstance(hx, (list, tuple)) else [hx]
        if all(self.is_zero(state) for state in states):
            states = []
        drops = train and dropout > 0 and layers > 1
        operator = getattr(torch.ops.torchstreamer, mode)
        return tuple(operator(x, states, list(weights), layers, bidirectional, batch_first, drops))

    def is_zero(self, state: Tensor) -> bool:
        """Whether a tensor was made of zeros, and not written to since."""
        known, version = self.zeros.get(id(state), (None, 0))
        return known is state and state._version == version

    def _packed(self) -> UnsupportedModuleError:
        module, line = _caller(self.net)
        where = f" (at {line})" if line else ""
        return UnsupportedModuleError("packed_sequence", module, _PACKED[0] + where, _PACKED[1]).within(self.net)


def _caller(net: nn.Module) -> Tuple[nn.Module, str]:
    """The innermost module of the model's own at work, and the line of its source."""
    modules = {id(module) for module in net.modules()}
    frame: Optional[Any] = sys._getframe(1)
    line = ""
    while frame is not None:
        file = frame.f_code.co_filename.replace("\\", "/")
        if "/torch/" not in file and "/torchstreamer/" not in file:
            text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
            line = line or f"{file.rsplit('/', 1)[-1]}, line {frame.f_lineno}: {text}"
            owner = frame.f_locals.get("self")
            if id(owner) in modules:
                return owner, line
        frame = frame.f_back
    return net, line
