"""A module of the user's own without an example: tried on made-up samples when its stream is made."""

import inspect
from typing import Any, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from ..core.frozen import in_training, is_twin, recorded_in_training
from ..core.registry import custom_factory
from ..core.stream import BaseStream
from ..errors import PointwiseError, StreamInputError, UnsupportedModuleError
from .elementwise import Elementwise1dStream

__all__ = ["pointwise_stream", "refuse_opaque", "refuse_quantized", "settle_doubts"]

_PASS_AN_EXAMPLE = "pass an input, create_stream(model, example=x)"
_DOUBT = "taken as pointwise, not verified; create_stream(model, example=x) captures it"

_QUANTIZED = ("torch.ao.nn.quantized.", "torch.ao.nn.intrinsic.quantized.")

# Attributes of modules that say how many channels they take.
_CHANNELS = ("in_channels", "num_features", "in_features", "input_size", "embed_dim", "num_channels", "channels")
# Where nothing says it: some numbers, one that most group sizes divide, and 1, which tells least, if no other runs.
_GUESSES = (2, 3, 4, 5, 6, 7, 8, 60, 840)
_TRIED = 4
_LARGEST = 4096


def pointwise_stream(net: nn.Module, pointwise: Tuple[Any, ...]) -> Elementwise1dStream:
    """The stream of a module that nothing is known of.

    It is tried as its first chunk would try it, with the numbers of channels that its modules and weights suggest. It
    is verified if it is pointwise with all of those that it takes, and refused if with none. A module that takes none
    of them is refused if it holds modules that are not pointwise; otherwise its stream says that nothing was verified.

    Args:
        net: the module
        pointwise: types of modules inside that treat every sample alone

    Raises:
        UnsupportedModuleError: it is not pointwise, or holds modules that are not
    """
    stream = Elementwise1dStream(net)
    _refuse_several_inputs(net)
    _refuse_random(net)
    passed, problems = _tried(stream, list(_candidates(net)))
    if passed and not problems:
        return stream
    if not passed:
        refuse_opaque(net)
        problem = problems[0] if problems else None
        culprit = next((module for module in net.modules() if _tells(module, pointwise)), None)
        if isinstance(culprit, nn.Linear):
            raise UnsupportedModuleError(
                "time_mixing",
                culprit,
                "it multiplies along the last axis, which is time in [B, C, T]",
                f"{_PASS_AN_EXAMPLE}, where the model turns its axes itself, with time_dim= where time is not its last "
                "axis; or use Conv1d with kernel_size=1",
            )
        if problem is not None:
            raise _refusal(net, problem)
        if culprit is not None:
            raise UnsupportedModuleError(
                "needs_example",
                net,
                f"it holds {_named(culprit)}, and took none of the inputs [B, C, T] that were made up for it",
                f"{_PASS_AN_EXAMPLE}, with time_dim= where time is not the last axis",
            )
    stream.doubt = _DOUBT
    return stream


def settle_doubts(net: nn.Module, streams: Sequence[BaseStream]) -> None:
    """Try modules that were not verified with the channels that the modules before them give.

    Args:
        net: a chain of modules
        streams: theirs, in order

    Raises:
        UnsupportedModuleError: one of them is not pointwise
    """
    channels = -1
    for stream in streams:
        if isinstance(stream, Elementwise1dStream) and stream.doubt and channels > 0:
            passed, problems = _tried(stream, [channels])
            if problems:
                raise _refusal(stream.net, problems[0]).within(net)
            stream.doubt = "" if passed else stream.doubt
        try:
            channels = stream.output_channels(channels)
        except StreamInputError:  # the network does not fit together, as its first chunk tells
            return


def refuse_opaque(net: nn.Module) -> None:
    """Refuse scripted, traced and quantized modules, unless they stand in a module with a handler of the user's.

    Raises:
        UnsupportedModuleError: with the first of them
    """
    for module in _seen(net):
        if isinstance(module, torch.jit.ScriptModule):
            raise UnsupportedModuleError(
                "scripted_module",
                module,
                f"it is a script, of a {getattr(module, 'original_name', 'module')}, in which no modules or operations "
                "are seen",
                "make the stream of the module that it was scripted or traced from, and script the stream, "
                "torch.jit.script(stream)",
            ).within(net)
    refuse_quantized(net)


def refuse_quantized(net: nn.Module) -> None:
    """Refuse quantized modules, with the same exception.

    Raises:
        UnsupportedModuleError: with the first of them
    """
    for module in _seen(net):
        if type(module).__module__.startswith(_QUANTIZED):
            dynamic = ".dynamic." in type(module).__module__
            raise UnsupportedModuleError(
                "quantized",
                module,
                "it rounds its input by the range of the whole signal"
                if dynamic
                else "it takes and gives quantized numbers, with packed weights that a stream cannot see",
                "make the stream of the network before it is quantized; pts.export and pts.compile make it fast",
            ).within(net)


def _seen(module: nn.Module) -> Iterator[nn.Module]:
    if custom_factory(module) is None:
        yield module
        for child in module.children():
            yield from _seen(child)


def _refusal(net: nn.Module, problem: PointwiseError) -> UnsupportedModuleError:
    told = str(problem).split(": ", 1)[1].split("; ", 1)[0]
    return UnsupportedModuleError(
        "not_pointwise",
        net,
        f"without an example it was tried as a pointwise module, and is none: {told}",
        f"{_PASS_AN_EXAMPLE}, or register a handler for its type with register_streamer",
    )


def _tried(stream: Elementwise1dStream, candidates: List[int]) -> Tuple[bool, List[PointwiseError]]:
    """Whether the module is pointwise with a number of channels, and what showed that it is not with others."""
    passed: int = 0
    problems: List[PointwiseError] = []
    like = _like(stream.net)
    if like.is_meta:
        return False, []
    for channels in candidates:
        if passed + len(problems) >= _TRIED:
            break
        if channels == 1 and passed + len(problems) > 0:
            continue
        try:
            stream.try_out(like.new_zeros(2, channels, 1))
            passed += 1
        except PointwiseError as error:
            problems.append(error)
        except Warning:
            raise
        except Exception:  # other channels, perhaps
            continue
    return passed > 0, problems


def _like(net: nn.Module) -> Tensor:
    for value in [*net.parameters(), *net.buffers()]:
        if value.is_floating_point() or value.is_complex():
            return value.detach()
    return torch.empty(0)


def _refuse_random(net: nn.Module) -> None:
    """Refuse a module of a twin that gives something else in training mode than in eval mode."""
    if not (is_twin(net) and in_training(net)):
        return
    like = _like(net)
    for channels in () if like.is_meta else _candidates(net):
        x = torch.linspace(-2, 2, 2 * channels * 64).view(2, channels, 64).to(like)
        with torch.no_grad(), torch.random.fork_rng():
            try:
                expected = net(x.clone())
                with recorded_in_training(net):
                    found = net(x.clone())
                same = torch.allclose(found, expected, equal_nan=True)
            except Warning:
                raise
            except Exception:  # other channels, perhaps
                continue
        if not same:
            raise UnsupportedModuleError(
                "training_mode",
                net,
                "taken as pointwise, it gives something else in training mode than in eval mode",
                "pass an input, create_stream(model, example=x, training='frozen'), which captures its dropout",
            )
        return


def _candidates(net: nn.Module) -> Iterator[int]:
    told = [getattr(module, name, None) for module in net.modules() for name in _CHANNELS]
    told += [size for value in [*net.parameters(), *net.buffers()] for size in value.shape]
    numbers = [value for value in told if isinstance(value, int) and 1 < value <= _LARGEST]
    yield from dict.fromkeys([*numbers, *_GUESSES, 1])


def _tells(module: nn.Module, pointwise: Tuple[Any, ...]) -> bool:
    """Whether a module of torch says that what holds it is not pointwise."""
    tables = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
    own = type(module).__module__.startswith("torch.nn.modules.")
    return own and not isinstance(module, (*pointwise, *tables))


def _refuse_several_inputs(net: nn.Module) -> None:
    try:
        parameters = inspect.signature(net.forward).parameters.values()
    except (TypeError, ValueError):  # a traced module has none
        return
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed: List[str] = [p.name for p in parameters if p.kind in kinds and p.default is inspect.Parameter.empty]
    other: Optional[str] = next((name for name in needed[1:]), None)
    if other is not None:
        raise UnsupportedModuleError(
            "needs_example",
            net,
            f"it takes {len(needed)} inputs, {', '.join(needed)}",
            "pass all of them, create_stream(model, example=(x, …), time_dim=…)",
        )


def _named(module: nn.Module) -> str:
    name = type(module).__name__
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"
