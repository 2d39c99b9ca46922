"""What every operation on pieces must give, said of a list of rows: no code of the package is used."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from torch import Tensor

__all__ = ["CHAINS", "OPERATIONS", "Axes", "Row", "Trial", "at", "bounds", "cut", "mapped", "operation"]


@dataclass
class Row:
    """A row for itself: ``data`` is ``[…, t]``."""

    id: Any
    first: bool
    last: bool
    start: int | None
    data: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> "Row":
        return replace(self, data=function(self.data))


@dataclass
class Axes:
    """Where the rows, the channels and time are."""

    b: int
    c: int
    t: int


@dataclass
class Trial:
    """Ways to call an operation, and what it gives.

    ``rows`` are those of the result, ``pieces`` those of each part of it, ``reduced`` the results of the rows in a
    plain tensor, rows first. Without any of these the result is what torch gives on the plain tensor.
    """

    calls: list[Callable[[Any, Axes], Any]]
    rows: list[Row] | None = None
    pieces: list[list[Row]] | None = None
    reduced: list[Tensor] | None = None


OPERATIONS: dict[str, Callable[[Random, list[Row], int], Trial]] = {}
CHAINS: set[str] = set()


def operation(name: str, chains: bool = False) -> Any:
    def enter(function: Any) -> Any:
        OPERATIONS[name] = function
        if chains:
            CHAINS.add(name)
        return function

    return enter


def cut(row: Row, begin: int, end: int) -> Row:
    count = row.data.shape[-1]
    return Row(
        row.id,
        row.first and (begin == 0 or count == 0),
        row.last and end >= count,
        None if row.start is None else row.start + min(begin, count),
        row.data[..., begin:end],
    )


def at(axis: int, index: Any) -> Any:
    """An index of one axis."""
    return (*[slice(None)] * axis, index)


def mapped(rows: list[Row], function: Callable[[Tensor], Tensor]) -> list[Row]:
    return [row.map(function) for row in rows]


def bounds(rng: Random, size: int) -> slice:
    """A random slice of so many."""
    return slice(*(rng.choice([None, rng.randint(-size - 1, size + 1)]) for _ in range(2)))
