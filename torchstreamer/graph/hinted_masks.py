"""Masks that come with the hint that they are causal.

With ``is_causal=True`` and no weights asked for, `torch.nn.MultiheadAttention` takes the hint for the mask where the
exporter records it, and with gradients on, and the mask itself without: two functions, if the mask is another. While a
model is exported the mask stays, marked, so that it can be proved to be the causal one.
"""

from typing import Any, List

import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch.overrides import TorchFunctionMode

__all__ = ["HintedMasks", "is_hinted", "without_mark"]

_library: List[Any] = []


def _register() -> None:
    if not _library:
        kind: Any = torch.library.Library
        library = kind("torchstreamer", "FRAGMENT")
        library.define("hinted(Tensor mask) -> Tensor")
        library.impl("hinted", torch.clone, "CompositeExplicitAutograd")
        torch.library.register_fake("torchstreamer::hinted", torch.empty_like, lib=library)
        _library.append(library)


class HintedMasks(TorchFunctionMode):
    """While a model is exported, masks that come with the hint are kept, and marked."""

    def __init__(self) -> None:
        super().__init__()
        _register()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        if func is F.multi_head_attention_forward:
            mask = named.get("attn_mask")
            dropped = not named.get("need_weights", True) and named.get("key_padding_mask") is None
            if named.get("is_causal") and isinstance(mask, Tensor) and dropped:
                named["attn_mask"] = torch.ops.torchstreamer.hinted(mask)
                named["is_causal"] = False
        return func(*args, **named)


def without_mark(node: fx.Node) -> fx.Node:
    """What a marked mask is made of; other nodes as they are."""
    while str(node.target) == "torchstreamer.hinted.default":
        node = node.all_input_nodes[0]
    return node


def is_hinted(node: fx.Node) -> bool:
    """Whether a mask came with the hint."""
    waiting, found = [node], set()
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            if without_mark(each) is not each:
                return True
            waiting += each.all_input_nodes
    return False
