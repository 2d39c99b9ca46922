"""Arguments of what is made here: of the right kind, and with values where torch makes tensors without."""

import functools
import inspect
import re
from numbers import Real
from typing import Any, Callable, Optional, Sequence, Tuple, TypeVar, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from ..core.whole_numbers import as_index
from ..errors import StreamInputError

__all__ = ["configured"]

Made = TypeVar("Made", bound=Callable[..., Any])


def configured(made: Made) -> Made:
    """Check the arguments of a function, or of the constructor of a class, by their annotations; a decorator.

    Where the default device is ``meta``, it computes on the CPU. Windows and tables follow from numbers, so a module
    that is made there has them at once; memory that comes later, by ``to_empty``, gets them too.

    Raises:
        StreamInputError: when called: ``invalid_argument``, an argument is of another kind; ``no_values``, one is a
            tensor on the meta device
    """
    inner: Any = made.__init__ if isinstance(made, type) else made  # type: ignore[misc]
    name, kinds, signature = made.__name__, get_type_hints(inner), inspect.signature(inner)

    @functools.wraps(inner)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            found = _with_values(inner, args, kwargs)
        except Exception as error:
            if not re.match(r"[a-z]\w*: ", str(error)):  # else it is one of ours
                _check(name, kinds, signature, args, kwargs, error)
            raise
        _check(name, kinds, signature, args, kwargs, None)
        return found

    if isinstance(made, type):
        made.__init__ = run  # type: ignore[misc]
        return made
    return run  # type: ignore[return-value]


def _with_values(inner: Any, args: Sequence[Any], kwargs: Any) -> Any:
    if torch.get_default_device().type != "meta":
        return inner(*args, **kwargs)
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.is_meta:
            raise StreamInputError(
                f"no_values: a tensor {list(value.shape)} on the meta device came; one with values was expected, since "
                "tables are computed from it; make it with device='cpu'"
            )
    with torch.device("cpu"):
        return inner(*args, **kwargs)


def _check(
    made: str, kinds: Any, signature: inspect.Signature, args: Any, kwargs: Any, error: Optional[Exception]
) -> None:
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError:  # too many, or unknown names, which Python tells well
        return
    for name, value in given.items():
        kind = kinds.get(name, Any)
        if signature.parameters[name].kind == inspect.Parameter.VAR_KEYWORD or _fits(value, kind):
            continue
        raise StreamInputError(
            f"invalid_argument: {made}({name}={value!r:.80}) came; {' or '.join(_words(kind))} was expected; pass that"
        ) from error


def _fits(value: Any, kind: Any) -> bool:
    origin = get_origin(kind)
    if kind is Any:
        return True
    if origin is Union:
        return any(_fits(value, each) for each in get_args(kind))
    if kind is int:
        return as_index(value) is not None
    if kind is float:
        return isinstance(value, Real) and not isinstance(value, bool)
    if origin is tuple:
        parts = get_args(kind)
        return isinstance(value, tuple) and len(value) == len(parts) and all(map(_fits, value, parts))
    if origin is not None:  # a sequence, or an array
        if hasattr(value, "__array__"):
            return True
        inner = next(iter(get_args(kind)), Any)
        return isinstance(value, (list, tuple)) and all(_numeric(each, inner) for each in value)
    return isinstance(value, kind)


def _numeric(value: Any, kind: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_numeric(each, kind) for each in value)
    return hasattr(value, "__array__") or _fits(value, float if kind is Any else kind)


def _words(kind: Any) -> Tuple[str, ...]:
    if get_origin(kind) is Union:
        return tuple(word for each in get_args(kind) for word in _words(each))
    if get_origin(kind) is tuple:
        return (f"a pair of {get_args(kind)[0].__name__}",)
    if get_origin(kind) is not None:
        return ("a list of numbers",)
    known = {int: "a whole number", float: "a number", str: "a name", bool: "True or False", type(None): "None"}
    return (known.get(kind, f"a {kind.__name__}"),)
