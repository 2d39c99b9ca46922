"""`torch.vmap` of functions of single entries, as masks are made of positions: in an export, one call on all entries.

The exporter does not follow what `torch.vmap` maps over sizes that are symbols. A function that does nothing but
operations on single entries, and takes entries of tensors by positions, gives by broadcasting what it gives entry by
entry. Whether it does is watched while it runs; any other is mapped as ever.
"""

from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Tuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .exporter_patches import replaced

__all__ = ["mapped_at_once"]

_DOUBLE = "add sub mul truediv floordiv mod pow and or xor lshift rshift".split()
_ENTRYWISE = frozenset(
    [f"__{side}{name}__" for name in _DOUBLE for side in ("", "r")]
    + "__div__ __rdiv__ __invert__ __neg__ __abs__ __eq__ __ne__ __lt__ __le__ __gt__ __ge__".split()
    + "add sub subtract mul multiply div divide true_divide floor_divide remainder fmod pow neg negative abs".split()
    + "eq ne lt le gt ge greater greater_equal less less_equal not_equal isfinite isnan isinf sign square sqrt".split()
    + "logical_and logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor bitwise_not".split()
    + "where minimum maximum clamp clip clamp_min clamp_max floor ceil trunc round exp log sin cos".split()
    + "to bool int long float double type type_as clone detach contiguous zeros_like ones_like full_like".split()
)
_SCALARS = frozenset(["new_ones", "new_zeros", "new_full", "new_tensor", "tensor", "ones", "zeros", "full"])
_TOLD = frozenset(["device", "dtype", "layout", "is_cuda", "requires_grad"])


class _Other(Exception):
    """A function does something else than operations on single entries."""


class _Entrywise(TorchFunctionMode):
    """Watches a function.

    Args:
        given: what it takes
        rank: axes of the result
    """

    def __init__(self, given: Tuple[Any, ...], rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.made: Dict[int, Any] = {id(each): each for each in given}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__" and getattr(getattr(func, "__self__", None), "__name__", "") in _TOLD:
            return func(*args, **named)
        if name == "__getitem__":
            found = self._entry(args[0], args[1])
        elif name in _ENTRYWISE:
            if "dim" in named or "out" in named:
                raise _Other
            found = func(*map(self._operand, args), **{key: self._operand(arg) for key, arg in named.items()})
        elif name in _SCALARS:
            found = func(*args, **named)
            if not isinstance(found, Tensor) or found.dim() != 0:
                raise _Other
        else:
            raise _Other
        self.made[id(found)] = found
        return found

    def _operand(self, arg: Any) -> Any:
        # Entries have no axes, and dtypes meet as such; a vector of the model's would be one for each entry.
        if isinstance(arg, Tensor) and id(arg) not in self.made and arg.dim() > 0:
            raise _Other
        return arg.reshape([1] * self.rank) if isinstance(arg, Tensor) and arg.dim() == 0 else arg

    def _entry(self, x: Tensor, index: Any) -> Tensor:
        """An entry of a tensor that is not mapped, by positions."""
        places = list(index) if isinstance(index, tuple) else [index]
        known = all(isinstance(place, (int, Tensor)) and not isinstance(place, bool) for place in places)
        if id(x) in self.made or not known or len(places) != x.dim():
            raise _Other
        tensors = [place if isinstance(place, Tensor) else torch.full((), place) for place in places]
        if any(place.dtype in (torch.bool, torch.uint8) or place.is_floating_point() for place in tensors):
            raise _Other
        found: Tensor = torch.ops.aten.index.Tensor(x, tensors)
        return found


class _Mapped:
    """A function mapped over an axis of its arguments; ``plain`` is what maps as ever."""

    def __init__(self, plain: Any, function: Callable[..., Any], in_dims: Any, out_dims: Any, options: Any) -> None:
        self.plain, self.function = plain, function
        self.in_dims, self.out_dims, self.options = in_dims, out_dims, options

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not kwargs:
            try:
                return self._at_once(args)
            except _Other:
                pass
        return self._as_ever()(*args, **kwargs)

    def _as_ever(self) -> Any:
        inner = self.function._as_ever() if isinstance(self.function, _Mapped) else self.function
        return self.plain(inner, self.in_dims, self.out_dims, **self.options)

    def _at_once(self, args: Tuple[Any, ...]) -> Tensor:
        function: Any = self
        order: List[int] = []  # of the arguments, by the axis of the result
        while isinstance(function, _Mapped):
            dims = function.in_dims
            mapped = [i for i, dim in enumerate(dims) if dim is not None] if isinstance(dims, (tuple, list)) else []
            if len(mapped) != 1 or dims[mapped[0]] != 0 or len(dims) != len(args) or function.out_dims != 0:
                raise _Other
            order += mapped
            function = function.function
        if len(set(order)) != len(order):
            raise _Other
        given: List[Any] = []
        for i, arg in enumerate(args):
            if not isinstance(arg, Tensor) or arg.dim() != (i in order):
                raise _Other
            at = order.index(i) if i in order else 0
            given.append(arg.reshape([1] * at + [-1] + [1] * (len(order) - 1 - at)) if i in order else arg)
        with _Entrywise(tuple(given), len(order)):
            found = function(*given)
        if not isinstance(found, Tensor):
            raise _Other
        return found.expand([args[i].shape[0] for i in order])


@contextmanager
def mapped_at_once() -> Iterator[None]:
    """While a model is exported, functions of single entries are mapped by broadcasting."""
    with replaced(torch, "vmap", _mapper(torch.vmap)), replaced(torch.func, "vmap", _mapper(torch.func.vmap)):
        yield


def _mapper(plain: Any) -> Any:
    def mapped(func: Any, in_dims: Any = 0, out_dims: Any = 0, **options: Any) -> Any:
        return _Mapped(plain, func, in_dims, out_dims, options)

    return mapped
