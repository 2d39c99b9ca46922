"""From module types to streams.

The registry starts empty; `torchstreamer.handlers` fills it and says what becomes of a module that has no handler.
"""

import logging
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, Type, TypeVar, Union, overload

from torch import Tensor, nn

from ..errors import UnsupportedModuleError
from .context import Context
from .example import Example, TimeDim, ensure_works, inputs_of
from .patched import unpatched
from .reports import ModuleReport, StreamabilityReport
from .stream import BaseStream
from .telling import ProgressCallback, Telling

__all__ = [
    "Example",
    "TimeDim",
    "create_stream",
    "find_handler",
    "is_streamable",
    "part_stream",
    "refuse_hooks",
    "register_streamer",
]

Factory = Callable[[Any], BaseStream]
StreamType = TypeVar("StreamType", bound=Type[BaseStream])

_factories: Dict[Type[nn.Module], Factory] = {}
_builtin: Dict[Type[nn.Module], Factory] = {}
_fallback: List[Callable[[Any, Telling], BaseStream]] = []
_capture: List[Callable[..., Any]] = []
_containers: List[Type[nn.Module]] = []
_contexts: List[Callable[[nn.Module, Context], Optional[nn.Module]]] = []


@overload
def register_streamer(module: Type[nn.Module], streamer: Factory) -> None: ...
@overload
def register_streamer(module: Type[nn.Module]) -> Callable[[StreamType], StreamType]: ...
def register_streamer(
    module: Type[nn.Module], streamer: Optional[Factory] = None
) -> Union[None, Callable[[StreamType], StreamType]]:
    """Say how modules of a type are streamed.

    Args:
        module: type of the modules. Subclasses that keep its ``forward`` are streamed alike
        streamer: makes the stream of a module. It replaces an earlier one; without it, this is a class decorator

    Raises:
        TypeError: ``module`` is no module type, or ``streamer`` cannot be called

    Example:
        >>> import torch, torchstreamer as pts
        >>> class Gain(torch.nn.Module):
        ...     def forward(self, x):
        ...         return 2 * x
        >>> @pts.register_streamer(Gain)
        ... class GainStream(pts.BaseStream):
        ...     def __init__(self, net: Gain):
        ...         super().__init__()
        ...         self.net = net
        ...     def forward(self, x: torch.Tensor, final: bool = False):
        ...         return self.net(x)
        >>> pts.create_stream(Gain())(torch.ones(1, 3))
        tensor([[2., 2., 2.]])
    """
    if not (isinstance(module, type) and issubclass(module, nn.Module)):
        raise TypeError(
            f"register_streamer got {module!r} as the module type; a subclass of torch.nn.Module was expected; "
            "pass the type, not an instance"
        )
    if streamer is None:

        def register(stream_type: StreamType) -> StreamType:
            register_streamer(module, stream_type)
            return stream_type

        return register
    if not callable(streamer):
        raise TypeError(
            f"register_streamer got {streamer!r} as the streamer; a callable that takes the module and returns a "
            "BaseStream was expected"
        )
    _factories[module] = streamer
    return None


def register_fallback(factory: Callable[[Any, Telling], BaseStream]) -> None:
    """Say what becomes of a module that has no handler; the factory may tell its stages."""
    _fallback[:] = [factory]


def mark_built_in() -> None:
    """Say that all handlers so far are the package's own."""
    _builtin.update(_factories)


def custom_factory(net: nn.Module) -> Optional[Factory]:
    """The factory that a user registered for a module, or ``None`` if it has a handler of the package, or none."""
    for net_type in type(net).__mro__:
        if net_type in _factories:
            own = _factories[net_type] is not _builtin.get(net_type)
            return _factories[net_type] if own and not changed_method(net, net_type) else None
    return None


def register_capture(factory: Callable[..., BaseStream], report: Callable[..., Any]) -> None:
    """Say how a model with an example becomes a stream, and how its operations are reported."""
    _capture[:] = [factory, report]


def register_container(net_type: Type[nn.Module]) -> None:
    """Say that a module's children are modules of the network of their own, for `is_streamable`."""
    _containers.append(net_type)


def register_contexts(place: Callable[[nn.Module, Context], Optional[nn.Module]]) -> None:
    """Say how the attention in a network gets a context: a function that gives ``None`` if there is none in it."""
    _contexts[:] = [place]


def find_handler(net: nn.Module) -> Optional[Factory]:
    """The factory for a module, or ``None``.

    The first registered type of the module's MRO decides. A subclass that changes what the registered type computes
    is not that type, so it has no handler unless it is registered itself.
    """
    for net_type in type(net).__mro__:
        if net_type in _factories:
            return None if changed_method(net, net_type) else _factories[net_type]
    return None


def changed_method(net: nn.Module, base: Type[nn.Module]) -> str:
    """The name of the method in which a module computes something else than ``base``, or ''."""
    for name in ("forward", "_conv_forward", "__call__"):
        if name in net.__dict__ or getattr(type(net), name, None) is not getattr(base, name, None):
            return name
    return ""


def require_plain(net: nn.Module, *bases: Type[nn.Module]) -> None:
    """Refuse what is not one of ``bases``, or computes something else, or has hooks that a stream would not run.

    Raises:
        UnsupportedModuleError: with the reason
    """
    base = next((base for base in type(net).__mro__ if base in bases), None)
    if base is None:
        names = " or ".join(base.__name__ for base in bases)
        raise UnsupportedModuleError("wrong_module", net, f"a {names} was expected", "use pts.create_stream(net)")
    _refuse_lazy(net)
    refuse_hooks(net)
    # Who registers a handler for a changed type knows what it computes.
    if changed_method(net, base) and type(net) not in _factories:
        raise changed_forward(net, base)


def changed_forward(net: nn.Module, base: Type[nn.Module]) -> UnsupportedModuleError:
    """The error for a module that derives from ``base`` and computes something else."""
    return UnsupportedModuleError(
        "changed_forward",
        net,
        f"it is a {base.__name__} that overrides {changed_method(net, base)}, so the handler of {base.__name__} does "
        "not fit",
        f"register a handler for it with register_streamer({type(net).__name__}, …)",
    )


def base_with_handler(net: nn.Module) -> Optional[Type[nn.Module]]:
    """The registered type that a module derives from, changed or not."""
    return next((net_type for net_type in type(net).__mro__ if net_type in _factories), None)


def create_stream(
    net: nn.Module,
    example: Optional[Example] = None,
    time_dim: TimeDim = -1,
    length_multiple: int = 1,
    progress: Optional[ProgressCallback] = None,
    context: Optional[Context] = None,
) -> BaseStream:
    """Make the stream of a module.

    A handler registered for the module's type, or for the nearest type it derives from, makes it. A module without one
    is captured with the example through `torch.export`, and every operation of its ``forward`` becomes a stream, or is
    refused by name. Inside, modules with a handler of your own stay whole and use it. Without an example one is made up
    where the first layer says how many channels come in. Otherwise a module is tried as a pointwise one: it is refused
    if it is not; where it could not be tried it prints as "not verified". Its first chunk checks it again.

    Args:
        net: the module, in its eval form
        example: an input, or a tuple of all inputs, of a length at which the model works. The batch may have one row
        time_dim: the axis of time, or a tuple with one for each input; ``None`` for a static input, which is given with
            the first call of a signal
        length_multiple: what the total length of a signal is a multiple of (that of the first input with a time axis).
            Needed by models that are defined, or the same, for such lengths only: centre crops, U-Nets. A signal
            that ends elsewhere raises `StreamInputError`
        progress: is told what is at work, as ``progress(stage, done, total)``; see `ProgressCallback`. A large model
            takes a while to be captured
        context: what each query of its attentions sees, besides their own masks, which the stream is exact to; for
            torch's own modules, and with an example for whatever the model computes scores with. For models that see
            the whole signal, or that make their mask in a loop over it: with that mask switched off they are captured,
            and stream as the model does with the mask

    Returns:
        a new stream. It shares the module's weights, and nothing with other streams. With several inputs or outputs, or
        another layout than ``[B, C, T]``, it is called as ``stream(*chunks, final=False)``, and gives the model's own
        structure of outputs

    Raises:
        UnsupportedModuleError: the module, or one inside it, cannot be streamed exactly; the message names it, the
            operation and the line of its source
        TypeError: ``net`` is not a module, or ``example`` no tensor and no tuple of tensors
        StreamInputError: the model fails on the example (``example_fails``), or ``example``, ``time_dim`` and
            ``length_multiple`` do not fit each other

    Example:
        >>> import torch, torchstreamer as pts
        >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.AvgPool1d(2))
        >>> x = torch.randn(1, 1, 20)
        >>> stream = pts.create_stream(net)
        >>> pieces = [stream(x[..., :7]), stream(x[..., 7:]), stream.flush()]
        >>> y = torch.cat([piece for piece in pieces if piece is not None], dim=-1)
        >>> torch.testing.assert_close(y, net(x))
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"create_stream got a {type(net).__name__}; a torch.nn.Module was expected")
    if isinstance(net, BaseStream):
        raise UnsupportedModuleError(
            "already_a_stream", net, "it is a stream already", "pass the network that it was made from"
        )
    making = f"create_stream({type(net).__name__})"
    telling = Telling(making, progress)
    net = unpatched(net)
    given = net
    try:
        _refuse_lazy(net)
        inside: Optional[Context] = None  # for what is captured
        if context is not None:
            placed = _placed(net, context, example is not None)
            net, inside = (net, context) if placed is None else (placed, None)
        if example is None:
            if time_dim != -1 or length_multiple != 1:
                raise ValueError(
                    "no_example: time_dim or length_multiple came without an example; pass example=, an input of the "
                    "model"
                )
            refuse_hooks(net)
            factory = find_handler(net)
            if factory is not None:
                return _handled(net, factory, Telling(making, progress, logging.DEBUG))
            return _ended(_fallback[0](net, telling), telling)
        examples, _ = inputs_of(example, time_dim, length_multiple)
        for module in net.modules():
            _refuse_lazy(module)
        if inside is None and _takes_plain(net, example, time_dim, length_multiple):
            try:
                refuse_hooks(net)
                factory = find_handler(net)
                assert factory is not None
                stream = _handled(net, factory, Telling(making, progress, logging.DEBUG))
            except UnsupportedModuleError:
                pass  # what a handler refuses may be a matter of layout; the operations inside tell
            else:
                if stream.axes is None or stream.axes.plain:
                    ensure_works(net, examples)
                return stream
        return _ended(_capture[0](net, example, time_dim, length_multiple, telling, inside), telling)
    except UnsupportedModuleError as error:
        path = error.path
        error = error.within(given)
        error.path = error.path or path
        raise error from None


def part_stream(net: nn.Module) -> BaseStream:
    """The stream of a module in a container, which hands chunks ``[B, C, T]`` from module to module.

    Raises:
        UnsupportedModuleError: it cannot be streamed, or takes and gives something else
    """
    stream = create_stream(net)
    if stream.axes is not None and not stream.axes.plain:
        raise UnsupportedModuleError(
            "handler_layout",
            net,
            f"it takes axes '{stream.axes.takes}' and gives {stream.axes.gives!r}, where a container hands on "
            "[B, C, T]",
            "put a module around it that turns the axes, such as pts.Recurrent1d around a recurrent layer",
        )
    return stream


def _placed(net: nn.Module, context: Context, captured: bool) -> Optional[nn.Module]:
    if not isinstance(context, Context):
        raise TypeError(f"create_stream got context={context!r}; a pts.Context was expected; pass one")
    placed = _contexts[0](net, context)
    if placed is None and not captured:
        raise UnsupportedModuleError(
            "no_attention",
            net,
            "a context came, and nothing in it takes one: no MultiheadAttention, no TransformerEncoder",
            "leave context= out; build the model of pts.SelfAttention1d; or give an example of its input, with which "
            "it is captured",
        )
    return placed


def _handled(net: nn.Module, factory: Factory, telling: Telling) -> BaseStream:
    telling.begin("making the streams of its modules")
    return _ended(factory(net), telling)


def _ended(stream: BaseStream, telling: Telling) -> BaseStream:
    telling.end()
    return stream


def _refuse_lazy(net: nn.Module) -> None:
    if isinstance(net, nn.modules.lazy.LazyModuleMixin) and net.has_uninitialized_params():
        raise UnsupportedModuleError(
            "lazy_module", net, "its weight has no shape yet", "call the network once on an example before"
        )


def refuse_hooks(net: nn.Module) -> None:
    """Refuse a module whose hooks a stream would not run.

    Raises:
        UnsupportedModuleError: ``forward_hook``
    """
    # The hooks of weight_norm and spectral_norm only compute a weight, which the handlers of convolutions do too.
    known = ("WeightNorm", "SpectralNorm") if isinstance(net, (nn.Conv1d, nn.ConvTranspose1d)) else ()
    hooks = [*net._forward_pre_hooks.values(), *net._forward_hooks.values()]
    hooks += [*net._backward_pre_hooks.values(), *net._backward_hooks.values()]
    unknown = [hook for hook in hooks if type(hook).__name__ not in known]
    if unknown:
        raise UnsupportedModuleError(
            "forward_hook",
            net,
            f"it has a hook, {unknown[0]!r}, that a stream would not run",
            "remove the hook before the stream is made",
        )


def is_streamable(
    net: nn.Module, example: Optional[Example] = None, time_dim: TimeDim = -1, length_multiple: int = 1
) -> StreamabilityReport:
    """Tell for every module of a network, or every operation of a captured model, whether it can be streamed.

    Args:
        net: the network
        example: an input, as for `create_stream`. Where the network needs to be captured, its operations are listed
        time_dim: as for `create_stream`
        length_multiple: as for `create_stream`

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
    net = unpatched(net)
    modules = tuple(_reports(net, ""))
    if example is None:
        return StreamabilityReport(modules)
    examples, _ = inputs_of(example, time_dim, length_multiple)
    if _takes_plain(net, example, time_dim, length_multiple) and modules[0].handler is not None:
        axes = create_stream(net).axes
        if axes is None or axes.plain:
            ensure_works(net, examples)
        return StreamabilityReport(modules)
    return StreamabilityReport(tuple(_capture[1](net, example, time_dim, length_multiple)))


def _takes_plain(net: nn.Module, example: Example, time_dim: TimeDim, length_multiple: int) -> bool:
    """Whether a handler's stream takes chunks like the example."""
    plain = time_dim == -1 and length_multiple == 1 and isinstance(example, Tensor) and example.dim() == 3
    return plain and find_handler(net) is not None


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
    if any(isinstance(net, container) for container in _containers) and find_handler(net) is not None:
        yield from _child_reports(net, path, verified, refused)


def _child_reports(
    net: nn.Module, path: str, verified: bool, refused: Optional[Tuple[str, str]]
) -> Iterator[ModuleReport]:
    for name, child in net._modules.items():
        if child is not None:
            yield from _reports(child, f"{path}.{name}" if path else name, verified, refused)


def _doubtful(part: nn.Module) -> bool:
    return bool(getattr(part, "doubt", ""))
