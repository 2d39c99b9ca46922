"""For mkdocs: the index "Does X stream?", made of the tables of the package while the documentation is built.

Modules are tried (`module_trials`). Of operations, those with a rule are in ``graph/lowering.py``, those that are
refused along time in ``graph/reasons.py``, and of pointwise ones torch itself says that they are.
"""

import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

from module_trials import Row, module_rows

import torchstreamer.graph.creation  # noqa: F401  registers the rules
from torchstreamer.graph.lowering import _rules
from torchstreamer.graph.reasons import REASONS

__all__ = ["INTERNAL", "operation_rows", "table"]

_PAGE = "does-it-stream.md"
_WORDS = {"yes": "yes", "example": "with an example", "part": "in part", "no": "no"}

# Entries of the tables that stand for no operation of torch.
INTERNAL = {
    "leaf",
    "loop_end",
    "ceil_pool",
    "chance",
    "circular",
    "length",
    "rand",
    "_native_batch_norm_legit_functional",
}

_PAD = "constant, reflect or replicate; negative amounts crop; on the right, also amounts that depend on the length"
_POOL = "also with `ceil_mode`; no `return_indices`"
_VIEW = "where time stays whole, or a constant factor moves between time and another axis"
_LIKE = "positions and constants, used sample by sample"
_RECURRENT = (
    "over time, forwards; over other axes, with time among the rows, in both directions too. Of their results the "
    "outputs, not the last state"
)
_MASKED = "between samples where a mask or `context=` bounds what each sees, otherwise over other axes than time"
_CARRIED = "along time it carries a state"
_RATIO = "a rational `scale_factor`, or a `size=` that is a constant multiple of the length; `align_corners=False`"

# What the rule of an operation takes, by the name in torch and, if it is another one, that in programs.
_NOTES: dict[str, tuple[str, str]] = {
    "_to_copy": ("Tensor.to", "another dtype"),
    "_unsafe_view": ("view", _VIEW),
    "_upsample_nearest_exact1d": ("F.interpolate", _RATIO),
    "_upsample_nearest_exact2d": ("F.interpolate", _RATIO),
    "_upsample_nearest_exact3d": ("F.interpolate", _RATIO),
    "as_strided": ("torch.as_strided", "frames of a signal that lies in memory as a whole"),
    "avg_pool1d": ("F.avg_pool1d", "also with `ceil_mode`"),
    "avg_pool2d": ("F.avg_pool2d", "also with `ceil_mode`, but for `divisor_override` with it"),
    "avg_pool3d": ("F.avg_pool3d", "also with `ceil_mode`, but for `divisor_override` with it"),
    "baddbmm": ("torch.baddbmm", _MASKED),
    "bmm": ("torch.bmm", _MASKED),
    "cat": (
        "torch.cat",
        "along other axes; along time, one signal with constants or with its own first or last samples",
    ),
    "chunk": ("torch.chunk", "along other axes than time"),
    "col2im": ("F.fold", "the overlap-add of frames: one row of patches"),
    "concat": ("torch.concat", "as `cat`"),
    "constant_pad_nd": ("F.pad", _PAD),
    "conv1d": ("F.conv1d", "every argument; the weight must not depend on the signal"),
    "conv2d": ("F.conv2d", "on `[B, C, F, T]` and `[B, C, T, F]`; the weight must not depend on the signal"),
    "conv3d": ("F.conv3d", "time is any of the three axes; the weight must not depend on the signal"),
    "conv_transpose1d": ("F.conv_transpose1d", "every argument; the weight must not depend on the signal"),
    "conv_transpose2d": ("F.conv_transpose2d", "on `[B, C, F, T]` and `[B, C, T, F]`"),
    "conv_transpose3d": (
        "F.conv_transpose3d",
        "time is any of the three axes; the weight must not depend on the signal",
    ),
    "copy": ("Tensor.copy_", "into every sample, or into samples by a constant step"),
    "cummax": ("Tensor.cummax", f"{_CARRIED}; the values, not the positions"),
    "cummin": ("Tensor.cummin", f"{_CARRIED}; the values, not the positions"),
    "cumprod": ("Tensor.cumprod", _CARRIED),
    "cumsum": ("Tensor.cumsum", _CARRIED),
    "diff": ("torch.diff", "along any axis"),
    "einsum": ("torch.einsum", "where every sample is treated alone"),
    "embedding": ("F.embedding", "of whole numbers, and of positions up to the end of the table"),
    "empty_like": ("torch.empty_like", _LIKE),
    "expand": ("Tensor.expand", "along other axes than time"),
    "flatten": ("Tensor.flatten", _VIEW),
    "flip": ("torch.flip", "along other axes; along time, of the first samples"),
    "full_like": ("torch.full_like", _LIKE),
    "gru": ("nn.GRU", _RECURRENT),
    "im2col": ("F.unfold", "frames over time: one row of patches"),
    "index": ("x[:, i]", "along other axes; along time, by positions that move on by a constant"),
    "index_add": ("Tensor.index_add", "along time, frames added at positions that move on by a constant"),
    "index_select": ("torch.index_select", "as `x[:, i]`"),
    "istft": (
        "torch.istft",
        "with a window that does not depend on the signal; without `length=`, or with one that grows with the signal's",
    ),
    "linear": ("F.linear", "over other axes than time"),
    "logcumsumexp": ("torch.logcumsumexp", _CARRIED),
    "lstm": ("nn.LSTM", _RECURRENT),
    "matmul": ("torch.matmul", _MASKED),
    "max_pool1d": ("F.max_pool1d", _POOL),
    "max_pool2d": ("F.max_pool2d", _POOL),
    "max_pool3d": ("F.max_pool3d", _POOL),
    "narrow": ("Tensor.narrow", "as slices"),
    "new_empty": ("Tensor.new_empty", _LIKE),
    "new_full": ("Tensor.new_full", _LIKE),
    "new_ones": ("Tensor.new_ones", _LIKE),
    "new_zeros": ("Tensor.new_zeros", _LIKE),
    "ones_like": ("torch.ones_like", _LIKE),
    "outer": ("torch.outer", "of positions and constants"),
    "pad": ("F.pad", _PAD),
    "permute": ("torch.permute", "wherever time goes"),
    "pixel_shuffle": ("F.pixel_shuffle", "time is one of the last two axes"),
    "pixel_unshuffle": ("F.pixel_unshuffle", "time is one of the last two axes; with `length_multiple=`"),
    "reflection_pad1d": ("F.pad", _PAD),
    "reflection_pad2d": ("F.pad", _PAD),
    "repeat": ("Tensor.repeat", "along other axes; along time, of a first or last sample"),
    "repeat_interleave": ("torch.repeat_interleave", "every sample by a number"),
    "replication_pad1d": ("F.pad", _PAD),
    "replication_pad2d": ("F.pad", _PAD),
    "reshape": ("Tensor.reshape", _VIEW),
    "rnn_relu": ("nn.RNN", _RECURRENT),
    "rnn_tanh": ("nn.RNN", _RECURRENT),
    "scaled_dot_product_attention": (
        "F.scaled_dot_product_attention",
        "with a mask or `context=` that bounds what each sample sees; `is_causal`, `scale`, `enable_gqa`; no dropout",
    ),
    "select": ("x[..., i]", "along other axes"),
    "slice": (
        "x[..., a:b:c]",
        "along time a constant amount cut off; on the right, also one that depends on the length",
    ),
    "split": ("torch.split", "along other axes than time"),
    "split_with_sizes": ("torch.split", "along other axes than time"),
    "squeeze": ("Tensor.squeeze", "other axes than time"),
    "stft": ("torch.stft", "its frames, with `center=` either way"),
    "to": ("Tensor.to", "everywhere"),
    "transpose": ("torch.transpose", "wherever time goes"),
    "type_as": ("Tensor.type_as", ""),
    "unflatten": ("Tensor.unflatten", _VIEW),
    "unfold": ("Tensor.unfold", "frames over time"),
    "unsqueeze": ("Tensor.unsqueeze", ""),
    "upsample_bicubic2d": ("F.interpolate", _RATIO),
    "upsample_bilinear2d": ("F.interpolate", _RATIO),
    "upsample_linear1d": ("F.interpolate", _RATIO),
    "upsample_nearest1d": ("F.interpolate", _RATIO),
    "upsample_nearest2d": ("F.interpolate", _RATIO),
    "upsample_nearest3d": ("F.interpolate", _RATIO),
    "upsample_trilinear3d": ("F.interpolate", _RATIO),
    "view": ("Tensor.view", _VIEW),
    "view_as_complex": ("torch.view_as_complex", "everywhere"),
    "where": ("torch.where", "sample by sample"),
    "zeros_like": ("torch.zeros_like", _LIKE),
}

# Refused wherever they stand, or only in training mode; the others of the table of reasons along time alone.
_NEVER = {"gru", "lstm", "rnn_tanh", "rnn_relu"}
_NEVER |= {"rand", "randn", "rand_like", "randn_like", "bernoulli", "normal"}
_TRAINING = {"batch_norm", "rrelu", "dropout", "native_dropout"}


def _ruled() -> list[Row]:
    rows = []
    for name in sorted(set(_rules) - INTERNAL):
        shown, note = _NOTES[name]
        reason = REASONS.get(name)
        if reason is not None and name != "pad":
            note += f". Otherwise refused: {reason[0]}; {reason[1]}"
        title = name if shown == name or shown.endswith("." + name) else f"{name} {shown}"
        rows.append(Row(title, "part" if reason is not None else "yes", note))
    return rows


def _refused() -> list[Row]:
    rows = []
    for name in sorted(set(REASONS) - set(_rules) - INTERNAL):
        reason, remedy = REASONS[name]
        if name in _NEVER:
            rows.append(Row(name, "no", f"{reason}; {remedy}"))
        elif name in _TRAINING:
            frozen = "" if "norm" in name else ', or with `training="frozen"`'
            rows.append(Row(name, "part", f"in eval mode{frozen}. Otherwise refused: {reason}; {remedy}"))
        elif name == "arange":
            rows.append(Row(name, "part", f"{_LIKE}. Otherwise refused: {reason}; {remedy}"))
        else:
            rows.append(Row(name, "part", f"over other axes than time. Along time refused: {reason}; {remedy}"))
    rows.append(Row("F.pad mode='circular'", "no", "; ".join(REASONS["circular"])))
    length = "; ".join(REASONS["length"])
    rows.append(Row("torch.zeros torch.full torch.ones", "part", f"{_LIKE}. Otherwise refused: {length}"))
    rows.append(Row("rand", "no", "; ".join(REASONS["rand"])))
    return rows


def _pointwise() -> list[Row]:
    names = set()
    for full in torch._C._dispatch_get_all_op_names():
        space, _, name = full.partition("::")
        name = name.split(".")[0]
        if space == "aten" and not name.startswith("_") and not name.endswith(("_", "_backward")):
            names.add(name)
    found = []
    for name in sorted(names - set(_rules) - set(REASONS)):
        packet = getattr(torch.ops.aten, name)
        overloads = [getattr(packet, overload) for overload in packet.overloads()]
        if any(torch.Tag.pointwise in overload.tags and _gives_tensors(overload) for overload in overloads):
            found.append(Row(name, "yes", "pointwise"))
    return found


def _gives_tensors(overload: Any) -> bool:
    return all(str(each.type) == "Tensor" for each in overload._schema.returns)


def operation_rows() -> list[Row]:
    """What becomes of operations: those with a rule, those refused along time, and the pointwise ones."""
    return sorted([*_ruled(), *_refused(), *_pointwise()], key=lambda row: row.name.lower().lstrip("_"))


def table(rows: list[Row], head: str) -> str:
    """The rows as a table of markdown."""
    lines = [f"| {head} | streams | what to know |", "|---|---|---|"]
    for row in rows:
        names = " ".join(f"`{name}`" for name in (row.name.split() if "mode=" not in row.name else [row.name]))
        answer = f'<span class="answer {row.answer}">{_WORDS[row.answer]}</span>'
        lines.append(f"| {names} | {answer} | {row.note.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Put the tables in their places."""
    if page.file.src_uri != _PAGE:
        return markdown
    for mark, rows, head in (("modules", module_rows, "module"), ("operations", operation_rows, "operation")):
        place = f"<!-- {mark} -->"
        assert place in markdown, f"{_PAGE} has no place for {mark}"
        markdown = markdown.replace(place, table(rows(), head))
    return markdown
