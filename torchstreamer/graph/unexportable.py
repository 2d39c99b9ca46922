"""Refusals of models that the exporter cannot record, or records for one length only: where, and by what."""

import ast
from typing import Tuple

import torch
from torch import nn
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from ..core.describe import samples
from ..errors import UnsupportedModuleError
from .places import Place, loop_over, place_of, statement_at, steps_of

__all__ = ["PlacedError", "fixed_length", "not_exportable"]

# What a loop over time may do.
_FOLLOWED = (
    "loop over range(n) for a signal of n samples, let every turn do the same with its own sample, x[:, t], and with "
    "what the turn before has made, and stack the outputs"
)


class PlacedError(UnsupportedModuleError):
    """The refusal of a place in a model.

    Attributes:
        by_values: whether it is a matter of values, which no other way of exporting changes
        loops: whether it names a loop over time
    """

    by_values = False
    loops = False


def not_exportable(net: nn.Module, error: Exception) -> PlacedError:
    """The refusal of a model at which the exporter raised an error."""
    place = place_of(steps_of(error.__traceback__), net)
    by_values = isinstance(
        error, (GuardOnDataDependentSymNode, torch._subclasses.fake_tensor.DataDependentOutputException)
    )
    if by_values:
        reason, remedy = _by_value(place)
    else:
        reason = f"torch.export cannot follow what happens there ({type(error).__name__}: {_first_lines(error)})"
        remedy = "write it with operations on tensors, and lengths with shapes"
    what = f"{_attention(place)}{reason}"
    name = type(place.module).__name__
    found = PlacedError(
        "not_exportable",
        place.module,
        f"{_at(place)}{what}",
        f"{remedy}; or register a handler for {name} with register_streamer, or replace it with pts.replace_modules",
    )
    found.path, found.by_values = place.path, by_values
    return found


def _by_value(place: Place) -> Tuple[str, str]:
    statement = statement_at(place)
    if isinstance(statement, ast.Assert):
        return "it asserts something of the signal's values", "leave the assertion out, or keep it outside of the model"
    if isinstance(statement, ast.While):
        return "it loops until values of the signal say so", "loop a fixed number of times"
    if isinstance(statement, (ast.If, ast.IfExp)):
        if isinstance(statement, ast.If) and any(isinstance(each, ast.Raise) for each in statement.body):
            return "it raises by values of the signal", "leave the check out, or keep it outside of the model"
        return (
            "it takes a branch by values of the signal, which the exporter would take once for all",
            "write it with torch.where, clamp or other operations on tensors",
        )
    return "it makes a number of Python of the signal's values", "keep it a tensor"


def fixed_length(place: Place, length: int) -> PlacedError:
    """The refusal of a model that works for one length, which is fixed at a place."""
    loop = loop_over(place)
    name = type(place.module).__name__
    if loop is None:
        reason = f"{_at(place)}{_attention(place)}it works for signals of exactly {samples(length)}: it uses the length"
        reason += " in a place that fixes it, as a layer whose size is that length or a comparison with it"
        remedy = f"take lengths from shapes, or register a handler for {name}"
    else:
        unrolled = f"which the exporter would unroll for the {samples(length)} of the example"
        if loop[1]:
            reason = f"{_at(loop[0])}it loops over time in Python, and every turn needs what the one before has made: "
            reason += f"a recurrence, {unrolled}"
            remedy = f"{_FOLLOWED}; or use nn.GRU, nn.LSTM or pts.LinearRecurrence; or register a handler for {name}"
        else:
            reason = f"{_at(loop[0])}it loops over time in Python, {unrolled}"
            remedy = f"{_FOLLOWED}; or write it as operations on the whole signal; or register a handler for {name}"
    error = PlacedError("fixed_length", place.module, reason, remedy)
    error.path, error.by_values, error.loops = place.path, True, loop is not None
    return error


def _at(place: Place) -> str:
    return f"at {place.text}: " if place.text else ""


def _attention(place: Place) -> str:
    names = f"{type(place.module).__name__} {place.text}".lower()
    return "in an attention: " if "attention" in names or "attn" in names else ""


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:400]
