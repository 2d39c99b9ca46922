"""`torch.export`, quiet, and with refusals for what it raises."""

import contextlib
import inspect
import io
import logging
import re
import warnings
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Tuple

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram, export
from torch.fx.experimental.symbolic_shapes import DimConstraints
from torch.nn.modules import transformer

from ..core.telling import Telling
from ..errors import StreamError
from .exporter_patches import numbers_remembered, quotients_expanded, replaced
from .functional import made_functional
from .hinted_masks import HintedMasks
from .loops import Loops
from .mapped_functions import mapped_at_once
from .number_tensors import NumberTensors
from .numpy_ranges import numpy_ranges
from .places import lines_recorded
from .remainders import FilledPairs
from .replaced_buffers import replacements_told
from .symbolic_numbers import symbolic_numbers
from .unexportable import not_exportable
from .value_checks import ValueChecks, undecided_conditions

__all__ = ["exported"]

_ASSERTIONS = frozenset(["_assert_async", "_assert_scalar", "_assert_tensor_metadata"])
_LOUD = (
    "torch.export",
    "torch.fx.experimental.symbolic_shapes",
    "torch.fx.experimental.recording",
    "torch._subclasses.fake_tensor",
)


def exported(
    net: nn.Module, values: Tuple[Tensor, ...], shapes: Tuple[Dict[int, Any], ...], telling: Telling
) -> Tuple[ExportedProgram, List[str]]:
    """A model as `torch.export` records it, without what it does in place; and the checks of values that it leaves out.

    Args:
        net: the model
        values: its inputs
        shapes: of each, the axes that vary
        telling: is told what is at work

    Raises:
        UnsupportedModuleError: the exporter cannot record it
    """
    names = list(inspect.signature(net.forward).parameters.values())
    several = bool(names) and names[0].kind is inspect.Parameter.VAR_POSITIONAL
    dynamic: Any = (shapes,) if several else shapes
    telling.begin("exporting it with torch.export")
    checks = ValueChecks(net)
    with (
        _exporting(net),
        HintedMasks(),
        checks,
        undecided_conditions(checks),
        NumberTensors(net) as numbers,
        replacements_told(net, numbers.changed),
        symbolic_numbers(net),
        numpy_ranges(),
        mapped_at_once(),
        FilledPairs(),
        lines_recorded(net),
        Loops(net),
    ):
        program = export(net, values, dynamic_shapes=dynamic, strict=False)
        if checks.refused is not None:
            raise checks.refused
        _leave_out_checks(program)
        whole = made_functional(program)
    if whole:
        return program, checks.passed
    telling.note("tracing it once more, without what it does in place")
    if several:
        _name_one_by_one(program, names[0].name)
    with _exporting(net):
        return program.run_decompositions({}), checks.passed


def _leave_out_checks(program: ExportedProgram) -> None:
    # What is asserted of values has no effect on results, and what only an assertion needs is not streamed.
    graph = program.graph
    for node in list(graph.nodes):
        if node.op == "call_function" and getattr(node.target, "__name__", "").split(".")[0] in _ASSERTIONS:
            graph.erase_node(node)
    graph.eliminate_dead_code()


def _name_one_by_one(program: ExportedProgram, name: str) -> None:
    # Torch 2.9 writes conditions on the inputs of `*xs` as on xs[0], which the second trace, of xs_0, does not know.
    pattern = re.compile(rf"L\['{name}'\]\[([0-9]+)\]")
    program._guards_code = [pattern.sub(rf"L['{name}_\1']", guard) for guard in program._guards_code]


@contextmanager
def _exporting(net: nn.Module) -> Iterator[None]:
    """For what the exporter does: without gradients and its messages, and its errors are refusals of the model."""
    with (
        warnings.catch_warnings(),
        torch.no_grad(),
        _quiet(),
        _unsolved(),
        _plain_attention(),
        numbers_remembered(),
        quotients_expanded(),
    ):
        warnings.simplefilter("ignore")
        try:
            yield
        except StreamError:
            raise
        except Exception as error:
            raise not_exportable(net, error) from error


@contextmanager
def _quiet() -> Iterator[None]:
    # The exporter logs and prints what it also raises.
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _unsolved() -> Iterator[None]:
    # After tracing, the exporter solves the conditions on lengths, for the ranges that its messages suggest, and raises
    # where SymPy cannot, as for a length rounded twice. The program and its conditions are complete without that.
    solve = DimConstraints.solve

    def attempt(self: DimConstraints) -> None:
        with contextlib.suppress(NotImplementedError, AssertionError):
            solve(self)

    with replaced(DimConstraints, "solve", attempt):
        yield


@contextmanager
def _plain_attention() -> Iterator[None]:
    # Without gradients torch's attention takes a fused operation, which tells nothing; and its encoder looks at the
    # values of a mask, only to say then that it is causal.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with replaced(transformer, "_detect_is_causal_mask", lambda mask, is_causal=None, size=None: is_causal is True):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
