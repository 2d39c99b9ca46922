"""From module types to streams.

The registry starts empty; `torchstreamer.handlers` fills it and says what becomes of a module that has no handler.
"""

import logging
from typing import Any, Callable, Dict, List, Optional, Sequence, Type, TypeVar, Union, overload

from torch import Tensor, nn

from ..errors import UnsupportedModuleError
from .context import Context
from .example import Example, Select, TimeDim, ensure_works, inputs_of
from .frozen import frozen_twin, is_twin, let_train, require_training
from .patched import unpatched
from .reports import ModuleReport
from .stream import BaseStream
from .telling import ProgressCallback, Telling

__all__ = [
    "Example",
    "TimeDim",
    "create_stream",
    "find_handler",
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
_handling: List[nn.Module] = []  # modules whose handlers are at work


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


def is_container(net: nn.Module) -> bool:
    """Whether a module's children are modules of the network of their own."""
    return any(isinstance(net, container) for container in _containers) and find_handler(net) is not None


def captured_report(
    net: nn.Module,
    example: Example,
    time_dim: TimeDim,
    length_multiple: int,
    select: Optional[Select] = None,
    taps: Sequence[str] = (),
) -> List[ModuleReport]:
    """The operations of a model, as `is_streamable` lists them."""
    found: List[ModuleReport] = _capture[1](net, example, time_dim, length_multiple, select, taps)
    return found


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
    training: Optional[str] = None,
    select: Optional[Select] = None,
    taps: Sequence[str] = (),
    min_length: int = 1,
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
            and stream as the model does with the mask. ``Context(None, max_length=n)`` hides nothing of the past, for
            causal models that see all of it in signals of up to ``n`` samples of the attention
        training: ``"frozen"`` for a stream that has a training mode, to train the network on streams: dropout and
            `RReLU` are random, for each sample, or for each channel of a signal where whole channels are dropped; batch
            norm goes on with its running statistics. It begins in the mode of each module, and ``train()`` and
            ``eval()`` change it as they do networks. What has no such form, as dropout between the layers of a
            recurrence or in an attention, is refused in training mode, and streamed in its eval form in eval mode. By
            default a stream has the eval form alone, and networks in training mode are refused
        select: which outputs are streamed, of a model that also answers others, such as a loss: the name of one, or its
            number, or a path, such as ``"decoder.hidden_states.3"``; a tuple, list or dict of such, whose structure the
            stream then gives; or a function of the model's answer. What only the others need is not computed
        taps: paths of modules, as in ``named_modules()``, whose outputs are given too: the stream then gives a pair,
            the model's outputs and a dict with those of the modules, by path
        min_length: the shortest signal that will come, for models that take another branch for short ones. Where one
            does so below some length, as in reflect padding, that is found without it, and is the stream's
            ``min_length``. Nothing comes out of a signal before it is so long, and one that ends earlier raises
            `StreamInputError`; it can still go on

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
    require_training(training)
    making = f"create_stream({type(net).__name__})"
    telling = Telling(making, progress)
    net = unpatched(net)
    given = net
    try:
        if training is not None:
            net = training_form(net)
            stream = create_stream(
                net,
                example,
                time_dim,
                length_multiple,
                progress,
                context,
                select=select,
                taps=taps,
                min_length=min_length,
            )
            let_train(stream, given.training)
            return stream
        _refuse_lazy(net)
        inside: Optional[Context] = None  # for what is captured
        if context is not None:
            placed = _placed(net, context, example is not None)
            net, inside = (net, context) if placed is None else (placed, None)
        if example is None:
            options = (time_dim, length_multiple, min_length, select, len(taps))
            if options != (-1, 1, 1, None, 0):
                raise ValueError(
                    "no_example: time_dim, length_multiple, min_length, select or taps came without an example; pass "
                    "example=, an input of the model"
                )
            refuse_hooks(net)
            factory = find_handler(net)
            if factory is not None:
                return _handled(net, factory, Telling(making, progress, logging.DEBUG))
            return _ended(_fallback[0](net, telling), telling)
        examples, _ = inputs_of(example, time_dim, length_multiple)
        for module in net.modules():
            _refuse_lazy(module)
        whole = select is None and len(taps) == 0 and min_length == 1
        if inside is None and whole and takes_plain(net, example, time_dim, length_multiple):
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
        stream = _capture[0](net, example, time_dim, length_multiple, telling, inside, select, taps, min_length)
        return _ended(stream, telling)
    except UnsupportedModuleError as error:
        path = error.path
        error = error.within(given)
        error.path = error.path or path
        if is_twin(error.module):
            error.module = given.get_submodule(error.path)  # not the twin's
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


def training_form(net: nn.Module) -> nn.Module:
    """What the stream of a network with ``training="frozen"`` is made of."""
    return frozen_twin(net, lambda module: custom_factory(module) is not None)


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
    _handling.append(net)
    try:
        return _ended(factory(net), telling)
    finally:
        _handling.pop()


def is_handled(net: nn.Module) -> bool:
    """Whether the handler of a module is at work, which may have the module captured."""
    return any(each is net for each in _handling)


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
    # The hooks of weight_norm and spectral_norm only compute a weight, which the handlers of these layers do too.
    normed = isinstance(net, (nn.Conv1d, nn.ConvTranspose1d, nn.RNNBase))
    known = ("WeightNorm", "SpectralNorm") if normed else ()
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


def takes_plain(net: nn.Module, example: Example, time_dim: TimeDim, length_multiple: int) -> bool:
    """Whether a handler's stream takes chunks like the example."""
    plain = time_dim == -1 and length_multiple == 1 and isinstance(example, Tensor) and example.dim() == 3
    return plain and find_handler(net) is not None and not is_handled(net)
