"""Loops over time in Python: two of their turns are recorded, and what they leave is told to be that of all turns.

``for t in range(x.shape[1])`` would be unrolled by the exporter, for one length. While a model is exported, such a loop
runs twice instead. A turn may use its number to take samples and to write them, and for nothing else. A list of what
the turns have made, stacked or concatenated after the loop, is an operation of ours, `looped`, that knows the results
of both turns; `loops.py` finds the recurrence in them.
"""

import sys
from contextlib import contextmanager
from typing import Any, Collection, Dict, Iterator, List, NoReturn, Optional, Tuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from .places import Place, place_of, steps_to
from .unexportable import PlacedError, fixed_length

__all__ = ["LoopTurns", "define_looped", "turns_of"]

_JOINS = frozenset(["stack", "cat", "concat", "concatenate"])
_following: List["LoopTurns"] = []  # of the export at work


def define_looped(library: Any) -> None:
    """Define the operator that stands for what all turns of a loop give."""
    library.define(
        "looped(Tensor first, Tensor second, Tensor[] firsts, Tensor[] seconds, SymInt count, int dim) -> Tensor"
    )
    torch.library.register_fake("torchstreamer::looped", _shape, lib=library)


def _shape(first: Tensor, second: Tensor, firsts: Any, seconds: Any, count: Any, dim: int) -> Tensor:
    return first.new_empty([*first.shape[:dim], count, *first.shape[dim:]])


class Turn(int):
    """The number of a turn, which takes and writes samples; what else is done with it would hold for this turn only."""

    loop: "Loop"

    def __new__(cls, number: int, loop: "Loop") -> "Turn":
        turn = int.__new__(cls, number)
        turn.loop = loop
        return turn

    def __add__(self, other: Any) -> Any:
        return Turn(int.__add__(self, other), self.loop) if type(other) is int and other >= 0 else self._refuse()

    __radd__ = __add__

    def _refuse(self, *args: Any) -> NoReturn:
        self.loop.refuse()

    __hash__ = None  # type: ignore[assignment]


for _name in (
    "sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod divmod rdivmod pow rpow and rand or ror xor rxor "
    "lshift rshift neg invert abs eq ne lt le gt ge bool int float"
).split():
    setattr(Turn, f"__{_name}__", Turn._refuse)


class Loop:
    """A loop of which two turns run.

    Args:
        follower: what follows it
        count: how many turns the model takes
        place: where it stands
    """

    def __init__(self, follower: "LoopTurns", count: Any, place: Place) -> None:
        self.follower, self.count, self.place = follower, count, place
        self.turn: Optional[int] = None
        self.made: Tuple[List[Tensor], List[Tensor]] = ([], [])
        self.names: Tuple[List[str], List[str]] = ([], [])
        # Of a tensor that is written sample by sample: the axis, and what each turn writes.
        self.writes: Dict[int, Tuple[Tensor, int, List[Tensor]]] = {}

    def refuse(self) -> NoReturn:
        """Say that the loop cannot be followed."""
        error = fixed_length(self.place, int(self.count.node.hint))
        self.follower.refused = self.follower.refused or error
        raise error

    def __iter__(self) -> Iterator[Turn]:
        self.follower.begin(self)
        for number in (0, 1):
            self.turn = number
            yield Turn(number, self)
        self.turn = None
        self.follower.end(self)


class LoopTurns(TorchFunctionMode):
    """While a model is exported, follows its loops over time.

    Args:
        net: the model
        rows: how many rows its inputs have in the export; a loop over these is none over time

    Attributes:
        refused: why a loop cannot be followed, which the model may have caught
    """

    def __init__(self, net: Any, rows: Collection[int]) -> None:
        super().__init__()
        self.net, self.rows = net, rows
        self.refused: Optional[PlacedError] = None
        self.open: Optional[Loop] = None
        self.joining = False
        # Where each tensor of a turn comes: its loop, turn and place.
        self.places: Dict[int, Tuple[Loop, int, int]] = {}

    @contextmanager
    def following(self) -> Iterator[None]:
        """For the time of an export."""
        _following.append(self)
        try:
            with self:
                yield
            if self.open is not None:  # it was left before its end
                self.open.refuse()
        finally:
            _following.remove(self)

    def begin(self, loop: Loop) -> None:
        """A loop begins."""
        if self.open is not None:
            self.open.refuse()  # a loop over time inside a loop over time
        self.open = loop

    def end(self, loop: Loop) -> None:
        """A loop ends, after two turns."""
        self.open, self.joining = None, True
        if loop.names[0] != loop.names[1]:
            loop.refuse()
        for target, dim, values in loop.writes.values():
            if len(values) != 2:
                loop.refuse()
            found = self._joined(values, dim)
            if found is None or str(found.shape) != str(target.shape):
                loop.refuse()
            target.copy_(found)
        self.joining = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named, name = kwargs or {}, getattr(func, "__name__", "")
        if self.open is not None:
            return self._in_turn(self.open, name, func, args, named)
        if self.places and not self.joining:
            if name in _JOINS and args and isinstance(args[0], (list, tuple)):
                dim = args[1] if len(args) > 1 else named.get("dim", named.get("axis", 0))
                parts = [part if name == "stack" else _squeezed(part, dim) for part in args[0]]
                if name == "stack" or all(part is not None for part in parts):
                    found = self._stacked(args[0], dim, name == "stack")
                    if found is not None:
                        return found
            for thing in pytree.tree_leaves((args, named)):
                if isinstance(thing, Tensor) and id(thing) in self.places and not name == "__get__":
                    self.places[id(thing)][0].refuse()  # what the last turn leaves
        return func(*args, **named)

    # ------------------------------------------------------------------ inside a loop

    def _in_turn(self, loop: Loop, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        turn = loop.turn
        assert turn is not None
        things = [thing for thing in pytree.tree_leaves((args, kwargs)) if isinstance(thing, Tensor)]
        if any(self.places.get(id(thing), (loop,))[0] is not loop for thing in things):
            loop.refuse()  # what an earlier loop leaves
        if any(id(thing) in loop.writes for thing in things):
            if name != "__setitem__" or id(args[0]) not in loop.writes or len(things) != 2:
                loop.refuse()
        if name == "__setitem__" and id(args[0]) not in self.places:
            return self._write(loop, turn, *args)
        if _in_place(name) and id(args[0]) not in self.places:
            loop.refuse()
        result = func(*args, **kwargs)
        for tensor in pytree.tree_leaves(result):
            if isinstance(tensor, Tensor) and not any(tensor is thing for thing in things):
                self.places[id(tensor)] = loop, turn, len(loop.made[turn])
                loop.made[turn].append(tensor)
                loop.names[turn].append(name)
        return result

    def _write(self, loop: Loop, turn: int, target: Tensor, index: Any, value: Any) -> None:
        items = list(index) if isinstance(index, tuple) else [index]
        at = next((i for i, item in enumerate(items) if item is Ellipsis), None)
        if at is not None:
            items[at : at + 1] = [slice(None)] * (target.dim() - len(items) + 1)
        dims = [i for i, item in enumerate(items) if isinstance(item, Turn)]
        plain = all(isinstance(item, Turn) or (isinstance(item, slice) and item == slice(None)) for item in items)
        if len(dims) != 1 or not plain or not isinstance(value, Tensor) or int.__index__(items[dims[0]]) != turn:
            loop.refuse()
        _, dim, values = loop.writes.setdefault(id(target), (target, dims[0], []))
        if dim != dims[0] or len(values) != turn:
            loop.refuse()
        values.append(value)

    # ------------------------------------------------------------------ after it

    def _stacked(self, parts: Any, dim: int, new: bool) -> Optional[Tensor]:
        known = [self.places.get(id(part)) for part in parts]
        if not any(known):
            return None
        first = next(place for place in known if place is not None)
        if None in known:
            first[0].refuse()
        rank = parts[0].dim() + (1 if new else 0)
        return self._joined(list(parts), dim % rank, new)

    def _joined(self, parts: List[Tensor], dim: int, new: bool = True) -> Optional[Tensor]:
        places = [place for place in (self.places.get(id(part)) for part in parts) if place is not None]
        if len(parts) != 2 or len(places) != 2:
            return None
        (loop, one, at), (other, two, there) = places
        if loop is not other or (one, two) != (0, 1) or at != there:
            loop.refuse()
        if not new:
            parts = [part.squeeze(dim) for part in parts]
        return torch.ops.torchstreamer.looped(*parts, *loop.made, loop.count, dim)


def _squeezed(part: Any, dim: int) -> Optional[Tensor]:
    return part if isinstance(part, Tensor) and part.dim() > 0 and part.shape[dim] == 1 else None


def _in_place(name: str) -> bool:
    if name.startswith("__"):
        return name == "__setitem__" or (name[2] == "i" and name not in ("__index__", "__invert__", "__int__"))
    return name.endswith("_")


def turns_of(count: Any) -> Any:
    """What a loop over a range of so many numbers goes over: two turns, if an export follows it.

    Returns:
        the turns, or ``None`` if nothing follows them
    """
    follower = _following[-1] if _following else None
    if follower is None or not isinstance(count, torch.SymInt) or count.node.hint in follower.rows:
        return None
    return Loop(follower, count, place_of(steps_to(sys._getframe(2)), follower.net))
