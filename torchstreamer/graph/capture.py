"""A model as a graph of ATen operations, with a dynamic time axis, through `torch.export`."""

import inspect
import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from types import CodeType
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Set, Tuple

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind

from ..core.lengths import LengthFunction
from ..core.registry import custom_factory
from ..core.telling import Telling
from ..errors import UnsupportedModuleError
from .answers import Answer
from .chance import draws_whole
from .exporter_patches import exporting_alone
from .exporting import exported
from .float_lengths import unsure_rounding
from .inplace_views import read_back
from .lengths import Sizes
from .loops import inside_loops
from .masked_parts import choose_parts
from .opaque import Leaf, leaves_whole
from .places import Place, fixing_refused
from .remainders import counted_from_one, frame_of
from .tied_inputs import tied_inputs
from .turned_scores import turn_scores
from .unexportable import fixed_length

__all__ = ["Capture", "ModelInput", "capture", "module_of", "source_line"]


@dataclass(frozen=True)
class ModelInput:
    """One input of the model.

    Attributes:
        name: of its placeholder
        time: its time axis, counted from the first; ``None`` for a static input
        rows: its batch axis, or ``None`` if the model treats no axis as rows
        example: a value
        length: its length for ``n`` samples of the first streamed input, as a size
    """

    name: str
    time: Optional[int]
    rows: Optional[int]
    example: Tensor
    length: Any = None


@dataclass
class Capture:
    """What `capture` found.

    Attributes:
        net: the model
        graph: its operations
        tensors: parameters, buffers and constants, by placeholder
        paths: where these stand in the model
        inputs: the inputs, in order
        outputs: names of the output values, in order; ``None`` for a constant output that is ``None``
        answer: what of the model's answer the outputs are
        sizes: evaluates sizes
        guards: conditions on the input's shapes under which the graph holds
        leaves: the modules that stayed whole, with their streams
        multiple: what the total length is a multiple of
        altered: whether the stream is that of another model, whose attention has another context
        loops: what a turn of each loop over time does, by the operation that ends it
        checks: lines that check values, which the graph leaves out
        longest: the longest signal that the model takes, if it refuses longer ones
        regular: whether lengths at which the guards do not hold say nothing of sizes
        again: captures the same model with so many samples of the example
        other: the capture with another number of samples, in whose place this one stands
    """

    net: nn.Module
    graph: fx.Graph
    tensors: Dict[str, Tensor]
    paths: Dict[str, str]
    inputs: List[ModelInput]
    outputs: List[Optional[str]]
    answer: Answer
    sizes: Sizes
    guards: List[str]
    arguments: Dict[str, Any]
    leaves: List[Leaf] = field(default_factory=list)
    multiple: int = 1
    altered: bool = False
    checks: List[str] = field(default_factory=list)
    loops: Dict[fx.Node, List[fx.Node]] = field(default_factory=dict)
    longest: Optional[int] = None
    regular: bool = False
    again: Optional[Callable[[int], "Capture"]] = None
    other: Optional["Capture"] = None

    @property
    def streamed(self) -> List[ModelInput]:
        """The inputs with a time axis."""
        return [port for port in self.inputs if port.time is not None]

    def valid(self, n: int) -> bool:
        """Whether the first streamed input can have ``n`` samples in all."""
        sizes = self.sizes
        return n >= 1 and (n - sizes.offset) % sizes.scale == 0 and n % self.multiple == 0

    def inputs_of(self, n: int, examples: Optional[Sequence[Tensor]] = None) -> List[Tensor]:
        """The first ``n`` samples of the example, which is repeated where it is too short.

        Args:
            n: of the first streamed input; the others as long as belongs to it
            examples: of all inputs, if not those of the capture
        """
        inputs: List[Tensor] = []
        for port, x in zip(self.inputs, examples or [port.example for port in self.inputs], strict=True):
            if port.time is not None:
                length = self.sizes.at(port.length, n)
                turns = -(-length // x.shape[port.time])
                x = (torch.cat([x] * turns, port.time) if turns > 1 else x).narrow(port.time, 0, length)
            inputs.append(x)
        return inputs

    @property
    def typical(self) -> int:
        """Samples of the first streamed input of the example."""
        port = self.streamed[0]
        assert port.time is not None
        return int(port.example.shape[port.time])

    def other_frames(self, whole: bool) -> Optional[int]:
        """A length at which a model that fills up its last frame takes the other branch; ``None`` if it has none.

        Args:
            whole: whether it takes that of whole frames now
        """
        frame = frame_of(self.streamed[0].length, whole)
        if frame is None or frame > 4 * self.typical:
            return None
        # One sample more than whole frames is so again in frames of such frames.
        found = max((self.typical - whole) // frame, 1) * frame + whole
        return found if self.valid(found) else None

    def elsewhere(self, length: Optional[int] = None) -> Optional["Capture"]:
        """The capture of a signal for which the model takes another branch, which may be one for all lengths: that of a
        last frame that is filled up, where this one is of whole frames, or of a length; ``None`` if there is none.

        Args:
            length: for which it takes another branch, if there are no frames
        """
        n = self.other_frames(True) or length
        if n is None or self.again is None or self.other is not None or not self.typical < 2 * n < 8 * self.typical:
            return None
        try:
            found = self.again(n)
        except UnsupportedModuleError:
            return None
        found.other, found.longest = self, self.longest
        return found

    def broken_guards(self, n: int) -> List[str]:
        """The guards that do not hold for a length, of two rows."""
        names = self._names
        for shape, axis, length in self._shapes:
            shape.sizes[axis] = length(n)
        try:
            held = eval(self._together, names)
            return [] if all(held) else [text for text, holds in zip(self._texts, held, strict=True) if not holds]
        except ZeroDivisionError:  # see below
            return [text for text, code in self._apart if not _holds(code, names)]

    @cached_property
    def _texts(self) -> List[str]:
        return list(dict.fromkeys(self.guards))

    @cached_property
    def _apart(self) -> List[Tuple[str, CodeType]]:
        return [(text, compile(text, "<guard>", "eval")) for text in self._texts]

    @cached_property
    def _together(self) -> CodeType:
        return compile("(" + "".join(f"({text}), " for text in self._texts) + ")", "<guards>", "eval")

    @cached_property
    def _fakes(self) -> List["_Shape"]:
        # What stands for the inputs while guards are tried.
        fakes = []
        for port in self.inputs:
            sizes = list(port.example.shape)
            if port.rows is not None and self.sizes.rows:
                sizes[port.rows] = 2
            fakes.append(_Shape(sizes))
        return fakes

    @cached_property
    def _shapes(self) -> List[Tuple["_Shape", int, LengthFunction]]:
        pairs = zip(self._fakes, self.inputs, strict=True)
        return [(fake, p.time, self.sizes.function(p.length)) for fake, p in pairs if p.time is not None]

    @cached_property
    def _names(self) -> Dict[str, Any]:
        fakes, places = self._fakes, self.arguments.items()
        shapes = {name: fakes[at] if isinstance(at, int) else [fakes[i] for i in at] for name, at in places}
        return {"L": shapes, "max": max, "min": min, "math": math, "torch": torch}


def _holds(guard: Any, names: Dict[str, Any]) -> bool:
    try:
        return bool(eval(guard, names))
    except ZeroDivisionError:  # a remainder by a size that is 0 for this length
        return False


class _Shape:
    def __init__(self, sizes: List[int]) -> None:
        self.sizes = sizes
        self.size = sizes.copy  # as guards ask a tensor

    def stride(self) -> List[int]:
        """Those of a contiguous tensor."""
        return [math.prod(self.sizes[axis + 1 :]) for axis in range(len(self.sizes))]


def capture(
    net: nn.Module,
    examples: Sequence[Tensor],
    times: Sequence[Optional[int]],
    multiple: int,
    dynamic_rows: bool,
    answer: Answer,
    tied: bool = False,
    telling: Optional[Telling] = None,
) -> Capture:
    """Export a model.

    Args:
        net: the model, in its eval form
        examples: an example of every input
        times: time axis of each input, counted from the first; ``None`` for a static one
        multiple: what the length of the first streamed input is a multiple of
        dynamic_rows: whether the first axis that is not time is a batch of any size
        answer: what of its answer is streamed
        tied: whether to tell the exporter that the lengths of the inputs stand in the ratio of the examples
        telling: is told what is at work

    Raises:
        UnsupportedModuleError: the model cannot be exported, or fixes the length of its input
    """
    values, shapes = [], []
    lengths = [x.shape[time] for x, time in zip(examples, times, strict=True) if time is not None]
    unit, base = math.gcd(*lengths), Dim("time", min=1, max=1 << 40)
    parts = [length // unit for length in lengths]
    told = tied and 1 not in parts  # by the exporter's own words, which are for all lengths
    rows_axes = [_rows_axis(x, time) if dynamic_rows else None for x, time in zip(examples, times, strict=True)]
    for x, time, rows in zip(examples, times, rows_axes, strict=True):
        axes: Dict[int, Any] = {}
        if rows is not None:
            x = torch.cat([x, x], rows) if x.shape[rows] == 1 else x
            axes[rows] = Dim.AUTO
        if time is not None:
            factor = x.shape[time] // unit
            axes[time] = factor * base if told else Dim.AUTO
        values.append(x.detach().contiguous())  # else the exporter ties the graph to the strides
        shapes.append(axes)
    fixed = {*lengths} - _other_sizes(values, times, shapes)
    with exporting_alone(), leaves_whole(net, custom_factory) as leaves, draws_whole(net), answer.flat():
        ties = tied_inputs(net, times, parts, rows_axes) if tied else nullcontext()
        with fixing_refused(net, fixed, fixed_length), ties:
            program, checks = exported(net, tuple(values), tuple(shapes), telling or Telling())
    found = _read(net, program, values, times, multiple, dynamic_rows, answer, leaves)
    found.checks, found.loops = checks, inside_loops(found.graph, net)

    def again(n: int) -> Capture:
        others = found.inputs_of(n, examples)
        return capture(net, others, times, multiple, dynamic_rows, answer, tied, telling)

    found.again = again
    return found


def _other_sizes(values: Sequence[Tensor], times: Sequence[Optional[int]], axes: Sequence[Dict[int, Any]]) -> Set[int]:
    """Sizes of axes that vary and are not time."""
    found = zip(values, times, axes, strict=True)
    return {x.shape[axis] for x, time, varying in found for axis in varying if axis != time}


def _rows_axis(x: Tensor, time: Optional[int]) -> Optional[int]:
    axes = [axis for axis in range(x.dim()) if axis != time]
    return axes[0] if axes else None


def _read(
    net: nn.Module,
    program: ExportedProgram,
    values: Sequence[Tensor],
    times: Sequence[Optional[int]],
    multiple: int,
    dynamic_rows: bool,
    answer: Answer,
    leaves: List[Leaf],
) -> Capture:
    graph = program.graph
    if answer.partial:
        graph.eliminate_dead_code()
    read_back(graph)
    choose_parts(graph)
    nodes = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    tensors: Dict[str, Tensor] = {}
    paths: Dict[str, str] = {}
    user: List[fx.Node] = []
    for spec in program.graph_signature.input_specs:
        if isinstance(spec.arg, ConstantArgument):
            continue
        name = spec.arg.name
        if spec.kind == InputKind.USER_INPUT:
            user.append(nodes[name])
        elif spec.target is not None:
            tensors[name] = _tensor(net, program, spec.target)
            paths[name] = spec.target
    sizes, ports = _ports(net, user, values, times, dynamic_rows)
    turn_scores(graph, sizes)
    unsure = unsure_rounding(graph, sizes)
    if unsure is not None:
        raise UnsupportedModuleError(
            "rounded_length",
            module_of(unsure, net)[1],
            f"it rounds a float that is computed of the length, whose own rounding may move it past a whole number (at "
            f"{source_line(unsure)})",
            "compute with whole numbers, as n * p // q, or divide once and then round",
        ).within(net)
    outputs: List[Optional[str]] = []
    given: Any = graph.output_node().args[0]
    for spec_out, node in zip(program.graph_signature.output_specs, given, strict=True):
        if spec_out.kind == OutputKind.USER_OUTPUT:
            outputs.append(None if isinstance(spec_out.arg, ConstantArgument) else node.name)
    return Capture(
        net,
        graph,
        tensors,
        paths,
        ports,
        outputs,
        answer,
        sizes,
        list(program._guards_code),
        _arguments(net, len(values)),
        leaves,
        multiple,
    )


def _tensor(net: nn.Module, program: ExportedProgram, target: str) -> Tensor:
    # The model's own tensor, so that the stream follows it; the exporter keeps the same but for its copies of literals.
    found: Any = net
    for name in target.split("."):
        found = getattr(found, name, None)
    kept = program.state_dict[target] if target in program.state_dict else program.constants[target]
    return found if isinstance(found, Tensor) and found.shape == kept.shape else kept


def _arguments(net: nn.Module, count: int) -> Dict[str, Any]:
    """For each argument of ``forward`` the inputs that it takes."""
    places: Dict[str, Any] = {}
    at = 0
    for name, parameter in inspect.signature(net.forward).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            places[name] = list(range(at, count))
            at = count
        elif at < count:
            places[name] = at
            at += 1
    return places


def _ports(
    net: nn.Module,
    nodes: Sequence[fx.Node],
    values: Sequence[Tensor],
    times: Sequence[Optional[int]],
    dynamic_rows: bool,
) -> Tuple[Sizes, List[ModelInput]]:
    plain = Sizes("", "", 1, 0)
    rows: Dict[str, int] = {}
    roots: Dict[str, int] = {}
    for node, x, time in zip(nodes, values, times, strict=True):
        shape = node.meta["val"].shape
        axis = _rows_axis(x, time) if dynamic_rows else None
        if axis is not None:
            if not plain.symbols(shape[axis]):
                raise UnsupportedModuleError("fixed_batch", net, "it fixes the number of rows", "use one row")
            rows.update(dict.fromkeys(plain.symbols(shape[axis]), 1))
        if time is not None:
            if not plain.symbols(shape[time]):
                raise fixed_length(Place("", net, "", 0), int(shape[time]))
            roots.update(dict.fromkeys(plain.symbols(shape[time]), 1))
    if len(roots) != 1:
        raise UnsupportedModuleError(
            "independent_lengths",
            net,
            "the lengths of its inputs do not follow from each other",
            "give inputs whose lengths the model ties, as by adding or concatenating them",
        )
    if len(rows) > 1:
        raise UnsupportedModuleError("fixed_batch", net, "its inputs have independent numbers of rows", "use one row")
    root, batch = next(iter(roots)), next(iter(rows), "")
    if root == batch:
        raise UnsupportedModuleError("fixed_batch", net, "it ties the number of rows to the length", "use one row")
    first = next(i for i, time in enumerate(times) if time is not None)
    unit = Sizes(root, batch, 1, 0)
    length = unit.function(nodes[first].meta["val"].shape[times[first]])
    scale, offset = length(2) - length(1), 2 * length(1) - length(2)
    if scale < 1 or any(length(i) != scale * i + offset for i in range(1, 100)):
        raise UnsupportedModuleError(
            "irregular_length", net, "it takes only some lengths, in no regular pattern", "pad or crop the input"
        )
    sizes = Sizes(root, batch, scale, offset, counted_from_one(nodes[first].meta["val"].shape[times[first]]))
    ports = []
    for node, x, time in zip(nodes, values, times, strict=True):
        shape = node.meta["val"].shape
        axis = _rows_axis(x, time) if dynamic_rows else None
        ports.append(ModelInput(node.name, time, axis, x, None if time is None else shape[time]))
    return sizes, ports


def module_of(node: fx.Node, net: nn.Module) -> Tuple[str, nn.Module]:
    """Path and module in whose ``forward`` an operation stands."""
    stack: Mapping[str, Any] = node.meta.get("nn_module_stack") or {}
    path = ""
    for where, _ in stack.values():
        path = where
    path = path.split("@")[0]
    try:
        return path, net.get_submodule(path)
    except AttributeError:
        return "", net


def source_line(node: fx.Node) -> str:
    """File, line and text of the model's source that made an operation; the innermost line outside of torch."""
    trace = (node.meta.get("stack_trace") or "").splitlines()
    found = ""
    for i, line in enumerate(trace):
        line = line.strip()
        if line.startswith("File ") and "/torch/" not in line.replace("\\", "/"):
            file, number = line.split(",")[:2]
            name = file.split('"')[1].replace("\\", "/").rsplit("/", 1)[-1]
            text = trace[i + 1].strip() if i + 1 < len(trace) else ""
            found = f"{name}, {number.strip()}: {text}"
    return found
