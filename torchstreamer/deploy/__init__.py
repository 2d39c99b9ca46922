"""Deployment: the static step, compilation, export.

Here is also what a rule needs that lets the stream of a handler of one's own run in a static step; see `static_rule`.
"""

from .parts import Call
from .planning import Edge, Planner, static_rule
from .rows import Part, Rows
from .rules import add_window
from .windows import WindowPart

__all__ = ["Call", "Edge", "Part", "Planner", "Rows", "WindowPart", "add_window", "static_rule"]
