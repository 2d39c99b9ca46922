"""Lengths that a model rounds from floats: whether they are what the exact quotients are.

A float is *sure* if it is exact wherever the exact number is a fraction of a power of two, so wherever that is whole or
a half; elsewhere it is off by a few units in the last place, far less than what is missing to a whole number. Rounding
it gives what rounding the exact number gives then: for lengths up to ``2**40`` where the denominator is less than
``2**10``, and in a float32 tensor for results of less than ``2**23`` over the denominator.
"""

import math
import operator
from fractions import Fraction
from typing import Any, Dict, Optional

import torch
from torch import fx

from .lengths import Sizes
from .periodic import Periodic, fraction_of, periodic

__all__ = ["unsure_rounding"]

_ROUNDINGS = (math.ceil, math.floor, math.trunc, round, torch.sym_int)
_SUMS = (operator.add, operator.sub)


def unsure_rounding(graph: fx.Graph, sizes: Sizes) -> Optional[fx.Node]:
    """The first operation that rounds a float of the length for which that is not proved."""
    sure: Dict[fx.Node, bool] = {}
    for node in graph.nodes:
        value = node.meta.get("val")
        if node.op != "call_function" or not isinstance(value, (torch.SymFloat, torch.SymInt)):
            continue
        if isinstance(value, torch.SymFloat):
            sure[node] = sizes.root not in sizes.symbols(value) or _is_sure(node, sizes, sure)
        elif node.target in _ROUNDINGS and node.args[0] in sure and not sure[node.args[0]]:
            return node
    return None


def _is_sure(node: fx.Node, sizes: Sizes, sure: Dict[fx.Node, bool]) -> bool:
    if not all(sure.get(arg, True) for arg in node.all_input_nodes):
        return False
    forms = [_form(arg, sizes) for arg in node.args]
    if any(form is None for form in forms):
        return False
    if node.target in (torch.sym_float, operator.neg, operator.pos, torch.sym_max, torch.sym_min):
        return True
    if len(forms) != 2:
        return False
    one, other = forms[0], forms[1]
    assert one is not None and other is not None
    if node.target in _SUMS:
        return _is_dyadic(one) or _is_dyadic(other)
    if node.target is operator.truediv:
        divisor = _constant(other)
        return divisor is not None and divisor != 0 and _is_dyadic(other)
    if node.target is operator.mul:
        form, factor = (one, _constant(other)) if _constant(one) is None else (other, _constant(one))
        if factor is None or factor == 0:
            return False
        if form.unit == 1:
            return True
        odd = abs(factor.numerator)
        while odd % 2 == 0:
            odd //= 2
        return _is_power(factor.denominator) and math.gcd(odd, form.unit) == 1
    return False


def _form(argument: Any, sizes: Sizes) -> Optional[Periodic]:
    value = argument.meta.get("val") if isinstance(argument, fx.Node) else argument
    if isinstance(value, (torch.SymInt, torch.SymFloat)):
        return periodic(value.node.expr, sizes.root, {sizes.rows: 2})
    number = fraction_of(float(value)) if isinstance(value, (int, float)) else None
    return None if number is None else Periodic(1, (number.numerator,), 0, number.denominator)


def _constant(form: Periodic) -> Optional[Fraction]:
    return Fraction(form.values[0], form.unit) if form.rise == 0 and len(set(form.values)) == 1 else None


def _is_power(number: int) -> bool:
    return number & (number - 1) == 0


def _is_dyadic(form: Periodic) -> bool:
    return _is_power(form.unit)
