"""From module types to streams.

The registry starts empty; `torchstreamer.handlers` fills it and says what becomes of a module that has no handler.
"""

from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, Type, TypeVar, Union, overload

from torch import nn

from ..errors import UnsupportedModuleError
from .stream import BaseStream

__all__ = ["ModuleReport", "StreamabilityReport", "create_stream", "find_handler", "is_streamable", "register_streamer"]

Factory = Callable[[Any], BaseStream]
StreamType = TypeVar("StreamType", bound=Type[BaseStream])

_factories: Dict[Type[nn.Module], Factory] = {}
_fallback: List[Factory] = []
_containers: List[Type[nn.Module]] = []


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


def register_fallback(factory: Factory) -> None:
    """Say what becomes of a module that has no handler."""
    _fallback[:] = [factory]


def register_container(net_type: Type[nn.Module]) -> None:
    """Say that a module's children are modules of the network of their own, for `is_streamable`."""
    _containers.append(net_type)


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
    _refuse_hooks(net)
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


def create_stream(net: nn.Module) -> BaseStream:
    """Make the stream of a module.

    A handler registered for the module's type, or for the nearest type it derives from, makes it. Modules without
    one are refused if they are known to mix samples in a way that cannot be streamed; others are taken as pointwise,
    and checked with the first chunk.

    Args:
        net: the module, in its eval form

    Returns:
        a new stream. It shares the module's weights, and nothing with other streams

    Raises:
        UnsupportedModuleError: the module, or one inside it, cannot be streamed exactly; the message names it
        TypeError: ``net`` is not a module

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
    try:
        _refuse_lazy(net)
        _refuse_hooks(net)
        factory = find_handler(net) or _fallback[0]
        return factory(net)
    except UnsupportedModuleError as error:
        raise error.within(net) from None


def _refuse_lazy(net: nn.Module) -> None:
    if isinstance(net, nn.modules.lazy.LazyModuleMixin) and net.has_uninitialized_params():
        raise UnsupportedModuleError(
            "lazy_module", net, "its weight has no shape yet", "call the network once on an example before"
        )


def _refuse_hooks(net: nn.Module) -> None:
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


@dataclass(frozen=True)
class ModuleReport:
    """One module of a network: its path, its type, and the stream that takes it, or why none does."""

    path: str
    module_type: str
    handler: Optional[str]
    reason: str

    def __str__(self) -> str:
        return f"{self.path or '(net)'}: {self.module_type} -> {self.handler or 'refused, ' + self.reason}"


@dataclass(frozen=True)
class StreamabilityReport:
    """What `is_streamable` found: true if the whole network can be streamed; iterates over `ModuleReport`."""

    modules: Tuple[ModuleReport, ...]

    def __bool__(self) -> bool:
        return all(module.handler is not None for module in self.modules)

    def __iter__(self) -> Iterator[ModuleReport]:
        return iter(self.modules)

    def __str__(self) -> str:
        return "\n".join(str(module) for module in self.modules)


def is_streamable(net: nn.Module) -> StreamabilityReport:
    """Tell for every module of a network whether it can be streamed.

    Args:
        net: the network

    Returns:
        a report that is true or false, lists the modules in order, and prints as a table

    Example:
        >>> import torch, torchstreamer as pts
        >>> report = pts.is_streamable(torch.nn.Sequential(torch.nn.Conv1d(1, 4, 3), torch.nn.GroupNorm(2, 4)))
        >>> bool(report)
        False
        >>> [module.path for module in report if module.handler is None]
        ['', '1']
    """
    return StreamabilityReport(tuple(_reports(net, "")))


def _reports(net: nn.Module, path: str) -> Iterator[ModuleReport]:
    name = type(net).__name__
    inner: List[ModuleReport] = []
    if any(isinstance(net, container) for container in _containers) and find_handler(net) is not None:
        for child_name, child in net._modules.items():
            if child is not None:
                inner += _reports(child, f"{path}.{child_name}" if path else child_name)
    if isinstance(net, nn.ModuleList):  # a table of modules, not a layer
        for child_name, child in net._modules.items():
            if child is not None:
                yield from _reports(child, f"{path}.{child_name}")
        return
    try:
        stream = create_stream(net)
    except UnsupportedModuleError as error:
        where = f"{path}.{error.path}".strip(".") if error.path else path
        reason = error.reason if where == path else f"because of '{where}'"
        yield ModuleReport(path, name, None, reason)
    else:
        yield ModuleReport(path, name, type(stream).__name__, "")
    yield from inner
