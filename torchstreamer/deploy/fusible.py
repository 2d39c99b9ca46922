"""A recorded step in the words that Inductor fuses, where its own loops beat a library."""

from typing import Any, Optional

import torch
from torch import Tensor, fx

from ..layers.limits import MOST_TAPS

__all__ = ["fusible"]

_aten = torch.ops.aten


def fusible(recorded: fx.GraphModule) -> fx.GraphModule:
    """The same step on a CPU, with depthwise convolutions as sums of products, and biases added apart.

    A library lays out the weights of a depthwise convolution anew at every call, and copies the bias of a product to
    its output before it begins. A fused loop does neither: measured with 64 and 256 channels, 3 to 31 taps and 16 to
    4096 samples, it takes a third to a half of a convolution's time.

    Args:
        recorded: a graph of ATen operations, recorded with tensors; stays as it is

    Returns:
        the graph; its weights are those of ``recorded``
    """
    graph = fx.Graph()
    graph.output(graph.graph_copy(recorded.graph, {}))
    module = fx.GraphModule(recorded, graph)
    for node in list(graph.nodes):
        value = _value(module, node)
        if value is None or value.device.type != "cpu" or value.dtype not in (torch.float32, torch.float64):
            continue
        new: Optional[fx.Node] = None
        with graph.inserting_before(node):
            if node.target is _aten.convolution.default:
                new = _sum_of_taps(module, node, value)
            elif node.target is _aten.addmm.default and not node.kwargs:
                new = _bias_apart(graph, node, value)
        if new is not None:
            node.replace_all_uses_with(new)
            graph.erase_node(node)
    module.recompile()
    return module


def _value(module: fx.GraphModule, node: Any) -> Optional[Tensor]:
    if not isinstance(node, fx.Node):
        return None
    value = getattr(module, str(node.target)) if node.op == "get_attr" else node.meta.get("val")
    return value if isinstance(value, Tensor) else None


def _bias_apart(graph: fx.Graph, node: fx.Node, value: Tensor) -> fx.Node:
    bias, x, weight = node.args
    product = graph.call_function(_aten.mm.default, (x, weight))
    # In a view of the product, as Inductor would put a sum with the product itself together again.
    one = graph.call_function(_aten.view.default, (product, [1, *value.shape]))
    total = graph.call_function(_aten.add.Tensor, (one, bias))
    return graph.call_function(_aten.view.default, (total, list(value.shape)))


def _sum_of_taps(module: fx.GraphModule, node: fx.Node, value: Tensor) -> Optional[fx.Node]:
    args: Any = node.args
    x, weight, bias, (step, *_), padding, (spacing, *_), transposed, _, groups = args
    kernel = _value(module, weight)
    channels = value.size(1)
    if kernel is None or transposed or any(padding) or kernel.dim() != 3 or kernel.size(1) != 1:
        return None
    taps = kernel.size(2)
    if groups != channels or taps > MOST_TAPS:
        return None
    graph = module.graph
    span = (value.size(2) - 1) * step + 1
    total: Any = None
    for k in range(taps):
        samples = graph.call_function(_aten.slice.Tensor, (x, 2, k * spacing, k * spacing + span, step))
        tap = graph.call_function(_aten.select.int, (weight, 2, k))
        product = graph.call_function(_aten.mul.Tensor, (samples, tap))
        total = product if total is None else graph.call_function(_aten.add.Tensor, (total, product))
    if bias is not None:
        column = graph.call_function(_aten.view.default, (bias, [channels, 1]))
        total = graph.call_function(_aten.add.Tensor, (total, column))
    found: fx.Node = total
    return found
