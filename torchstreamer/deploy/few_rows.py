"""Products of few rows with large weights, whose memory is asked for ahead of its use, in what Inductor makes.

A step of a short chunk multiplies few rows with every weight of the network, and weights that no cache holds come
slower than the products go. Libraries wait for them. Here weights lie in the order of their use, and every line of
them is asked for well before. Measured with 75 MB of weights and 16 rows on one thread: 4.2 ms, where oneDNN and MKL
take 10 to 12, and what they take of a row in a product of thousands is 4.3.
"""

import functools
import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx

__all__ = ["few_rows", "few_rows_options", "few_rows_pay"]

_aten = torch.ops.aten

# Columns of a panel of weights, as in few_rows.hpp.
_WIDTH = 16
# More rows than this pay what a library's product costs anyway.
_MOST_ROWS = 64
# Of fewer weights a call costs more than it gains.
_LEAST = 1 << 12
# Fewer in all stay in the second cache, and libraries do not wait for them.
_LEAST_IN_ALL = 1 << 18
_CAPABLE = ("AVX2", "AVX512")
_LIBRARY: Any = torch.library.Library("torchstreamer", "FRAGMENT")  # type: ignore[no-untyped-call]


def _product(x: Tensor, panels: Tensor, columns: int) -> Tensor:
    weight = panels.transpose(0, 1).reshape(panels.size(1), -1)[:, :columns]
    return x.mm(weight)


def _product_shape(x: Tensor, panels: Tensor, columns: int) -> Tensor:
    return x.new_empty([x.size(0), columns])


_LIBRARY.define("product_of_few_rows(Tensor x, Tensor panels, int columns) -> Tensor")
_LIBRARY.impl("product_of_few_rows", _product, "CompositeExplicitAutograd")
torch.library.register_fake("torchstreamer::product_of_few_rows", _product_shape, lib=_LIBRARY)


def few_rows_pay(recorded: fx.GraphModule) -> bool:
    """Whether a step multiplies few rows by more constant weights than a cache holds, and this machine has the kernel.

    Args:
        recorded: a graph of ATen operations, recorded with tensors
    """
    if sys.platform == "win32" or torch.backends.cpu.get_cpu_capability() not in _CAPABLE:
        return False
    return sum(weight.numel() for *_, weight in _products(recorded)) >= _LEAST_IN_ALL


def few_rows(recorded: fx.GraphModule) -> fx.GraphModule:
    """The same step, whose products of few rows by constant weights few_rows.hpp makes.

    Args:
        recorded: a graph of ATen operations, recorded with tensors; stays as it is

    Returns:
        the graph; its other weights are those of ``recorded``
    """
    graph = fx.Graph()
    graph.output(graph.graph_copy(recorded.graph, {}))
    module = fx.GraphModule(recorded, graph)
    for i, (node, x, weight) in enumerate(_products(module)):
        name = f"panels_{i}"
        module.register_buffer(name, _panels(weight))
        with graph.inserting_before(node):
            own = torch.ops.torchstreamer.product_of_few_rows.default
            new = graph.call_function(own, (x, graph.get_attr(name), weight.size(1)))
            if node.target is _aten.addmm.default:
                new = graph.call_function(_aten.add.Tensor, (new, node.args[0]))
        new.meta = dict(node.meta)
        node.replace_all_uses_with(new)
        graph.erase_node(node)
    graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    return module


def _products(module: fx.GraphModule) -> List[Tuple[fx.Node, fx.Node, Tensor]]:
    """The products of few rows ``[M, K]`` by constant weights ``[K, N]``, with these rows and weights."""
    found = []
    for node in module.graph.nodes:
        if node.target not in (_aten.mm.default, _aten.addmm.default) or node.kwargs:
            continue
        x, by = node.args[-2:]
        rows = x.meta.get("val")
        if x.op == "get_attr" or by.op != "get_attr" or rows is None or rows.size(0) > _MOST_ROWS:
            continue
        weight: Tensor = getattr(module, str(by.target))
        if weight.numel() >= _LEAST and weight.dtype == torch.float32 and weight.device.type == "cpu":
            found.append((node, x, weight))
    return found


def few_rows_options() -> Dict[str, Any]:
    """Of Inductor, with which it calls few_rows.hpp."""
    # What Inductor takes for a declaration is written out as it is.
    threads = f"#define THREADS {torch.get_num_threads()}\n"
    own = "int torchstreamer_few_rows_begin; }\n" + threads + _source() + '\nextern "C" {\n' + _SHIM
    return {"aot_inductor.custom_ops_to_c_shims": {torch.ops.torchstreamer.product_of_few_rows.default: [own]}}


_SHIM = """\
AOTITorchError aoti_torch_cpu_product_of_few_rows(
    AtenTensorHandle x, AtenTensorHandle panels, int64_t columns, AtenTensorHandle* out
) {
    int64_t *sizes = nullptr, *gaps = nullptr;
    void *from = nullptr, *weights = nullptr, *to = nullptr;
    AOTITorchError failed = aoti_torch_get_sizes(x, &sizes);
    if (!failed) failed = aoti_torch_get_strides(x, &gaps);
    if (failed) return failed;
    const int64_t shape[] = {sizes[0], columns}, strides[] = {columns, 1};
    const int32_t type = aoti_torch_dtype_float32(), device = aoti_torch_device_type_cpu();
    failed = aoti_torch_empty_strided(2, shape, strides, type, device, 0, out);
    if (!failed) failed = aoti_torch_get_data_ptr(x, &from);
    if (!failed) failed = aoti_torch_get_data_ptr(panels, &weights);
    if (!failed) failed = aoti_torch_get_data_ptr(*out, &to);
    if (failed) return failed;
    const bool done = torchstreamer_few_rows::product(
        {static_cast<const float*>(from), gaps[0], gaps[1]}, static_cast<const float*>(weights),
        static_cast<float*>(to), sizes[0], sizes[1], columns
    );
    return done ? 0 : 1;
}
"""


@functools.cache
def _source() -> str:
    return Path(__file__).with_name("few_rows.hpp").read_text()


def _panels(weight: Tensor) -> Tensor:
    """``[K, N]`` as ``[N / 16, K, 16]``, with zeros behind."""
    inner, columns = weight.shape
    count = -(-columns // _WIDTH)
    padded = F.pad(weight.detach(), [0, count * _WIDTH - columns])
    return padded.view(inner, count, _WIDTH).transpose(0, 1).contiguous()
