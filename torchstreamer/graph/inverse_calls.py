"""`torch.istft` stays whole in a capture: the exporter would take it apart, and ask values of its envelope."""

# torch.library has no types.
# mypy: disable-error-code="no-untyped-call"

from typing import Any, Optional

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["WholeInverses", "define_inverses"]


def define_inverses(library: Any) -> None:
    """Define the operator."""
    library.define(
        "istft(Tensor x, int n_fft, int hop_length, int win_length, Tensor? window, bool center, bool normalized, "
        "SymInt? length) -> Tensor"
    )
    torch.library.register_fake("torchstreamer::istft", _shape, lib=library)


def _shape(
    x: Tensor,
    n_fft: int,
    hop_length: int,
    win_length: int,
    window: Optional[Tensor],
    center: bool,
    normalized: bool,
    length: Any,
) -> Tensor:
    if length is None:
        length = n_fft + hop_length * (x.shape[-1] - 1) - (2 * (n_fft // 2) if center else 0)
    return x.new_empty([*x.shape[:-2], length], dtype=x.dtype.to_real())


def _bound(
    input: Tensor,
    n_fft: int,
    hop_length: Optional[int] = None,
    win_length: Optional[int] = None,
    window: Optional[Tensor] = None,
    center: bool = True,
    normalized: bool = False,
    onesided: Optional[bool] = None,
    length: Any = None,
    return_complex: bool = False,
) -> Any:
    if return_complex or not input.is_complex() or (window is not None and window.is_complex()):
        return None
    bins, known = input.shape[-2], onesided is None or isinstance(onesided, bool)
    if not known or bins != (n_fft if onesided is False else n_fft // 2 + 1):
        return None  # torch says what is wrong
    if onesided is False:  # of a real signal the other bins follow from the first half
        input = input.narrow(-2, 0, n_fft // 2 + 1)
    hop, width = hop_length or n_fft // 4, win_length or n_fft
    return input, n_fft, hop, width, window, center, normalized, length


class WholeInverses(TorchFunctionMode):
    """While a model is exported, calls of `torch.istft` are calls of our own."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if func is torch.istft or func is torch.Tensor.istft:
            bound = _bound(*args, **named)
            if bound is not None:
                return torch.ops.torchstreamer.istft(*bound)
        return func(*args, **named)
