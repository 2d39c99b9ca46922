"""Every operation of a model, and what becomes of it."""

from contextlib import suppress
from typing import List, Optional, Sequence

from torch import nn

from ..core.example import Example, Select, TimeDim, ensure_works, inputs_of
from ..core.reports import ModuleReport, OperationReport
from ..core.telling import Telling
from ..errors import UnsupportedModuleError, path_of
from ..layers.elementwise import refuse_training
from ..layers.unknown_module import refuse_opaque
from .answers import Answer
from .capture import capture, module_of, source_line
from .creation import finished, recurrent_refusal
from .lowering import Lowering, Operation
from .refusals import operation_name

__all__ = ["operation_reports"]

_CHECK = "left out: it checks values and has no effect on results"


def operation_reports(
    net: nn.Module,
    example: Example,
    time_dim: TimeDim,
    length_multiple: int,
    select: Optional[Select] = None,
    taps: Sequence[str] = (),
) -> List[ModuleReport]:
    """The operations of a model in order, each with the stream that takes it or the reason why none does."""
    examples, times = inputs_of(example, time_dim, length_multiple)
    found: List[ModuleReport] = []
    try:
        refuse_training(net)
        refuse_opaque(net)
    except UnsupportedModuleError as error:
        return [_whole(net, error)]
    answer = Answer(net, select, taps)
    try:
        with answer.flat():
            ensure_works(net, examples)
    except UnsupportedModuleError as error:
        return [_whole(net, error)]
    for dynamic_rows in (True, False):
        try:
            captured = capture(net, examples, times, length_multiple, dynamic_rows, answer)
        except UnsupportedModuleError as error:
            found = found or [_whole(net, recurrent_refusal(net, error) or error)]
            continue
        low = Lowering(captured, collect=True)
        outputs = low.run()
        if any(operation.error is not None for operation in low.operations):
            with suppress(UnsupportedModuleError):
                filled = captured.elsewhere()
                if filled is not None:
                    other = Lowering(filled)
                    captured, outputs, low = filled, other.run(), other
        found = [_operation(net, operation) for operation in low.operations]
        found += [OperationReport("", type(net).__name__, _CHECK, "", "check", line) for line in captured.checks]
        if all(report.handler is not None for report in found):
            try:
                finished(captured, low, outputs, Telling())
            except UnsupportedModuleError as error:
                found.append(_whole(net, error))
            return found
    return found


def _whole(net: nn.Module, error: UnsupportedModuleError) -> ModuleReport:
    path = error.path or path_of(error.module, net) or ""
    return ModuleReport(path, type(error.module).__name__, None, f"{error.reason}; {error.remedy}")


def _operation(net: nn.Module, operation: Operation) -> OperationReport:
    node, error = operation.node, operation.error
    path, module = module_of(node, net)
    reason = "" if error is None else getattr(error, "plain", "") or f"{error.reason}; {error.remedy}"
    return OperationReport(
        path, type(module).__name__, operation.handler or None, reason, operation_name(node), source_line(node)
    )
