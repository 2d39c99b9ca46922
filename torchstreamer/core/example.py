"""The example that a model comes with: what is wrong with one is said before anything is made of it."""

from typing import Any, Callable, List, Mapping, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor, nn

from ..errors import StreamError, StreamInputError
from .describe import describe, dtype_name, is_plain
from .whole_numbers import as_index, whole_number

__all__ = ["Example", "Select", "TimeDim", "ensure_works", "first_line", "inputs_of"]

Example = Union[Tensor, Sequence[Tensor]]
TimeDim = Union[int, Sequence[Optional[int]]]
Select = Union[str, int, Sequence[Any], Mapping[str, Any], Callable[[Any], Any]]


def inputs_of(example: Example, time_dim: TimeDim, length_multiple: int) -> Tuple[List[Tensor], List[Optional[int]]]:
    """The inputs, and the time axis of each, counted from the first.

    What is no number says nothing about a model, and hides what a stream does wrong: noise takes its place.

    Raises:
        TypeError: the example is no tensor, and no tuple of tensors
        StreamInputError: a tensor that holds no plain values, or they do not fit each other
    """
    examples = _tensors(example)
    times = _times(examples, time_dim)
    multiple = whole_number(length_multiple, "length_multiple")
    for x in examples:
        _ensure_plain(x)
    length = next(x.shape[time] for x, time in zip(examples, times, strict=True) if time is not None)
    if length % multiple != 0:
        raise StreamInputError(
            f"invalid_example: its length is {length}; a multiple of {multiple} was expected; crop or pad it"
        )
    return [_with_numbers(x) for x in examples], times


def ensure_works(net: nn.Module, examples: Sequence[Tensor]) -> None:
    """Run a model on its example.

    Raises:
        StreamInputError: it fails
    """
    try:
        with torch.no_grad():
            net(*(x.clone() for x in examples))
    except (Warning, StreamError):
        raise
    except Exception as error:
        came = "; ".join(describe(x) for x in examples)
        weight = next((p for p in net.parameters() if p.is_floating_point()), None)
        held = "" if weight is None else f" (its weights are {dtype_name(weight)}, on {weight.device})"
        raise StreamInputError(
            f"example_fails: the model fails on this example, {came}{held}: {first_line(error)}; an input that the "
            "model takes was expected, or a tuple of all of them; check its shape, dtype and device"
        ) from error


def first_line(error: BaseException) -> str:
    """An error in one line that is not too long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    return f"{type(error).__name__}: {text[:300] + '…' if len(text) > 300 else text}"


def _tensors(example: Any) -> List[Tensor]:
    inputs = [example] if isinstance(example, Tensor) else example
    if isinstance(inputs, (tuple, list)) and inputs and all(isinstance(x, Tensor) for x in inputs):
        return [x.detach() for x in inputs]
    if isinstance(example, (tuple, list)):
        kinds = [type(x).__name__ for x in example]
        came = f"a {type(example).__name__} of ({', '.join(kinds[:6])}{', …' if len(kinds) > 6 else ''})"
    else:
        came = f"an object of type {type(example).__name__}"
    raise TypeError(
        f"invalid_example: {came} came as the example; a tensor, or a tuple of tensors, was expected; convert it with "
        "torch.as_tensor, and leave out what the model needs not be given"
    )


def _times(examples: List[Tensor], time_dim: Any) -> List[Optional[int]]:
    one = as_index(time_dim)
    if one is None and not isinstance(time_dim, (tuple, list)):
        raise StreamInputError(
            f"invalid_time_dim: time_dim={time_dim!r} came; a whole number was expected, or a tuple with one for each "
            "input; pass the axis of time"
        )
    dims = [one] * len(examples) if one is not None else list(time_dim)
    if len(dims) != len(examples):
        raise StreamInputError(
            f"invalid_time_dim: time_dim={tuple(dims)!r} came for {len(examples)} inputs; one axis for each was "
            "expected; pass None for a static input"
        )
    times: List[Optional[int]] = []
    for x, given in zip(examples, dims, strict=True):
        dim = as_index(given)
        if given is not None and (dim is None or not -x.dim() <= dim < x.dim()):
            raise StreamInputError(
                f"invalid_time_dim: time_dim={given!r} came for an example of shape {tuple(x.shape)}; an axis of it "
                "was expected; pass the axis of time"
            )
        times.append(None if dim is None else dim % x.dim())
    if all(time is None for time in times):
        raise StreamInputError(
            "invalid_time_dim: no input has a time axis; at least one was expected; pass the axis of time"
        )
    return times


def _ensure_plain(x: Tensor) -> None:
    if not is_plain(x):
        kind = "nested" if x.is_nested else "quantized" if x.is_quantized else str(x.layout).replace("torch.", "")
        raise StreamInputError(
            f"invalid_example: a {kind} tensor came; a dense one was expected; convert it, as with to_dense()"
        )
    if x.is_meta:
        raise StreamInputError(
            f"invalid_example: {describe(x)} came, which holds no values; a tensor with values was expected; make one "
            "on the device of the model"
        )
    if x.numel() == 0:
        raise StreamInputError(
            f"invalid_example: {describe(x)} came; no axis of size 0 was expected; give a length at which the model "
            "works, and a row at least"
        )


def _with_numbers(x: Tensor) -> Tensor:
    if not (x.is_floating_point() or x.is_complex()) or not bool(x.isnan().any()):
        return x
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.where(x.isnan(), noise.to(device=x.device, dtype=x.dtype), x)
