"""Whether a network can be streamed, told module by module, or operation by operation."""

from typing import Iterator, Optional, Sequence, Tuple

from torch import nn

from ..errors import UnsupportedModuleError
from .example import Example, Select, TimeDim, ensure_works, inputs_of
from .frozen import require_training
from .patched import unpatched
from .registry import captured_report, create_stream, is_container, takes_plain, training_form
from .reports import ModuleReport, StreamabilityReport

__all__ = ["is_streamable"]


def is_streamable(
    net: nn.Module,
    example: Optional[Example] = None,
    time_dim: TimeDim = -1,
    length_multiple: int = 1,
    training: Optional[str] = None,
    select: Optional[Select] = None,
    taps: Sequence[str] = (),
) -> StreamabilityReport:
    """Tell for every module of a network, or every operation of a captured model, whether it can be streamed.

    Args:
        net: the network
        example: an input, as for `create_stream`. Where the network needs to be captured, its operations are listed
        time_dim: as for `create_stream`
        length_multiple: as for `create_stream`
        training: as for `create_stream`
        select: as for `create_stream`
        taps: as for `create_stream`

    Returns:
        a report that is true or false, lists the modules or operations in order, and prints as a table

    Raises:
        TypeError, StreamInputError: for the example, as from `create_stream`

    Example:
        >>> import torch, torchstreamer as pts
        >>> report = pts.is_streamable(torch.nn.Sequential(torch.nn.Conv1d(1, 4, 3), torch.nn.GroupNorm(2, 4)))
        >>> bool(report)
        False
        >>> [module.path for module in report if module.handler is None]
        ['', '1']
    """
    require_training(training)
    net = unpatched(net)
    if training is not None:
        try:
            net = training_form(net)
        except UnsupportedModuleError as error:
            path, name = error.within(net).path, type(error.module).__name__
            return StreamabilityReport((ModuleReport(path, name, None, error.reason),))
    modules = tuple(_reports(net, ""))
    if example is None:
        return StreamabilityReport(modules)
    examples, _ = inputs_of(example, time_dim, length_multiple)
    whole = select is None and len(taps) == 0
    if whole and takes_plain(net, example, time_dim, length_multiple) and modules[0].handler is not None:
        axes = create_stream(net).axes
        if axes is None or axes.plain:
            ensure_works(net, examples)
        return StreamabilityReport(modules)
    return StreamabilityReport(tuple(captured_report(net, example, time_dim, length_multiple, select, taps)))


def _reports(
    net: nn.Module, path: str, verified: bool = False, refused: Optional[Tuple[str, str]] = None
) -> Iterator[ModuleReport]:
    # What a module alone leaves open, the modules around it may tell: that it is verified, or the path and the reason
    # of the one that is refused there.
    name = type(net).__name__
    if isinstance(net, nn.ModuleList):  # a table of modules, not a layer
        yield from _child_reports(net, path, verified, refused)
        return
    try:
        stream = create_stream(net)
    except UnsupportedModuleError as error:
        where = f"{path}.{error.path}".strip(".") if error.path else path
        reason = error.reason if where == path else f"because of '{where}'"
        yield ModuleReport(path, name, None, reason)
        refused = refused or (where, error.reason)
    else:
        doubts = [] if verified else [(where, part.doubt) for where, part in stream.named_modules() if _doubtful(part)]
        verified = not doubts
        doubt = "" if verified else doubts[0][1] if not doubts[0][0] else "it holds a module that is not verified"
        if refused is not None and refused[0] == path:
            yield ModuleReport(path, name, None, refused[1])
        else:
            yield ModuleReport(path, name, type(stream).__name__, doubt)
    if is_container(net):
        yield from _child_reports(net, path, verified, refused)


def _child_reports(
    net: nn.Module, path: str, verified: bool, refused: Optional[Tuple[str, str]]
) -> Iterator[ModuleReport]:
    for name, child in net._modules.items():
        if child is not None:
            yield from _reports(child, f"{path}.{name}" if path else name, verified, refused)


def _doubtful(part: nn.Module) -> bool:
    return bool(getattr(part, "doubt", ""))
