"""Loops over time that a model writes in Python: one turn is recorded, which stands for all of them.

While a model is exported, ``for t in range(T)`` runs once, with an index that can do nothing but take the sample of a
turn, ``x[:, t]``, and write one, ``y[:, t] = …``. Local tensors that a turn binds anew are the state, which the turn
gets as new values. If a turn leaves all else that it could depend on as it was, and the state's shapes too, then every
turn does the same, whatever the length of the signal. Where that is not so, the loop is refused, as one is that works
for one length.

In the graph stand the samples, the states, what a turn computes of them, and the end of the loop.
"""

# torch.library has no types.
# mypy: disable-error-code="no-untyped-call"

import ast
import ctypes
import sys
from types import FrameType
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from ..errors import UnsupportedModuleError
from .places import Place, loop_at, place_of, steps_to
from .symbolic_numbers import loops_at_work
from .unexportable import fixed_length

__all__ = ["Loops", "define_loops", "inside_loops"]

_JOINS = {"stack": False, "cat": True, "concat": True}
_CHANGES = frozenset(
    "append appendleft extend insert pop popleft popitem remove clear update setdefault discard".split()
)
_LEAVES = (ast.Break, ast.Return, ast.Yield, ast.YieldFrom, ast.Await, ast.Try, ast.With, ast.Delete, ast.Global)


def define_loops(library: Any) -> None:
    """Define the operators."""
    library.define("loop_sample(Tensor x, int dim, int loop) -> Tensor")
    library.define("loop_state(Tensor x, int loop) -> Tensor")
    library.define("loop_end(Tensor[] states, Tensor[] news, Tensor[] outs, SymInt turns, int loop) -> Tensor[]")
    torch.library.register_fake("torchstreamer::loop_sample", _sample, lib=library)
    torch.library.register_fake("torchstreamer::loop_state", lambda x, loop: x.new_empty(x.shape), lib=library)
    torch.library.register_fake("torchstreamer::loop_end", _ended, lib=library)


def _sample(x: Tensor, dim: int, loop: int) -> Tensor:
    return x.new_empty([size for axis, size in enumerate(x.shape) if axis != dim])


def _ended(
    states: Sequence[Tensor], news: Sequence[Tensor], outs: Sequence[Tensor], turns: Any, loop: int
) -> List[Tensor]:
    return [*(y.new_empty([turns, *y.shape]) for y in outs), *(y.new_empty(y.shape) for y in news)]


class _Turn:
    """The index of a turn, which is no number; ``ahead`` of it by 0 or 1, as the end of a slice."""

    def __init__(self, turns: "_Turns", ahead: int = 0) -> None:
        self.turns = turns
        self.ahead = ahead

    def __add__(self, other: Any) -> "_Turn":
        if other != 1 or self.ahead:
            self.turns.refuse()
        return _Turn(self.turns, 1)

    def _refuse(self, *args: Any) -> Any:
        self.turns.refuse()

    __index__ = __int__ = __float__ = __bool__ = __hash__ = __eq__ = __ne__ = __lt__ = __le__ = _refuse
    __gt__ = __ge__ = __sub__ = __radd__ = __rsub__ = __mul__ = __rmul__ = __mod__ = __floordiv__ = _refuse
    __truediv__ = __neg__ = __iter__ = __len__ = _refuse


class Loops(TorchFunctionMode):
    """While a model is exported, loops over its length run once.

    Args:
        net: the model
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.count = 0
        self.active: Optional[_Turns] = None
        self.collected: Dict[int, Tuple[Tensor, _Turns]] = {}

    def __enter__(self) -> Any:
        loops_at_work.append(self.turns)
        return super().__enter__()

    def __exit__(self, *args: Any) -> None:
        loops_at_work.remove(self.turns)
        super().__exit__(*args)

    def turns(self, stop: Any, frame: FrameType) -> Optional["_Turns"]:
        """The turns of a loop ``for t in range(stop)`` of a frame; ``None`` if it is no such loop."""
        place = place_of(steps_to(frame), self.net)
        loop = loop_at(place) if place.file == frame.f_code.co_filename else None
        if self.active is not None or loop is None or not _is_plain(loop):
            return None
        self.count += 1
        return _Turns(self, stop, frame, loop, place, self.count)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if self.active is not None and name in ("__getitem__", "__setitem__") and _has_turn(args[1]):
            return self.active.sample(*args) if name == "__getitem__" else self.active.write(*args)
        if self.collected and name not in ("__get__", "dim", "size"):
            given = [*args, *(kwargs or {}).values()]
            flat = [item for each in given for item in (each if isinstance(each, (list, tuple)) else [each])]
            found = next((self.collected[id(item)] for item in flat if id(item) in self.collected), None)
            if found is not None and isinstance(found[0], Tensor):
                dim = (kwargs or {}).get("dim", args[1] if len(args) > 1 else 0)
                if name not in _JOINS or len(flat) > 2 or not isinstance(given[0], (list, tuple)):
                    found[1].refuse()
                return _joined(found[0], dim, _JOINS[name])
        return func(*args, **(kwargs or {}))


def _joined(every: Tensor, dim: int, flat: bool) -> Tensor:
    """What all turns give, ``[turns, …]``, stacked along an axis, or laid one after the other along one."""
    rank = every.dim() - 1 if flat else every.dim()
    found = every.movedim(0, dim % rank)
    return found.flatten(dim % rank, dim % rank + 1) if flat else found


def _has_turn(index: Any) -> bool:
    items = index if isinstance(index, tuple) else (index,)
    parts = [part for item in items for part in ((item.start, item.stop) if isinstance(item, slice) else (item,))]
    return any(isinstance(part, _Turn) for part in parts)


class _Turns:
    """The one turn of a loop that is recorded."""

    def __init__(self, owner: Loops, stop: Any, frame: FrameType, loop: ast.For, place: Place, number: int) -> None:
        self.owner, self.stop, self.frame, self.place, self.number = owner, stop, frame, place, number
        self.names = sorted({each.id for each in _names(loop) if isinstance(each.ctx, ast.Store)})
        assert isinstance(loop.target, ast.Name)
        self.names.remove(loop.target.id)
        self.target = loop.target.id
        subscripts = [each for each in ast.walk(loop) if isinstance(each, ast.Subscript)]
        calls = [each.func for each in ast.walk(loop) if isinstance(each, ast.Call)]
        appends = [each.value for each in calls if isinstance(each, ast.Attribute) and each.attr == "append"]
        self.appended = {each.id for each in appends if isinstance(each, ast.Name)}
        stores = [each.value for each in subscripts if isinstance(each.ctx, ast.Store)]
        self.items = sorted({each.id for each in stores if isinstance(each, ast.Name)})
        self.writes: List[Tuple[Tensor, int, Tensor]] = []
        self.began = False

    def refuse(self) -> None:
        """Refuse the loop as one that the exporter would unroll."""
        self.owner.active = None
        raise fixed_length(self.place, int(self.stop.node.hint))

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if sys._getframe(1) is not self.frame:
            self.refuse()
        if self.began:
            self._end()
            raise StopIteration
        self.began, self.owner.active = True, self
        local = self.frame.f_locals
        if not all(isinstance(local.get(name), list) for name in self.appended):
            self.refuse()
        self.before = dict(local)
        self.lists = {name: _parts(value) for name, value in local.items() if isinstance(value, (list, dict, set))}
        self.versions = {n: v._version for n, v in local.items() if isinstance(v, Tensor) and n not in self.names}
        self.modules = _snapshot(self.owner.net)
        held = {name: pytree.tree_flatten(local[name]) for name in self.names if name in local}
        held = {name: (parts, form) for name, (parts, form) in held.items() if _are_tensors(parts)}
        self.forms = {name: form for name, (_, form) in held.items()}
        self.states = [self._state(part) for parts, _ in held.values() for part in parts]
        _bind(self.frame, local, self._formed(self.states))
        self.written = [local[n] for n in self.items if isinstance(local.get(n), list) and _are_tensors(local[n])]
        for each in self.written:
            each[:] = [self._state(part) for part in each]
            self.states += each
        return _Turn(self)

    def _state(self, x: Tensor) -> Tensor:
        found: Tensor = torch.ops.torchstreamer.loop_state(x, self.number)
        return found

    def _formed(self, parts: Sequence[Tensor]) -> Dict[str, Any]:
        found, at = {}, 0
        for name, form in self.forms.items():
            found[name] = pytree.tree_unflatten(list(parts[at : at + form.num_leaves]), form)
            at += form.num_leaves
        return found

    def _end(self) -> None:
        local = self.frame.f_locals
        outs: List[Tensor] = []
        grown: List[List[Any]] = []
        for name, value in self.before.items():
            now = local.get(name)
            if name == self.target or name in self.forms or any(value is each for each in self.written):
                continue
            if now is not value or (name in self.versions and now._version != self.versions[name]):
                self.refuse()
            if name in self.lists and _parts(value) != self.lists[name]:
                if not isinstance(value, list) or len(value) != len(self.lists[name]) + 1 or self.lists[name]:
                    self.refuse()
                if not any(value is each for each in grown):
                    grown.append(value)
                    outs.append(value[0])
        flat = {name: pytree.tree_flatten(local.get(name)) for name in self.forms}
        news = [part for parts, _ in flat.values() for part in parts] + [part for each in self.written for part in each]
        fits = len(news) == len(self.states) and all(flat[name][1] == form for name, form in self.forms.items())
        fits = fits and all(_alike(new, old) for new, old in zip(news, self.states, strict=True))
        if not fits or not all(isinstance(out, Tensor) for out in outs) or _snapshot(self.owner.net) != self.modules:
            self.refuse()
        outs += [value.expand(_without(x.shape, dim)).to(x.dtype) for x, dim, value in self.writes]
        if not outs:
            self.refuse()
        self.owner.active = None
        made = torch.ops.torchstreamer.loop_end(self.states, news, outs, self.stop, self.number)
        for place, every in zip(grown, made, strict=False):
            place[0] = every
            self.owner.collected[id(every)] = every, self
        for (x, dim, _), every in zip(self.writes, made[len(grown) :], strict=False):
            x.copy_(every.movedim(0, dim))
        last = list(made[len(outs) :])
        _bind(self.frame, local, self._formed(last))
        for each in reversed(self.written):
            each[:] = last[len(last) - len(each) :]
            del last[len(last) - len(each) :]

    # ------------------------------------------------------------------ inside a turn

    def sample(self, x: Tensor, index: Any) -> Tensor:
        """What ``x[…, t, …]`` is."""
        if any(x is each for each, _, _ in self.writes):
            self.refuse()
        whole, dim, sliced = self._placed(x, index)
        found: Tensor = torch.ops.torchstreamer.loop_sample(whole, dim, self.number)
        return found.unsqueeze(dim) if sliced else found

    def write(self, x: Tensor, index: Any, value: Any) -> None:
        """Keep what ``x[…, t, …] = value`` writes."""
        whole, dim, sliced = self._placed(x, index)
        if whole.dim() != x.dim() or not _same(whole.shape, x.shape) or not isinstance(value, Tensor):
            self.refuse()
        if any(x is each for each, _, _ in self.writes):
            self.refuse()
        self.writes.append((x, dim, value.squeeze(dim) if sliced and value.dim() == x.dim() else value))

    def _placed(self, x: Tensor, index: Any) -> Tuple[Tensor, int, bool]:
        # All of time, where it stands then, and whether it stays as an axis of one entry.
        items = list(index) if isinstance(index, tuple) else [index]
        taken = sum(item is not None and item is not Ellipsis for item in items)
        dim, found, sliced = 0, -1, False
        for i, item in enumerate(items):
            part = item.start if isinstance(item, slice) else item
            if isinstance(part, _Turn):
                if found >= 0 or part.ahead or part.turns is not self:
                    self.refuse()
                sliced = isinstance(item, slice)
                if sliced and not (isinstance(item.stop, _Turn) and item.stop.ahead and item.step is None):
                    self.refuse()
                found, items[i] = dim, slice(None)
            elif isinstance(item, (Tensor, list)) or (isinstance(item, slice) and isinstance(item.stop, _Turn)):
                self.refuse()
            dim += x.dim() - taken if item is Ellipsis else 0 if isinstance(items[i], int) else 1
        whole = x if all(item is Ellipsis or item == slice(None) for item in items) else x[tuple(items)]
        if found < 0 or not statically_known_true(whole.shape[found] == self.stop):
            self.refuse()
        return whole, found, sliced


def _parts(value: Any) -> List[Any]:
    return [id(each) for each in (value.values() if isinstance(value, dict) else value)]


def _are_tensors(parts: Sequence[Any]) -> bool:
    return len(parts) > 0 and all(isinstance(part, Tensor) for part in parts)


def _alike(new: Any, old: Tensor) -> bool:
    return isinstance(new, Tensor) and new.dtype == old.dtype and _same(new.shape, old.shape)


def _same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return len(one) == len(other) and all(statically_known_true(a == b) for a, b in zip(one, other, strict=True))


def _without(shape: Sequence[Any], dim: int) -> List[Any]:
    return [size for axis, size in enumerate(shape) if axis != dim]


def _bind(frame: FrameType, local: Dict[str, Any], values: Dict[str, Any]) -> None:
    """Give local names of a frame other values."""
    for name, value in values.items():
        local[name] = value
    if sys.version_info < (3, 13):
        ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))


def _snapshot(net: nn.Module) -> List[Any]:
    """What modules hold, by identity, and how often their tensors were written to."""
    found: List[Any] = []
    for module in net.modules():
        for name, value in vars(module).items():
            inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, set)) else ()
            found.append((name, id(value), [id(each) for each in inner]))
            found += [each._version for each in inner if isinstance(each, Tensor) and not each.is_inference()]
    return found


def _names(loop: ast.For) -> List[ast.Name]:
    return [each for each in ast.walk(loop) if isinstance(each, ast.Name)]


def _is_plain(loop: ast.For) -> bool:
    """Whether a loop's turns do nothing, as far as its source tells, but bind names, write items, append to lists."""
    call = loop.iter
    if not isinstance(loop.target, ast.Name) or loop.orelse or not isinstance(call, ast.Call):
        return False
    if not isinstance(call.func, ast.Name) or call.func.id != "range":
        return False
    for node in ast.walk(loop):
        if isinstance(node, _LEAVES) or (isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load)):
            return False
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "next":
            return False
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            appends = node.func.attr == "append" and isinstance(node.func.value, ast.Name)
            if node.func.attr in _CHANGES and not appends:
                return False
    return all(
        each.id != loop.target.id or isinstance(each.ctx, ast.Load) or each is loop.target for each in _names(loop)
    )


# ---------------------------------------------------------------------- the graph


def inside_loops(graph: fx.Graph, net: nn.Module) -> Dict[fx.Node, List[fx.Node]]:
    """The operations of a turn, in order, by the end of its loop.

    Raises:
        UnsupportedModuleError: something of the last turn is used after it
    """
    found: Dict[fx.Node, List[fx.Node]] = {}
    for end in graph.nodes:
        if end.op != "call_function" or getattr(end.target, "_opname", "") != "loop_end":
            continue
        region: Dict[fx.Node, None] = {}
        for node in graph.nodes:
            if node is end:
                break
            begins = getattr(node.target, "_opname", "") in ("loop_sample", "loop_state")
            if (begins and node.args[-1] == end.args[-1]) or any(each in region for each in node.all_input_nodes):
                region[node] = None
        if any(user not in region and user is not end for node in region for user in node.users):
            raise UnsupportedModuleError(
                "final_state",
                net,
                "a value of the last turn of its loop over time is used after it, which is known at the end of the "
                "signal only",
                "use what all turns give",
            )
        found[end] = list(region)
    return found
