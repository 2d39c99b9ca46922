"""In which mode torch runs, and whether a step is recorded. TorchScript compiles this file."""

from contextlib import contextmanager
from threading import RLock, get_ident
from typing import Iterator

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.jit import is_scripting

__all__ = [
    "autocasting",
    "compiling",
    "in_place",
    "inference_mode",
    "plain_inference",
    "recorded_form",
    "recording",
    "settled",
    "tracing",
]


def autocasting(x: Tensor) -> bool:
    """Whether torch may change the dtype of what is computed from ``x``."""
    if is_scripting():
        # A script can ask for the mode on CUDA only, so look at what a product gives.
        one = torch.ones([1, 1], device=x.device)
        return torch.mm(one, one).dtype != one.dtype
    else:
        return not x.is_meta and torch.is_autocast_enabled(x.device.type)


class _Tracing:
    # While a step is recorded, the form of its products, and the thread that does it; not known to scripts.
    form = ""
    thread = 0
    turn = RLock()


@contextmanager
def tracing(form: str) -> Iterator[None]:
    """While this is open, streams compute nothing in place, and convolutions in one form.

    Args:
        form: ``"rows"``, products of rows; ``"unfolded"``, one product each however long the chunk; ``"winograd"``,
            with fewer multiplications where that pays, else as unfolded; or ``"channels"``, as torch's convolution
    """
    with _Tracing.turn:
        before = _Tracing.form
        _Tracing.thread = get_ident()
        _Tracing.form = form
        try:
            yield
        finally:
            _Tracing.form = before


def recorded_form() -> str:
    """The form in which a step is recorded, ``""`` while none is."""
    form = _Tracing.form
    # Streams of other threads go on as ever meanwhile.
    return form if not form or _Tracing.thread == get_ident() else ""


def plain_inference() -> bool:
    """Whether products of rows with packed weights may be taken: gradients are off, and nothing else is traced."""
    if torch.is_grad_enabled():
        return False
    if not is_scripting():
        # A write position that changes with every chunk would be compiled, or exported, as a constant.
        return not is_compiling() and (not _Tracing.form or recorded_form() != "channels")
    return True


def in_place() -> bool:
    """Whether rings may be written in place, as far as a recording is concerned."""
    if not is_scripting():
        return not _Tracing.form or not recorded_form()
    return True


def settled() -> bool:
    """Both `plain_inference` and `in_place`, which cost a short step more one by one."""
    if torch.is_grad_enabled():
        return False
    if not is_scripting():
        return not is_compiling() and (not _Tracing.form or not recorded_form())
    return True


def recording() -> bool:
    """Whether a step is recorded or compiled, so that nothing may be decided by values."""
    if not is_scripting():
        return is_compiling() or recorded_form() != ""
    return False


def compiling() -> bool:
    """Whether torch compiles or exports this, so that nothing may be kept that is made now."""
    if not is_scripting():
        return is_compiling()
    return False


def inference_mode(x: Tensor) -> bool:
    """Whether tensors made now are inference tensors; ``x`` is any tensor."""
    if is_scripting():
        # Of constants alone, TorchScript would compute this once for ever.
        return x.new_empty([0]).is_inference()
    else:
        return torch.is_inference_mode_enabled()
