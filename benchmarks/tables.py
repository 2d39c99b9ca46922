"""The tables of figures, as markdown."""

from collections.abc import Sequence
from typing import Any

from timing import quartiles

__all__ = ["described", "ends", "markdown", "ratio"]


def described(facts: dict[str, Any], *more: str) -> str:
    """What the figures were taken on, and how often."""
    parts = [
        f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} thread",
        f"torch {facts['torch']}, Python {facts['python']}, {facts['system']}",
        f"{facts['rounds']} rounds",
    ]
    return "; ".join(parts) + "".join(f", {each}" for each in more) + "."


def ratio(times: Sequence[float], others: Sequence[float], most: float | None = None, spread: bool = False) -> str:
    """The median of the rounds' ratios, with the quartiles if wanted, and what was asked of it."""
    low, middle, high = quartiles([a / b for a, b in zip(times, others, strict=True)])
    told = f"**{middle:.2f}**" + (f" ({low:.2f}-{high:.2f})" if spread else "")
    return told + (f" (at most {most:g})" if most is not None else "")


def ends(tail: Sequence[float], unit: float, digits: int = 0) -> list[str]:
    """The 99.9th percentile and the maximum in a unit; dashes where none were taken."""
    return [f"{value / unit:.{digits}f}" for value in tail[:2]] or ["-", "-"]


def markdown(head: str, columns: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> str:
    """A line about the figures, and their table.

    Args:
        head: the line
        columns: titles
        rows: an entry for each column
        words: how many columns hold words; the others hold numbers, to the right
    """
    lines = [head, "", f"| {' | '.join(columns)} |", "|" + "---|" * words + "--:|" * (len(columns) - words)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"
