"""The verifier of streams: every rule of the contract, on any stream."""

from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Union

import torch
from torch import Tensor, nn

from ..containers.parallel import Parallel1dStream
from ..containers.residual import Residual1dStream
from ..containers.sequential import Sequential1dStream
from ..core.registry import create_stream
from ..core.stream import BaseStream
from ..layers.weights import copy_network
from . import copies, exactness, isolation, memory, promptness, rejection, scripting, snapshots
from . import gradients as gradient_checks
from .report import Recorder, VerificationReport
from .subject import Reference, Subject

__all__ = ["verify_stream"]

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 5e-3}

_CONTAINERS = (Sequential1dStream, Residual1dStream, Parallel1dStream)


def verify_stream(
    net_or_factory: Union[nn.Module, Callable[[], BaseStream]],
    example: Union[Tensor, Sequence[int]],
    *,
    reference: Optional[Reference] = None,
    single: Optional[bool] = None,
    dtypes: Optional[Sequence[torch.dtype]] = None,
    tolerances: Optional[Mapping[torch.dtype, float]] = None,
    script: bool = True,
    gradients: bool = True,
    output_length: bool = True,
    domain: Callable[[Tensor], Tensor] = torch.clone,
    seed: int = 0,
    thorough: bool = False,
) -> VerificationReport:
    """Check a stream against every rule of the contract, and name the rule that it breaks.

    Many lengths and chunkings are tried; of a failure, the smallest chunking that shows it is told. Nothing is
    written to the network, and global random states are left alone.

    Args:
        net_or_factory: a module in its eval form, whose stream `create_stream` makes; or a function without arguments
            that makes a new stream, along with ``reference``
        example: a signal ``[B, C, T]``, or its shape: rows, channels, and a length at which the reference works. Its
            values are not used
        reference: what the stream must equal, on the whole signal ``[B, C, T]``; the module itself by default
        single: whether the stream is one handler, whose ``output_length`` must be the largest possible; by default
            whether there is no `Sequential1dStream`, `Residual1dStream` or `Parallel1dStream` in it
        dtypes: dtypes of the signals. The first one gets all checks, the others those of exactness. By default
            float64, float32 and bfloat16 for a module, and the example's for a factory or with a ``reference``
        tolerances: the largest difference allowed for each dtype, relative to the largest offline output; by default
            1e-10 for float64, 1e-5 for float32 (give 1e-4 for deep networks), 2e-2 for bfloat16
        script: whether the stream must script
        gradients: whether gradients must equal the offline ones
        output_length: give ``False`` for a handler without ``output_length``, which cannot be checked for promptness
        domain: takes normal random samples, one by one, to where the network is defined; ``torch.abs`` for one that
            takes roots or logarithms
        seed: of all random values
        thorough: whether to try many more lengths, chunkings and positions

    Returns:
        the checks that ran, and those that were skipped, with the reason

    Raises:
        VerificationError: the stream breaks a rule
        UnsupportedModuleError: the module cannot be streamed
        TypeError: a factory without a reference, or a stream instead of either
        ValueError: the reference gives nothing for the example

    Example:
        >>> import torch
        >>> from torchstreamer.testing import verify_stream
        >>> report = verify_stream(torch.nn.Conv1d(2, 3, 3, padding=1), (2, 2, 20), dtypes=[torch.float64])
        >>> report.cases("streams fed in turns")
        6
    """
    rows, channels, typical, device, own = _describe(example)
    if isinstance(net_or_factory, BaseStream):
        raise TypeError(
            "verify_stream got a stream; a module, or a factory that makes new streams, was expected; pass one of these"
        )
    module = net_or_factory if isinstance(net_or_factory, nn.Module) else None
    if module is None and reference is None:
        raise TypeError(
            "verify_stream got a factory without a reference; pass reference=, the network on the whole signal"
        )
    if dtypes is None:
        known = module is not None and reference is None
        dtypes = (torch.float64, torch.float32, torch.bfloat16) if known else (own or _dtype_of(net_or_factory),)
    recorder = Recorder()
    for i, dtype in enumerate(dtypes):
        tolerance = (tolerances or {}).get(dtype, TOLERANCES.get(dtype, 1e-5))
        shape: Dict[str, Any] = {
            "rows": rows,
            "channels": channels,
            "typical": typical,
            "device": device,
            "dtype": dtype,
        }
        rest: Dict[str, Any] = {"tolerance": tolerance, "domain": domain, "knows_length": output_length}
        rest.update(seed=seed, thorough=thorough)
        if module is None:
            assert reference is not None
            made = _Maker(net_or_factory, reference, reference if isinstance(reference, nn.Module) else None)
        else:
            made = _of_module(module, dtype, device, reference)
        if i > 0 and not _supported(made, shape, recorder):
            continue
        with torch.no_grad():
            subject = Subject(make=made.make, reference=made.reference, module=made.module, **shape, **rest)
        if i > 0:
            exactness.check_exact(subject, recorder, 3)
            continue
        is_single = _is_single(subject.make()) if single is None else single
        _check_all(subject, recorder, made, is_single, script, gradients)
    return recorder.report()


def _check_all(
    subject: Subject, recorder: Recorder, made: "_Maker", single: bool, script: bool, gradients: bool
) -> None:
    exactness.check_exact(subject, recorder)
    isolation.check_two_streams(subject, recorder)
    if subject.knows_length:
        promptness.check_lengths(subject, recorder)
        promptness.check_future(subject, recorder)
        if single:
            promptness.check_largest(subject, recorder)
        else:
            recorder.skip("output_length is the largest", "prompt", "the stream is a container")
    else:
        recorder.skip("output_length", "prompt", "output_length=False")
    promptness.check_rates(subject, recorder)
    exactness.check_final(subject, recorder)
    exactness.check_empty(subject, recorder)
    exactness.check_shapes(subject, recorder)
    isolation.check_isolated(subject, recorder)
    isolation.check_released(subject, recorder)
    # The scripted stream takes the longer run, because it is faster.
    memory.check_bounded(subject, recorder, 10_000 if not script or subject.thorough else 1_000)
    snapshots.check_snapshots(subject, recorder)
    snapshots.check_foreign_states(subject, recorder)
    snapshots.check_state_dict(subject, recorder)
    promptness.check_phase(subject, recorder)
    copies.check_stacking(subject, recorder)
    copies.check_copies(subject, recorder)
    rejection.check_rejected(subject, recorder)
    rejection.check_broken_steps(subject, recorder)
    if gradients:
        gradient_checks.check_gradients(subject, recorder, made.weights())
        gradient_checks.check_cut(subject, recorder)
    else:
        recorder.skip("gradients", "trainable", "gradients=False")
    exactness.check_grad_modes(subject, recorder)
    gradient_checks.check_live_weights(subject, recorder, made.weights())
    if script:
        scripting.check_scripted(subject, recorder, made.weights())
    else:
        recorder.skip("scripting", "scriptable", "script=False")


class _Maker:
    # How to make a stream, what it must equal, and the network that both share, if it is known.
    def __init__(self, make: Callable[[], BaseStream], reference: Reference, module: Optional[nn.Module]) -> None:
        self.make = make
        self.reference = reference
        self.module = module

    def weights(self) -> List[nn.Parameter]:
        if self.module is None:
            return []
        return [weight for weight in self.module.parameters() if weight.is_floating_point() or weight.is_complex()]


def _of_module(module: nn.Module, dtype: torch.dtype, device: torch.device, reference: Optional[Reference]) -> _Maker:
    if reference is not None:
        return _Maker(lambda: create_stream(module), reference, module if reference is module else None)
    net = copy_network(module).to(device=device, dtype=dtype)
    return _Maker(lambda: create_stream(net), net, net)


def _supported(made: _Maker, shape: Mapping[str, Any], recorder: Recorder) -> bool:
    """Whether the network itself works in a dtype."""
    x = torch.ones(shape["rows"], shape["channels"], shape["typical"], dtype=shape["dtype"], device=shape["device"])
    try:
        with torch.no_grad():
            made.reference(x)
    except Exception as error:
        recorder.skip(
            f"chunkings, {str(shape['dtype']).removeprefix('torch.')}", "exact", f"the network raises: {error}"
        )
        return False
    return True


def _describe(example: Union[Tensor, Sequence[int]]) -> Any:
    shape = tuple(example.shape) if isinstance(example, Tensor) else tuple(example)
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"invalid_example: shape {shape} came; [B, C, T] with no empty axis was expected")
    if isinstance(example, Tensor):
        return (*shape, example.device, example.dtype)
    return (*shape, torch.device("cpu"), None)


def _dtype_of(net_or_factory: Any) -> torch.dtype:
    stream = net_or_factory if isinstance(net_or_factory, nn.Module) else net_or_factory()
    for value in [*stream.parameters(), *stream.buffers()]:
        if value.is_floating_point() and value.numel() > 0:
            return value.dtype
    return torch.float64


def _is_single(stream: BaseStream) -> bool:
    return not any(isinstance(module, _CONTAINERS) for module in stream.modules())
