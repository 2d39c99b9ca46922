"""Numbers that a model keeps in tensors: lengths, strides and flags in buffers, and what is computed of them.

An exporter loses the number in ``torch.ceil(torch.tensor(x.shape[-1]) / 2).long()``, and fixes it in ``int(n * 2.5)``.
While a model is exported, every tensor that is made of sizes and of whole constants alone is followed as a number
beside; where a number is asked of it, that is given. Buffers that the model writes are no such numbers.
"""

import math
import operator
import sys
from typing import Any, Callable, Dict, FrozenSet, List, Optional, Set, Tuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import UnsupportedModuleError
from .places import place_of, steps_to
from .symbolic_numbers import as_float, as_whole, is_symbolic, python_type

__all__ = ["NumberTensors"]

_greatest: Any = torch.sym_max  # without types
_least: Any = torch.sym_min
_opposite: Any = torch.sym_not

_LONGEST = 8  # entries of a tensor that is followed

_MAKERS = frozenset(["tensor", "as_tensor", "scalar_tensor", "new_tensor"])
_SAME = frozenset(
    ["clone", "detach", "contiguous", "cpu", "cuda", "squeeze", "unsqueeze", "view", "reshape", "flatten"]
)
_CASTS = frozenset(["to", "type", "type_as", "long", "int", "short", "float", "double", "half"])
_ASKED = frozenset(["item", "__int__", "__index__", "__float__", "__bool__", "tolist", "__trunc__"])
# What takes whole numbers besides tensors.
_COUNTING = frozenset(
    [
        "narrow", "arange", "zeros", "ones", "empty", "full", "new_zeros", "new_ones", "new_empty", "new_full", "rand",
        "randn", "split", "chunk", "unfold", "repeat_interleave", "linspace", "range", "interpolate", "repeat",
        "expand",
    ]
)  # fmt: skip


def _quotient(x: Any, y: Any, rounding_mode: Optional[str] = None) -> Any:
    if rounding_mode is None:
        return as_float(x) / y
    return x // y if rounding_mode == "floor" else NotImplemented


def _rounded(function: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda x: function(x) if isinstance(x, (float, torch.SymFloat)) else x


def _clamped(x: Any, min: Any = None, max: Any = None) -> Any:
    x = x if min is None else _greatest(x, min)
    return x if max is None else _least(x, max)


_COMPUTED: Dict[str, Callable[..., Any]] = {
    "add": lambda x, y, alpha=1: x + alpha * y,
    "sub": lambda x, y, alpha=1: x - alpha * y,
    "subtract": lambda x, y: x - y,
    "rsub": lambda x, y: y - x,
    "mul": operator.mul,
    "multiply": operator.mul,
    "div": _quotient,
    "divide": _quotient,
    "true_divide": _quotient,
    "floor_divide": operator.floordiv,
    "remainder": operator.mod,
    "fmod": lambda x, y: NotImplemented,
    "neg": operator.neg,
    "abs": lambda x: _greatest(x, -x),
    "ceil": _rounded(math.ceil),
    "floor": _rounded(math.floor),
    "trunc": _rounded(math.trunc),
    "round": _rounded(round),
    "maximum": _greatest,
    "minimum": _least,
    "clamp": _clamped,
    "clip": _clamped,
    "clamp_min": lambda x, y: _greatest(x, y),
    "clamp_max": lambda x, y: _least(x, y),
    "square": lambda x: x * x,
    "logical_not": lambda x: _opposite(x) if isinstance(x, torch.SymBool) else x == 0,
    "bitwise_not": lambda x: not x if isinstance(x, bool) else NotImplemented,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}
for _name in ("add", "sub", "mul"):
    _COMPUTED[f"__{_name}__"] = _COMPUTED[f"__i{_name}__"] = _COMPUTED[_name]
_COMPUTED.update(
    {
        "__radd__": lambda x, y: y + x,
        "__rsub__": lambda x, y: y - x,
        "__rmul__": lambda x, y: y * x,
        "__truediv__": _quotient,
        "__div__": _quotient,
        "__rtruediv__": lambda x, y: as_float(y) / x,
        "__rdiv__": lambda x, y: as_float(y) / x,
        "__floordiv__": operator.floordiv,
        "__rfloordiv__": lambda x, y: y // x,
        "__mod__": operator.mod,
        "__rmod__": lambda x, y: y % x,
        "__neg__": operator.neg,
        "__invert__": _COMPUTED["bitwise_not"],
        **{f"__{name}__": getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    }
)


_IN_PLACE = frozenset(
    f"__{name}__" for name in ("add sub mul div truediv floordiv mod pow and or xor lshift rshift".split())
)


class NumberTensors(TorchFunctionMode):
    """While a model is exported, follows the numbers in its small tensors.

    Args:
        net: the model, whose buffers of a few whole numbers are such
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.buffers: Dict[str, Any] = {
            name: buffer.tolist()
            for name, buffer in net.named_buffers()
            if not buffer.dtype.is_floating_point
            and not buffer.dtype.is_complex
            and buffer.numel() <= _LONGEST
            and not buffer.is_meta
        }
        # Of each tensor its number, and the buffers that this is made of.
        self.known: Dict[int, Tuple[Tensor, Any, FrozenSet[str]]] = {}
        self._own = {name: buffer for name, buffer in net.named_buffers() if name in self.buffers}
        self._first: Dict[str, Tensor] = {}  # the exporter's own buffers, which a model may replace
        self._told: Set[str] = set()  # buffers whose numbers were asked for
        self._changed: Set[str] = set()  # buffers that were written

    def number(self, thing: Any) -> Any:
        """The number or numbers that a thing is; ``None`` if that is not known."""
        if not isinstance(thing, Tensor):
            return thing if isinstance(thing, (int, float, torch.SymInt, torch.SymFloat)) else None
        if id(thing) in self.known:
            return self.known[id(thing)][1]
        name = self._buffer(thing)
        if name is not None:
            return self.buffers[name]
        constant = getattr(thing, "constant", None)
        if isinstance(constant, Tensor) and constant.dim() == 0:
            return constant.item()
        return None

    def _sources(self, *things: Any) -> FrozenSet[str]:
        """The buffers that numbers are made of."""
        found: Set[str] = set()
        for thing in things:
            if isinstance(thing, (list, tuple)):
                found |= self._sources(*thing)
            elif isinstance(thing, Tensor):
                name = self._buffer(thing)
                found |= {name} if name is not None else self.known[id(thing)][2] if id(thing) in self.known else set()
        return frozenset(found)

    def _tell(self, thing: Any) -> None:
        """Note that the number of a tensor decides something.

        Raises:
            UnsupportedModuleError: the model has written it
        """
        self._told |= self._sources(thing)
        self._require_constant()

    def changed(self, name: str) -> None:
        """Note that the model writes a buffer.

        Raises:
            UnsupportedModuleError: it has asked for its number
        """
        if name in self._own:
            self.buffers.pop(name, None)
            self._changed.add(name)
            self._require_constant()

    def _require_constant(self) -> None:
        both = self._told & self._changed
        if both:
            place = place_of(steps_to(sys._getframe(1)), self.net)
            error = UnsupportedModuleError(
                "data_dependent",
                place.module,
                f"it asks for the value of its buffer '{min(both)}', and writes it (at {place.text}), so that what it "
                "does depends on the calls before",
                "write it in training mode only, or outside of forward",
            )
            error.path = place.path
            raise error

    def _buffer(self, thing: Tensor) -> Optional[str]:
        """The name of the buffer that a tensor is, if that has the value that it had before."""
        if not self.buffers:
            return None
        if not self._first:
            held = {name: buffer for name, buffer in self.net.named_buffers() if name in self._own}
            if any(buffer is self._own[name] for name, buffer in held.items()):
                return None  # not yet those of the exporter
            self._first = held
        found = [name for name, buffer in self._first.items() if buffer is thing]
        return found[0] if len(found) == 1 and found[0] in self.buffers else None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {key: python_type(value) for key, value in (kwargs or {}).items()}
        args = [python_type(arg) for arg in args]
        name = getattr(func, "__name__", "")
        if name in _MAKERS:
            return self._made(func, name, args, kwargs)
        if name in _ASKED and args:
            found = _single(name, self.number(args[0]))
            if found is not None:
                self._tell(args[0])
            if found is not None and not (name == "__bool__" and is_symbolic(found)):
                return self._asked(name, found)
            if found is not None:
                return bool(found != 0) if not isinstance(found, torch.SymBool) else bool(found)
            return func(*args, **kwargs)
        if self.known or self.buffers:
            written = kwargs.get("out") if isinstance(kwargs.get("out"), Tensor) else None
            if written is not None or _writes(name) and args and isinstance(args[0], Tensor):
                return self._written(func, name, args, kwargs, written)
            value = self._computed(name, args, kwargs)
            if value is not None and value is not NotImplemented:
                return self._kept(func(*args, **kwargs), value, self._sources(args, list(kwargs.values())))
            args, kwargs = self._with_numbers(name, args, kwargs)
        return func(*args, **kwargs)

    def _made(self, func: Any, name: str, args: Any, kwargs: Dict[str, Any]) -> Any:
        data = args[1] if name == "new_tensor" else (args[0] if args else kwargs.get("data"))
        numbers = self._numbers(data)
        if numbers is None or isinstance(numbers, list) and (len(numbers) > _LONGEST or not numbers):
            return func(*args, **kwargs)
        dtype = kwargs.get("dtype", args[1] if name == "as_tensor" and len(args) > 1 else None)
        items = numbers if isinstance(numbers, list) else [numbers]
        if not any(is_symbolic(item) for item in items):
            return self._kept(func(*args, **kwargs), numbers, self._sources(data))
        if dtype is None:
            whole = all(isinstance(item, (int, torch.SymInt)) for item in items)
            dtype = torch.int64 if whole else torch.get_default_dtype()
        parts = [torch.full((), item, dtype=dtype) for item in items]
        return self._kept(torch.stack(parts) if isinstance(numbers, list) else parts[0], numbers, self._sources(data))

    def _numbers(self, data: Any) -> Any:
        if isinstance(data, (list, tuple, torch.Size)):
            found = [self.number(item) for item in data]
            return None if any(item is None or isinstance(item, list) for item in found) else found
        return self.number(data)

    def _kept(self, tensor: Any, number: Any, sources: FrozenSet[str] = frozenset()) -> Any:
        if not isinstance(tensor, Tensor) or not _fits(tensor, number):
            return tensor
        if tensor.dtype is torch.bool:
            number = _mapped(_truth, number)
        elif not tensor.dtype.is_floating_point:
            number = _mapped(as_whole, number)
        self.known[id(tensor)] = tensor, number, sources
        return tensor

    def _written(self, func: Any, name: str, args: Any, kwargs: Dict[str, Any], out: Optional[Tensor]) -> Any:
        """What a tensor is written in place with is its number from then on; of its views no number is known then."""
        tensor = args[0] if out is None else out
        value = self._put(name, args, kwargs) if out is None else None
        sources = self._sources(args, list(kwargs.values()))
        result = func(*args, **kwargs)
        memory = _memory(tensor)
        self.known = {key: known for key, known in self.known.items() if _memory(known[0]) != memory}
        for name, buffer in self.net.named_buffers():
            if name in self._own and _memory(buffer) == memory:
                self.buffers.pop(name, None)
                self._changed.add(name)
                sources |= {name}
        self._require_constant()
        if value is not None and value is not NotImplemented:
            self._kept(tensor, value, sources)
        return result

    def _put(self, name: str, args: Any, kwargs: Dict[str, Any]) -> Any:
        """The number that is written; ``None`` if it is not known."""
        first = self.number(args[0])
        if name == "__setitem__":
            value = self.number(args[2])
            if not isinstance(first, list) or type(args[1]) is not int or value is None or isinstance(value, list):
                return None
            return [value if i == args[1] % len(first) else each for i, each in enumerate(first)]
        if isinstance(first, list) or args[0].dim() > 0:
            return None
        if name == "zero_":
            return 0
        if name in ("fill_", "copy_"):
            return self.number(args[1]) if len(args) == 2 and not kwargs else None
        return self._computed(name if name.startswith("__") else name[:-1], args, kwargs)

    def _asked(self, name: str, found: Any) -> Any:
        if name == "tolist" or name == "item":
            return found
        if name == "__bool__":
            return bool(found)
        return float(found) if name == "__float__" else int(found)

    def _computed(self, name: str, args: Any, kwargs: Dict[str, Any]) -> Any:
        """The number that an operation gives; ``None`` if it is not known."""
        if name == "stack" and len(args) == 1 and isinstance(args[0], (list, tuple)):
            return self._numbers(args[0])
        if not args or not any(isinstance(arg, Tensor) for arg in args):
            return None
        first = self.number(args[0])
        if first is None:
            return None
        if name in _SAME or name in _CASTS:
            return first
        if name == "__getitem__" and isinstance(first, list) and isinstance(args[1], (int, slice)):
            return first[args[1]]
        if name in ("select", "select.int") and isinstance(first, list) and len(args) == 3:
            return first[args[2]] if isinstance(args[2], int) else None  # as the exporter writes [i]
        if name in ("max", "min", "sum", "prod", "amax", "amin", "all", "any") and len(args) == 1 and not kwargs:
            return _gathered(name, first if isinstance(first, list) else [first])
        function = _COMPUTED.get(name)
        if function is None or isinstance(first, list):
            return None
        others = [self.number(arg) for arg in args[1:]]
        named = {key: value if isinstance(value, str) else self.number(value) for key, value in kwargs.items()}
        if any(each is None or isinstance(each, list) for each in [*others, *named.values()]):
            return None
        return function(first, *others, **named)

    def _with_numbers(self, name: str, args: Any, kwargs: Dict[str, Any]) -> Any:
        """Arguments with numbers in the place of tensors where these count something."""

        def within(thing: Any, counts: bool) -> Any:
            if isinstance(thing, Tensor):
                found = self.number(thing) if counts and thing.dim() == 0 and not thing.is_floating_point() else None
                if found is not None:
                    self._tell(thing)
                return thing if found is None else found
            if isinstance(thing, slice):
                return slice(*(within(each, True) for each in (thing.start, thing.stop, thing.step)))
            if isinstance(thing, (list, tuple)) and not isinstance(thing, torch.Size) and type(thing) in (list, tuple):
                tensors = any(isinstance(each, Tensor) and each.dim() > 0 for each in thing)
                return type(thing)(within(each, not tensors) for each in thing)
            return thing

        if name in ("stack", "cat", "concat", "hstack", "vstack"):
            return args, kwargs
        counts = name in _COUNTING
        new = [
            within(arg, counts and not (i == 0 and isinstance(arg, Tensor) and arg.dim() > 0))
            for i, arg in enumerate(args)
        ]
        return new, {key: within(value, counts) for key, value in kwargs.items()}


def _writes(name: str) -> bool:
    """Whether an operation writes into its first argument."""
    if name.startswith("__"):
        return name == "__setitem__" or name[2] == "i" and f"__{name[3:]}" in _IN_PLACE
    return name.endswith("_")


def _memory(tensor: Tensor) -> int:
    # What a tensor shares with its views.
    return int(tensor.untyped_storage()._cdata)


def _single(name: str, found: Any) -> Any:
    """The number that is asked for, of a tensor of one entry, whatever its axes; ``None`` of one of several."""
    while isinstance(found, list) and name != "tolist":
        found = found[0] if len(found) == 1 else None
    return found


def _fits(tensor: Tensor, number: Any) -> bool:
    """Whether a tensor has as many entries as numbers are known."""
    if not all(isinstance(size, int) for size in tensor.shape):
        return False
    if not isinstance(number, list):
        return tensor.numel() == 1
    return tensor.dim() == 1 and len(number) == len(tensor) and not any(isinstance(each, list) for each in number)


def _mapped(function: Callable[[Any], Any], number: Any) -> Any:
    return [_mapped(function, each) for each in number] if isinstance(number, list) else function(number)


def _truth(number: Any) -> Any:
    return number if isinstance(number, (bool, torch.SymBool)) else number != 0


def _gathered(name: str, numbers: List[Any]) -> Any:
    if name in ("all", "any"):
        fits = not any(is_symbolic(number) or isinstance(number, list) for number in numbers)
        return {"all": all, "any": any}[name](numbers) if fits else None
    if name in ("max", "amax", "min", "amin"):
        function = _greatest if "max" in name else _least
    else:
        function = operator.add if name == "sum" else operator.mul
    found = numbers[0]
    for each in numbers[1:]:
        found = function(found, each)
    return found
