"""`TorchRecurrentStream`: what the streams of torch's recurrent layers have in common.

Short chunks are computed sample by sample by the operators of torch's cells, long ones by that of the whole sequence.
TorchScript compiles this file, so it uses no postponed annotations.
"""

# A submodule's methods are not known to the type checker.
# mypy: disable-error-code="operator, union-attr"

from typing import List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.jit import is_scripting

from ..core.axes import Axes
from ..core.fast_attributes import entry
from ..core.registry import require_plain
from ..core.tracing import autocasting, recorded_form
from ..errors import UnsupportedModuleError
from .limits import UNROLLED_SAMPLES
from .recurrent import RecurrentStream
from .rnn_weights import RecurrentWeights, weights_of
from .weights import PlainWeight

__all__ = ["Start", "TorchRecurrentStream", "affine_rows", "joined"]

Start = Union[Tensor, Sequence[Tensor], None]


class TorchRecurrentStream(RecurrentStream):
    """What the streams of torch's recurrent layers have in common.

    Args:
        net: the layer, or its weights
        initial: the first value of each tensor of the state, ``[layers, H]`` or ``[layers, 1, H]``; zeros without it
        kind: type of the layer
        names: of the state's tensors, ``[B, layers, H]`` each

    Raises:
        UnsupportedModuleError: the layer is bidirectional, or drops values between its layers in training mode
    """

    fresh = True
    weights = entry("_modules")
    starts = entry("_modules")

    def __init__(
        self,
        net: Union[nn.RNNBase, RecurrentWeights],
        initial: Start,
        kind: type,
        names: List[str],
    ) -> None:
        if isinstance(net, RecurrentWeights):
            weights = net
        else:
            require_plain(net, kind)
            weights = weights_of(net)
        super().__init__(weights.input_size, weights.output_size, names)
        if isinstance(net, nn.RNNBase):
            axes, last = "btc" if net.batch_first else "tbc", "lbc" if len(names) == 1 else ("lbc", "lbc")
            self.axes = Axes(axes, (axes, last), ("lbc",) * len(names))
        self.aliasing = 0
        self.weights = weights
        self.layers = weights.layers
        self.stride = weights.per_layer  # weights of one layer
        self.bias = weights.bias
        self.sizes = [weights.output_size, weights.hidden_size][: len(names)]
        self.starts = nn.ModuleList(_starts(net, initial, self.sizes, self.layers))
        if len(self.starts) == 0:
            self.memory.opening = (0, 0.0)  # a first chunk is one like any other, after zeros
        self.projected = weights.proj_size > 0
        self.longest = 0  # samples of a chunk up to which cells pay
        self.narrows = len(names) == 2  # under autocast the operator of sequences gives another dtype than the cell's

    def initial(self, x: Tensor) -> List[Tensor]:
        state: List[Tensor] = []
        for size in self.sizes:
            state.append(x.new_zeros([x.size(0), self.layers, size]))
        # Of the chunk's dtype, which under autocast need not be that of the weights.
        for i, start in enumerate(self.starts):
            value = start()
            state[i] = state[i] + (value.squeeze(1) if value.dim() == 3 else value).to(x.dtype)
        if self.narrows and autocasting(x):
            # So the state says for the whole signal that cells would not do.
            one = x.new_ones([1, 1])
            dtype = torch.mm(one, one).dtype
            state = [each.to(dtype) for each in state]
        return state

    def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        if not is_scripting():
            if recorded_form() not in ("", "channels") and x.size(2) <= UNROLLED_SAMPLES:
                y, state = self.unrolled(x, state)
                return y, without_denormals(state)
            if self.projected and is_compiling():
                # ONNX has no operator for it, and the exporter takes that of an LSTM without projections.
                y, state = self.sample_by_sample(x, state)
                return y, without_denormals(state)
        if x.size(2) > self.longest or (self.narrows and state[0].dtype != x.dtype):
            y, state = self.whole(x, state)
        else:
            y, state = self.sample_by_sample(x, state)
        return y, without_denormals(state)

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if x is None:
            return None
        if not self.memory.started():
            self.memory.keep(self.initial(x))
        y, state = self.advance(x, self.memory.rows())
        if torch.is_grad_enabled():
            self.memory.keep(state)
        else:
            self.memory.take(state)  # made anew by `without_denormals`
        return y

    def sample_by_sample(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        """`advance` by the operators of cells, for short chunks."""
        raise NotImplementedError

    def whole(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        """`advance` by the operator of sequences, for long chunks."""
        raise NotImplementedError

    @torch.jit.unused
    def unrolled(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        """`advance` while a step is recorded: what it does to weights alone is done once, and one product serves all
        samples where it does not wait for the state."""
        w = self.weights.tensors()
        rows, t = x.size(0), x.size(2)
        xs = x.permute(2, 0, 1).reshape(t * rows, -1)
        states = [list(each.unbind(1)) for each in state]
        for i in range(self.layers):
            own = w[i * self.stride : (i + 1) * self.stride]
            inner = own[1].t().contiguous()
            last = own[-1].t().contiguous() if len(own) % 2 == 1 else None
            product = torch.mm(xs, own[0].t().contiguous())
            b_hh = None
            if self.bias:
                product, b_hh = product + own[2], own[3]
            held = [each[i] for each in states]
            ys = []
            for sample in torch.split(product, rows):
                held = self.cell(sample, held, inner, b_hh, last)
                ys.append(held[0])
            for each, now in zip(states, held, strict=True):
                each[i] = now
            xs = torch.cat(ys)
        y = xs.view(t, rows, -1).permute(1, 2, 0)
        return y, [joined(each, 1) for each in states]

    @torch.jit.unused
    def cell(
        self, x: Tensor, state: List[Tensor], weight: Tensor, bias: Optional[Tensor], last: Optional[Tensor]
    ) -> List[Tensor]:
        """The next state ``[B, H]``, the output first, of the input's part of the gates; weights are ``[in, out]``."""
        raise NotImplementedError

    def anchor(self) -> Optional[Tensor]:
        """The first weight says dtype and device."""
        return self.weights.anchor()

    def multiply_adds(self, came: int, given: int) -> Optional[int]:
        """Products with the weights; sums and activations are not counted."""
        return came * sum(weight.numel() for weight in self.weights.tensors() if weight.dim() == 2)

    def extra_repr(self) -> str:
        layers = "" if self.layers == 1 else f", layers={self.layers}"
        return f"{self.in_channels}, {self.out_channels}{layers}" + ("" if self.bias else ", bias=False")


def _starts(net: nn.Module, initial: Start, sizes: Sequence[int], layers: int) -> List[nn.Module]:
    given = [] if initial is None else [initial] if isinstance(initial, (Tensor, nn.Module)) else list(initial)
    found: List[nn.Module] = [value if isinstance(value, nn.Module) else PlainWeight(value) for value in given]
    shapes = [list(value().shape) for value in found]
    expected = [[[layers, size], [layers, 1, size]] for size in sizes]
    if shapes and (len(shapes) != len(expected) or any(s not in e for s, e in zip(shapes, expected, strict=True))):
        raise UnsupportedModuleError(
            "initial_state",
            net,
            f"its initial state has tensors of shapes {', '.join(map(str, shapes))}; "
            f"{' and '.join(str(e[0]) for e in expected)} were expected, the same for all rows",
            "give one value for all rows",
        )
    return found


def without_denormals(state: List[Tensor]) -> List[Tensor]:
    """A state, copied, with zeros in the place of numbers that are none against any other but cost a lot.

    In silence a state fades away, and may stop at numbers just above 0, which lack leading digits. A processor takes
    ten times as long for a step with these. Under autograd the state is as it was: zeros would cut gradients.
    """
    if torch.is_grad_enabled():
        return state
    dtype = state[0].dtype
    limit = 1e-30 if dtype == torch.float32 or dtype == torch.bfloat16 else 1e-290 if dtype == torch.float64 else 0.0
    found: List[Tensor] = []
    for each in state:
        found.append(torch.hardshrink(each, limit))
    return found


def joined(parts: List[Tensor], axis: int) -> Tensor:
    """Tensors along a new axis."""
    return parts[0].unsqueeze(axis) if len(parts) == 1 else torch.stack(parts, axis)


def affine_rows(x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
    """``x @ weight + bias``."""
    return torch.mm(x, weight) if bias is None else torch.addmm(bias, x, weight)
