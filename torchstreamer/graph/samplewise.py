"""Whether an operation treats every sample alone: tried on random tensors, cut in several places."""

from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, fx

from ..core.closeness import distance, tolerance
from .values import Replay, Value
from .weights import Weights

__all__ = ["is_pointwise", "is_samplewise"]

_LENGTH = 7
_CUTS = (1, 3, 6)


def is_pointwise(node: fx.Node) -> bool:
    """Whether torch says of an operation that it treats every element alone."""
    return isinstance(node.target, torch._ops.OpOverload) and torch.Tag.pointwise in node.target.tags


def _random_tensor(weights: Weights, value: Value, device: torch.device, numbers: Tuple[int, int]) -> Tensor:
    """A random tensor like a value, for two rows and a few samples; whole numbers from a range."""
    shape = []
    for axis, size in enumerate(value.shape):
        if axis == value.time:
            shape.append(_LENGTH)
        elif axis == value.rows:
            shape.append(2 * value.inner)
        else:
            sizes = weights.capture.sizes
            shape.append(sizes.at(size, sizes.samples[0], 2))  # asked for its number, a symbol would be fixed
    if value.lifted:
        shape = [2, *shape]
    generator = torch.Generator().manual_seed(len(shape) + sum(shape))
    if value.dtype.is_complex:
        return torch.randn(shape, generator=generator, dtype=value.dtype).to(device)
    if value.dtype.is_floating_point:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, value.dtype)
    return torch.randint(*numbers, shape, generator=generator).to(device, value.dtype)


def is_samplewise(weights: Weights, recipe: Replay, values: Sequence[Value], axes: Sequence[Optional[int]]) -> bool:
    """Whether an operation gives for the pieces of a signal the pieces of what it gives for the whole.

    Args:
        weights: knows weights and constants
        recipe: the operation
        values: its inputs with a time axis
        axes: the time axis of each of its outputs; ``None`` for one without, which is not compared
    """
    device = weights.capture.streamed[0].example.device
    for numbers in ((0, 2), (0, 1), (1, 2)):  # what is good for a table may be none for a division
        tensors = {value: _random_tensor(weights, value, device, numbers) for value in values}
        try:
            with torch.no_grad():
                return _cuts_agree(weights, recipe, tensors, axes)
        except (RuntimeError, IndexError, ValueError, ArithmeticError):
            continue
    return False


def _cuts_agree(weights: Weights, recipe: Replay, tensors: Dict[Any, Tensor], axes: Sequence[Optional[int]]) -> bool:
    whole = _outputs(weights.run(recipe, dict(tensors)))
    for y, axis in zip(whole, axes, strict=False):
        if axis is not None and y.shape[axis] != _LENGTH:
            return False
    for cut in _CUTS:
        parts = []
        for begin, end in ((0, cut), (cut, _LENGTH)):
            piece = {
                value: x.narrow(value.time + value.lifted, begin, end - begin).contiguous()
                for value, x in tensors.items()
            }
            parts.append(_outputs(weights.run(recipe, dict(piece))))
        for i, axis in enumerate(axes):
            if axis is not None:
                found = torch.cat([part[i] for part in parts], axis)
                if distance(found, whole[i], 1.0, 1.0) > tolerance(found.dtype, 1e-9, 1e-4, 3e-2):
                    return False
    return True


def _outputs(y: Any) -> List[Tensor]:
    return [y] if isinstance(y, Tensor) else list(y)
