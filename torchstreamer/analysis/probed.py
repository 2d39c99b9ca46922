"""The model under the microscope: a callable, the signals it is probed with, and how its outputs are compared."""

import copy
import math
from dataclasses import dataclass, field
from typing import Any, Callable, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from ..core.stream import BaseStream

__all__ = ["Probed", "Watch", "as_function", "kind_of"]

# Values of a forward, at most: what a row has times the rows; and those of the largest tensor on the way.
_VALUES = 1 << 20
_INSIDE = 1 << 22


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation. Others of its kind import the compiler, which takes a second, to be left out by it."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class _Largest(Watch):
    # Notes how many values the largest result of an operation has.

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        y = func(*args, **(kwargs or {}))
        if isinstance(y, Tensor):
            self.values = max(self.values, y.numel())
        return y


@dataclass
class Probed:
    """A model, a random signal that it is probed with, and what it gives for that.

    Args:
        model: takes ``[B, …]``, gives a tensor, or a tuple, list or dict of tensors
        shape: of the signal
        time_dim: its axis of time
        output_time_dim: that of every output
        dtype: of the signal
        device: of the signal
        tokens: how many tokens there are, for a signal of whole numbers; 0 for one of numbers
        seed: of all random values

    Attributes:
        base: the signal
        outputs: what the model gives for it, tensors only
        lengths: frames of each output
        apart: whether rows of a batch do not touch each other, so that many probes run at once
    """

    model: Callable[..., Any]
    shape: Tuple[int, ...]
    time_dim: int
    output_time_dim: int
    dtype: torch.dtype
    device: torch.device
    tokens: int
    seed: int
    base: Tensor = field(init=False)
    outputs: List[Tensor] = field(init=False)
    lengths: List[int] = field(init=False)
    apart: bool = field(init=False, default=True)

    def __post_init__(self) -> None:
        self.rows = self.shape[0]
        self.frames = self.shape[self.time_dim]
        self.noise: List[float] = []
        self.draw(0)
        first = self.model(self.base.clone())
        leaves, self.structure = pytree.tree_flatten(first)
        self.streamed = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        if not self.streamed:
            raise ValueError(
                f"no_output: the model gives a {type(first).__name__}; a tensor, or a tuple or dict of tensors, was "
                "expected; wrap it in a function that returns one"
            )
        self.outputs = self._leaves(first)
        again = self._leaves(self.model(self.base.clone()))
        self._ensure_deterministic(again)
        self._ensure_finite()
        self.axes = [self._axis(leaf) for leaf in self.outputs]
        self.lengths = [y.shape[axis] for y, axis in zip(self.outputs, self.axes, strict=True)]
        self.apart = self._rows_apart()
        self._measure_noise()
        self.most = self._measure_most() if self.apart else 1

    # ------------------------------------------------------------------ signals

    @property
    def whole(self) -> bool:
        """Whether the signal is of whole numbers."""
        return self.tokens > 0

    def draw(self, variant: int) -> None:
        """Choose another random signal as the base: from 0 to 1, and on odd turns wide, with both signs, if the model
        takes that."""
        self.base = self.values(self.shape, variant)
        if variant == 0:
            return
        if variant % 2 and not self.whole:
            narrow, self.base = self.base, 6 * self.base - 3
            self.outputs = self._leaves(self.model(self.base.clone()))
            if self._finite():
                return
            self.base = narrow
        self.outputs = self._leaves(self.model(self.base.clone()))
        self._ensure_finite()

    def values(self, shape: Sequence[int], variant: int) -> Tensor:
        """Random values of the signal's kind: tokens but the last one, or numbers from 0 to 1."""
        generator = torch.Generator().manual_seed(self.seed + 7919 * variant)
        if self.whole:
            return torch.randint(max(self.tokens - 1, 1), tuple(shape), generator=generator).to(self.device, self.dtype)
        return torch.rand(tuple(shape), generator=generator, dtype=torch.float64).to(self.device, self.dtype)

    def frame_mask(self, marked: Tensor) -> Tensor:
        """Marked frames ``[P, T]`` as a mask that broadcasts with `many`, ``[P, 1, …, T, …]``."""
        shape = [1] * (len(self.shape) + 1)
        shape[0] = marked.shape[0]
        shape[self.time_dim + 1] = self.frames
        return marked.to(self.device).reshape(shape)

    def many(self, count: int) -> Tensor:
        """The base ``count`` times, ``[P, B, …]``, not copied."""
        return self.base.unsqueeze(0).expand(count, *self.shape)

    def pieces(self, count: int) -> List[range]:
        """``count`` probes in pieces that are run at once."""
        return [range(i, min(i + self.most, count)) for i in range(0, count, self.most)]

    # ------------------------------------------------------------------ outputs

    def run(self, x: Tensor) -> List[Tensor]:
        """The outputs for probes ``[P, B, …]``, each ``[P, T', values]``."""
        count = x.shape[0]
        # A copy: the model may write to its input.
        leaves = self._leaves(self.model(x.reshape(count * self.rows, *self.shape[1:]).clone()))
        found = []
        for y, axis, expected in zip(leaves, self.axes, self.outputs, strict=True):
            if y.shape[1:] != expected.shape[1:] or y.shape[0] != count * expected.shape[0]:
                raise ValueError(
                    f"invalid_output: for {count * self.rows} rows an output came with shape {tuple(y.shape)}; for "
                    f"{self.rows} rows it has {tuple(expected.shape)}; give every row an output of its own"
                )
            found.append(self._flat(y, axis, count))
        return found

    def changed(self, ys: List[Tensor], infinite: bool) -> Tensor:
        """Which frames of the outputs, one after the other, are not those of the base: ``[P, ΣT']``.

        Args:
            ys: as `run` gives them
            infinite: whether values that are not finite count
        """
        found = []
        for y, expected, axis, noise in zip(ys, self.outputs, self.axes, self.noise, strict=True):
            same = self._flat(expected, axis, 1)
            if not y.is_floating_point():
                found.append((y != same).any(2))
                continue
            wide = torch.float64 if y.dtype == torch.float64 else torch.float32
            y = y.detach().to(wide)
            difference = (y - same.detach().to(wide)).abs_()
            finite = difference.isfinite()
            top = torch.where(finite, y.abs(), 0.0).flatten(1).amax(1) if y.numel() > 0 else y.new_zeros(len(y))
            moved = difference > (noise * top)[:, None, None]
            found.append((moved | ~finite if infinite else moved & finite).any(2))
        return torch.cat(found, 1).cpu()

    def restored(self, matrix: Tensor) -> Any:
        """A matrix ``[in, ΣT']`` in the model's own structure, one for each output."""
        parts = iter(torch.split(matrix, self.lengths, 1))
        leaves = [next(parts) if i in self.streamed else None for i in range(self.structure.num_leaves)]
        return pytree.tree_unflatten(leaves, self.structure)

    # ------------------------------------------------------------------ inside

    def _leaves(self, result: Any) -> List[Tensor]:
        return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]

    def _flat(self, y: Tensor, axis: int, count: int) -> Tensor:
        y = y.reshape(count, y.shape[0] // count, *y.shape[1:]).movedim(axis + 1, 1)
        return (torch.view_as_real(y.resolve_conj()) if y.is_complex() else y).flatten(2)

    def _axis(self, y: Tensor) -> int:
        axis = self.output_time_dim
        if y.dim() < 2 or not -y.dim() <= axis < y.dim() or axis % y.dim() == 0:
            raise ValueError(
                f"invalid_time_dim: an output has shape {tuple(y.shape)}; one with rows first and time at {axis} was "
                "expected; give time_dim= and output_time_dim=, or a function that returns such an output"
            )
        return axis % y.dim()

    def _ensure_deterministic(self, again: List[Tensor]) -> None:
        for one, two in zip(self.outputs, again, strict=True):
            same = one.shape == two.shape
            if same and self.device.type == "cpu":
                same = bool(((one == two) | (one.isnan() & two.isnan())).all())
            elif same:  # sums in any order
                same = _top(one - two) <= 16 * _eps(one) * _top(one)
            if not same:
                raise ValueError(
                    "not_deterministic: the model gave two outputs for one input; the same one was expected; call "
                    "eval(), and take randomness and state out of it"
                )

    def _finite(self) -> bool:
        return all(bool(y.isfinite().all()) for y in self.outputs)

    def _ensure_finite(self) -> None:
        if not self._finite():
            raise ValueError(
                "not_finite: for random input the model gives values that are not finite; finite ones were expected; "
                "wrap it in a function that takes numbers from 0 to 1 to where it is defined"
            )

    def _rows_apart(self) -> bool:
        # Rows unlike the base, before it and after it, must not change what comes out of the base. It stands where no
        # turning around of the batch puts it in its own place.
        others = self.values((3, *self.shape), 1)
        if not self.whole:
            others[1] *= 3
        batch = torch.cat([others[:1], self.base.unsqueeze(0), others[1:]])
        self.noise = [16 * _eps(y) for y in self.outputs]
        try:
            ys = self.run(batch)
        except Warning:  # made an error by the caller's filters
            raise
        except Exception:  # the model takes this batch only
            return False
        return not bool(self.changed([y[1:2] for y in ys], True).any())

    def _measure_most(self) -> int:
        """How many probes to run at once, so that they stay in caches, and attention over all frames in memory."""
        most = _VALUES // max(self.base.numel(), *(y.numel() for y in self.outputs))
        mode = _Largest()
        try:
            with mode:
                self.model(self.base.clone())
        except Warning:
            raise
        except Exception:  # it cannot be watched
            return max(most, 1)
        return max(min(most, _INSIDE // max(mode.values, 1)), 1)

    def _measure_noise(self) -> None:
        """How much of an output's scale is rounding: what a change in the last digits of the input makes of it."""
        floor = [2 * _eps(y) for y in self.outputs]
        if not self.whole:
            for variant in (1, 2):
                sign = self.values(self.shape, variant).round() * 2 - 1
                near = (self.base * (1 + _eps(self.base) * sign)).unsqueeze(0)
                for i, y in enumerate(self.run(near)):
                    same = self._flat(self.outputs[i], self.axes[i], 1)
                    if y.is_floating_point() and _top(same) > 0:
                        floor[i] = max(floor[i], _top(y - same) / _top(same))
        self.noise = [8 * noise for noise in floor]


def _eps(x: Tensor) -> float:
    return float(torch.finfo(x.dtype).eps) if x.is_floating_point() or x.is_complex() else 0.0


def _top(x: Tensor) -> float:
    top = float(x.detach().abs().amax()) if x.numel() > 0 else 0.0
    return top if math.isfinite(top) else 0.0


def as_function(model: Callable[..., Any]) -> Callable[..., Any]:
    """The model itself; of a stream or its script, a function that runs a copy of it on whole signals."""
    scripted = isinstance(model, torch.jit.ScriptModule) and hasattr(model, "flush") and hasattr(model, "reset")
    if not scripted and not isinstance(model, BaseStream):
        return model
    twin: Any = copy.deepcopy(model)

    def whole(*inputs: Tensor) -> Any:
        twin.reset()
        return twin(*inputs, final=True)

    return whole


def kind_of(model: Any) -> Tuple[Optional[torch.dtype], torch.device]:
    """The dtype and device of a module's first weight."""
    if isinstance(model, nn.Module):
        for value in [*model.parameters(), *model.buffers()]:
            if value.is_floating_point():
                return value.dtype, value.device
    return None, torch.device("cpu")
