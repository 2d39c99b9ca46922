"""For the time of an export, what draws random numbers for single samples or channels, as operations of this package.

The exporter would take them apart into random numbers for the whole signal.
"""

# torch.library has no types.
# mypy: disable-error-code="no-untyped-call"

from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..core.frozen import recorded_in_training

__all__ = ["draws_whole"]

_library: List[Any] = []
_Draw = Tuple[Tensor, str, float, float, bool]


def _define() -> None:
    # Once a process, at the first capture in training mode.
    if not _library:
        library = torch.library.Library("torchstreamer", "FRAGMENT")
        library.define("chance(Tensor x, str kind, float a, float b) -> Tensor")
        torch.library.register_fake("torchstreamer::chance", lambda x, kind, a, b: torch.empty_like(x), lib=library)
        _library.append(library)


@contextmanager
def draws_whole(net: nn.Module) -> Iterator[None]:
    """For the time of an export, let each dropout of a twin be a single operation; other networks stay as they are."""
    with recorded_in_training(net) as random:
        if random:
            _define()
            with _Draws():
                yield
        else:
            yield


class _Draws(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if func in _DRAWS:
            draw = _DRAWS[func](*args, **named)
            if draw is not None:
                x, kind, a, b, inplace = draw
                y = torch.ops.torchstreamer.chance(x, kind, a, b)
                return x.copy_(y) if inplace else y
        return func(*args, **named)


def _dropped(kind: str, axes: Callable[[int], int] = lambda rank: 0, default: float = 0.5) -> Callable[..., Any]:
    def bound(
        input: Tensor, p: float = default, training: bool = True, inplace: bool = False, train: Optional[bool] = None
    ) -> Optional[_Draw]:
        if train is not None:
            training = train
        # torch itself refuses what is no probability.
        return (input, kind, p, axes(input.dim()), inplace) if training and 0 < p <= 1 else None

    return bound


def _slopes(
    input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False
) -> Optional[_Draw]:
    return (input, "slopes", lower, upper, inplace) if training else None


def _not_unless_asked(bound: Callable[..., Any]) -> Callable[..., Any]:
    def asked(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Optional[_Draw]:
        found: Optional[_Draw] = bound(input, p, training, inplace)
        return found

    return asked


# How many of the first axes have a mask of their own.
_CHANNELS = _dropped("mask", lambda rank: 2)
_DRAWS: Dict[Any, Callable[..., Any]] = {
    F.dropout: _dropped("dropout"),
    torch.dropout: _dropped("dropout"),
    F.alpha_dropout: _not_unless_asked(_dropped("alpha")),
    torch.alpha_dropout: _dropped("alpha"),
    F.dropout1d: _dropped("mask", lambda rank: 1 if rank == 2 else 2),
    F.dropout2d: _CHANNELS,
    F.dropout3d: _dropped("mask", lambda rank: 2 if rank == 5 else 1),
    torch.feature_dropout: _CHANNELS,
    F.feature_alpha_dropout: _not_unless_asked(_dropped("alpha mask", lambda rank: 2)),
    torch.feature_alpha_dropout: _dropped("alpha mask", lambda rank: 2),
    F.rrelu: _slopes,
    torch.rrelu: _slopes,
}
