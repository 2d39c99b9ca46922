"""Networks of torch's own attention, with a context for it."""

import copy
from typing import Optional

from torch import nn

from ..core.context import Context
from ..layers.attention import SelfAttention1d, TransformerEncoderLayer1d
from ..layers.encoders import TransformerEncoder1d
from ..layers.grouped_queries import GroupedQueryAttention
from .parallel import Parallel1d
from .residual import Residual1d

__all__ = ["with_context"]


def with_context(net: nn.Module, context: Context) -> Optional[nn.Module]:
    """A network whose attention sees as far as a context lets it, with the same weights.

    Args:
        net: an attention, an encoder or a layer of one, or a `Sequential`, `Residual1d` or `Parallel1d` of such; left
            alone
        context: of each attention in it

    Returns:
        the network, ``None`` if there is nothing in it that takes a context
    """
    if isinstance(net, (nn.MultiheadAttention, GroupedQueryAttention)):
        return _like(SelfAttention1d(net, context), net)
    if isinstance(net, nn.TransformerEncoderLayer):
        return _like(TransformerEncoderLayer1d(net, context), net)
    if isinstance(net, nn.TransformerEncoder):
        return _like(TransformerEncoder1d(net, context), net)
    if not isinstance(net, (nn.Sequential, nn.ModuleList, Residual1d, Parallel1d)):
        return None
    parts = {name: None if part is None else with_context(part, context) for name, part in net._modules.items()}
    if all(part is None for part in parts.values()):
        return None
    twin = copy.copy(net)
    twin._modules = {name: part if parts[name] is None else parts[name] for name, part in net._modules.items()}
    return twin


def _like(made: nn.Module, net: nn.Module) -> nn.Module:
    made.training = net.training
    return made
