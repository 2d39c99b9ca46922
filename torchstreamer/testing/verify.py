"""The verifier of streams: every rule of the contract, on any stream."""

from typing import Any, Callable, Mapping, Optional, Sequence, Union

import torch
from torch import Tensor, nn

from ..containers.parallel import Parallel1dStream
from ..containers.residual import Residual1dStream
from ..containers.sequential import Sequential1dStream
from ..core.context import Context
from ..core.example import first_line
from ..core.stream import BaseStream
from ..core.whole_numbers import as_index, whole_number
from . import copies, exactness, isolation, memory, multiples, promptness, rejection, scripting, snapshots, static_rows
from . import gradients as gradient_checks
from .making import Maker, is_own, of_module
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
    static: Optional[bool] = None,
    gradients: bool = True,
    output_length: bool = True,
    length_multiple: int = 1,
    graph: bool = False,
    context: Optional[Context] = None,
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
            values are not used, and its length is rounded up to a multiple of ``length_multiple``
        reference: what the stream must equal, on the whole signal ``[B, C, T]``; the module itself by default. A method
            of the module is that of a copy in each dtype
        single: whether the stream is one handler, whose ``output_length`` must be the largest possible; by default
            whether there is no `Sequential1dStream`, `Residual1dStream` or `Parallel1dStream` in it, and ``False``
            with ``graph``
        dtypes: dtypes of the signals. The first one gets all checks, the others those of exactness. By default
            float64, float32 and bfloat16 for a module, and the example's for a factory, with a ``reference``, or where
            it holds whole numbers. A network keeps its own dtype where signals are of whole numbers, which have no
            gradients and no ``nan``
        tolerances: the largest difference allowed for each dtype, relative to the largest offline output; by default
            1e-10 for float64, 1e-5 for float32 (give 1e-4 for deep networks), 2e-2 for bfloat16; for whole numbers
            that of the network's dtype
        script: whether the stream must script
        static: whether the stream must have a static form, a `StaticStream`, which is held against the stream in rows
            of random age; by default that is done where there is one, and ``False`` leaves it out
        gradients: whether gradients must equal the offline ones
        output_length: give ``False`` for a handler without ``output_length``, which cannot be checked for promptness
        length_multiple: what the length of every whole signal must be a multiple of; passed on to `create_stream`. All
            other lengths must be refused at the end of a signal, with the code ``length_multiple``; chunks have any
            size
        graph: whether `create_stream` gets an example too, random and like ``example``, and captures the network with
            it. It does so twice for each dtype; all other streams are copies that share the network's weights
        context: passed on to `create_stream`. The stream must equal the network with the context in place, where
            torch's own modules take it; for all others give a ``reference`` too, the network with its mask
        domain: takes normal random samples, one by one, to where the network is defined; ``torch.abs`` for one that
            takes roots or logarithms, ``lambda x: (3 * x.abs()).long().clamp(max=9)`` for one that takes ten tokens
        seed: of all random values
        thorough: whether to try many more lengths, chunkings and positions

    Returns:
        the checks that ran, and those that were skipped, with the reason

    Raises:
        VerificationError: the stream breaks a rule
        UnsupportedModuleError: the module cannot be streamed
        TypeError: a factory without a reference or with a context, a context without a reference where no module of
            torch's takes it, or a stream instead of either
        ValueError: the reference gives nothing for the example, or the stream has another ``length_multiple``

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
    if module is None and context is not None:
        raise TypeError(
            "verify_stream got a factory and a context; a module was expected beside a context; give the context to "
            "create_stream in the factory"
        )
    length_multiple = whole_number(length_multiple, "length_multiple")
    own_reference = is_own(reference, module)
    if dtypes is None:
        known = own_reference and (own is None or not _whole(own))
        dtypes = (torch.float64, torch.float32, torch.bfloat16) if known else (own or _dtype_of(net_or_factory),)
    recorder = Recorder()

    def making(dtype: torch.dtype, signal: Tensor) -> Maker:
        if module is None:
            assert reference is not None
            return Maker(net_or_factory, reference, reference if isinstance(reference, nn.Module) else None)
        return of_module(module, dtype, device, reference, length_multiple, signal if graph else None, context)

    for i, dtype in enumerate(dtypes):
        precision = _dtype_of(net_or_factory) if _whole(dtype) else dtype
        tolerance = (tolerances or {}).get(dtype, TOLERANCES.get(precision, 1e-5))
        fitted = -(-typical // length_multiple) * length_multiple
        signal = domain(_noise((rows, channels, fitted), seed)).to(device, dtype)
        made = making(dtype, signal)
        if i > 0 and not _supported(
            made, making if own_reference else None, signal, length_multiple, tolerance, recorder
        ):
            continue
        with torch.no_grad():
            subject = Subject(
                make=made.make,
                reference=made.reference,
                module=made.module,
                rows=rows,
                channels=channels,
                typical=typical,
                dtype=dtype,
                device=device,
                tolerance=tolerance,
                domain=domain,
                knows_length=output_length,
                seed=seed,
                thorough=thorough,
                multiple=length_multiple,
                apart=made.apart,
            )
        if i > 0:
            exactness.check_exact(subject, recorder, 3)
            continue
        is_single = not graph and _is_single(subject.make()) if single is None else single
        _check_all(subject, recorder, made, is_single, script, gradients, static)
    return recorder.report()


def _check_all(
    subject: Subject,
    recorder: Recorder,
    made: Maker,
    single: bool,
    script: bool,
    gradients: bool,
    static: Optional[bool],
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
    multiples.check_multiples(subject, recorder)
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
    static_rows.check_static(subject, recorder, static)
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


def _supported(
    made: Maker,
    making: Optional[Callable[[torch.dtype, Tensor], Maker]],
    x: Tensor,
    multiple: int,
    tolerance: float,
    recorder: Recorder,
) -> bool:
    """Whether the network itself works in the dtype of a signal; with what makes it in another dtype, if it can be."""
    reason = ""
    try:
        with torch.no_grad():
            made.reference(x.clone())
            if making is not None and x.dtype in (torch.float16, torch.bfloat16):
                off = _rounding(made.reference, making(torch.float32, x).reference, x, multiple)
                # Some processors' kernels for half precision are wrong for some shapes: no stream can equal them.
                reason = f"torch itself is off by {off:.1g} of the scale here" if off > 3 * tolerance else ""
    except Exception as error:
        reason = f"the network raises: {first_line(error)}"
    if reason:
        recorder.skip(f"chunkings, {str(x.dtype).removeprefix('torch.')}", "exact", reason)
    return not reason


def _rounding(half: Reference, wide: Reference, x: Tensor, multiple: int) -> float:
    """How far the network is from itself in float32, relative to the scale, at the worst of some lengths."""
    twice, n, worst = torch.cat([x, x], -1), x.shape[-1], 0.0
    for length in sorted({n, 2 * n, *(min(n + more * multiple, 2 * n) for more in range(1, 8))}):
        signal = twice[..., :length].clone()
        y, z = half(signal.clone()).to(torch.float32), wide(signal.to(torch.float32))
        worst = max(worst, float((y - z).abs().max() / z.abs().max().clamp(min=1e-30)))
    return worst


def _describe(example: Union[Tensor, Sequence[int]]) -> Any:
    given: Any = example.shape if isinstance(example, Tensor) else example
    sizes = [as_index(size) for size in given] if isinstance(given, (tuple, list)) else []
    shape = tuple(size for size in sizes if size is not None)
    if not isinstance(given, (tuple, list)) or len(shape) < len(sizes):
        raise TypeError(
            f"invalid_example: an object of type {type(example).__name__} came; a tensor [B, C, T], or its three "
            "sizes, were expected; convert an array with torch.as_tensor"
        )
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(
            f"invalid_example: shape {shape} came; [B, C, T] with no empty axis was expected; pass such one"
        )
    if isinstance(example, Tensor):
        return (*shape, example.device, example.dtype)
    return (*shape, torch.device("cpu"), None)


def _noise(shape: Sequence[int], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _whole(dtype: torch.dtype) -> bool:
    return not dtype.is_floating_point and not dtype.is_complex


def _dtype_of(net_or_factory: Any) -> torch.dtype:
    stream = net_or_factory if isinstance(net_or_factory, nn.Module) else net_or_factory()
    for value in [*stream.parameters(), *stream.buffers()]:
        if value.is_floating_point() and value.numel() > 0:
            return value.dtype
    return torch.float64


def _is_single(stream: BaseStream) -> bool:
    return not any(isinstance(module, _CONTAINERS) for module in stream.modules())
