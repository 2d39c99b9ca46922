"""`StreamModule`: a module that is patched as soon as it has been made."""

from abc import ABCMeta
from typing import Any

from torch import nn

from ..core.patched import is_patched
from .online import put_patch, set_online

__all__ = ["StreamModule"]


class _Patching(ABCMeta):
    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__call__(*args, **kwargs)
        if isinstance(made, nn.Module) and not is_patched(made):
            put_patch(made, {})
        return made


class StreamModule(nn.Module, metaclass=_Patching):
    """A module that is patched as soon as it has been made, after the outermost ``__init__``.

    Its stream is made when it is first needed. Where that takes an example of the input, call
    `pts.patch_module(model, example=…)` once it is made.

    Example:
        >>> import torch, torchstreamer as pts
        >>> class Smooth(pts.StreamModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.conv = torch.nn.Conv1d(1, 1, 3, padding=1)
        ...     def forward(self, x):
        ...         return x + self.conv(x)
        >>> model = Smooth().eval().online()
        >>> y = model(pts.stream_tensor([torch.ones(1, 5)], ids=["a"], first=True, last=True))
        >>> y.shape
        torch.Size([1, 1, 5])
    """

    def online(self) -> "StreamModule":
        """Take pieces of signals from now on."""
        return set_online(self, True)

    def offline(self) -> "StreamModule":
        """Take plain tensors from now on; live signals wait."""
        return set_online(self, False)
