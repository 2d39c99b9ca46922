"""How a handler that overrides ``forward`` takes part in trees of streams, whose containers call ``step``."""

import inspect
import types
import typing
from typing import Any, Callable, Optional

from torch import Tensor

__all__ = ["adopt_forward", "inherited_step", "scripted_class"]


def adopt_forward(cls: Any) -> None:
    """Make a ``step`` of the ``forward`` that a stream class defines itself.

    The class gets ``handle``, its ``forward`` under another name, a ``step`` that calls it in the rank of the signal,
    and a ``__call__`` with the checks of `BaseStream`.
    """
    forward = cls.__dict__["forward"]
    holder = _StepOfHandle.MayBeNone if _takes_none(forward) else _StepOfHandle.NeverNone
    cls.handle = _renamed(forward, "handle")
    cls.step = holder.step
    cls.__call__ = _guarded_call


class _StepOfHandle:
    # `step` for handlers that override `forward`, for one whose chunk is never None and for one whose chunk may be.
    # TorchScript names a method after its source, so both are called `step`.

    class NeverNone:
        def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
            if x is None:
                return None
            self._inside = True
            y = self.handle(x.squeeze(0) if self._unbatched else x, final)  # type: ignore[attr-defined]
            self._inside = False
            if y is None or y.size(-1) == 0:
                return None
            return y.unsqueeze(0) if self._unbatched else y  # type: ignore[attr-defined]

    class MayBeNone:
        def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
            if x is not None and self._unbatched:  # type: ignore[attr-defined]
                x = x.squeeze(0)
            self._inside = True
            y = self.handle(x, final)  # type: ignore[attr-defined]
            self._inside = False
            if y is None or y.size(-1) == 0:
                return None
            return y.unsqueeze(0) if self._unbatched else y  # type: ignore[attr-defined]


def _renamed(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A copy of a function under another name, which is the name that TorchScript gives the method."""
    twin = types.FunctionType(
        function.__code__, function.__globals__, name, function.__defaults__, function.__closure__
    )
    twin.__kwdefaults__ = function.__kwdefaults__
    twin.__annotations__ = function.__annotations__
    twin.__doc__ = function.__doc__
    return twin


def inherited_step(self: Any, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
    """What ``super().forward(x, final)`` does in a handler that overrides the ``forward`` of a built-in stream."""
    tables = [base.__dict__ for base in type(self).__mro__]
    step = next(table["step"] for table in tables if "step" in table and "handle" not in table)
    y = step(self, x.unsqueeze(0) if x is not None and self._unbatched else x, final)
    return y.squeeze(0) if y is not None and self._unbatched else y


def scripted_class(kind: Any, forward: Callable[..., Any]) -> Any:
    """The class of a handler in a script, where ``forward`` is compiled as it stands: so it is the one that checks."""
    methods = {"forward": forward, "step": kind.step, "__module__": kind.__module__}
    return type(kind.__name__, (kind,), methods)


def _guarded_call(self: Any, x: Optional[Tensor] = None, final: bool = False) -> Optional[Tensor]:
    """What ``stream(x, final)`` does for a handler that overrides ``forward``: the same checks as for all others."""
    return self._run_alone(x, final)


def _takes_none(forward: Callable[..., Any]) -> bool:
    """Whether the first argument of a handler's ``forward`` is annotated as one that may be ``None``."""
    name = list(inspect.signature(forward).parameters)[1]
    try:
        hint = typing.get_type_hints(forward).get(name)
    except NameError:  # a name of the annotation that exists only for type checkers
        hint = forward.__annotations__.get(name)
    if isinstance(hint, str):
        return "Optional" in hint or "None" in hint
    return type(None) in typing.get_args(hint)
