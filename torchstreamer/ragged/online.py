"""`patch_module`: a model that keeps, online, the state of every signal whose pieces it is given."""

from functools import partial
from typing import Any, Dict, Hashable, NoReturn, Optional, Tuple, TypeVar, Union

from torch import Tensor, nn

from ..core.example import Example, TimeDim
from ..core.patched import PATCH, twin
from ..core.registry import create_stream, refuse_hooks
from ..core.rows import RowStream
from ..core.turns import SoleTurn
from ..errors import StreamInputError, StreamOnlineError, UnsupportedModuleError
from ..layers.elementwise import MODES
from .inputs import Batch
from .layerwise import Layerwise
from .running import Runner
from .tensor import StreamTensor

__all__ = ["Patch", "is_online", "patch_module", "put_patch", "set_online", "unpatch_module"]

Net = TypeVar("Net", bound=nn.Module)
_ADDED = ("forward", "online", "offline", "__prepare_scriptable__")


def patch_module(
    model: Net,
    example: Optional[Example] = None,
    time_dim: TimeDim = -1,
    length_multiple: int = 1,
    prompt: bool = False,
    training: Optional[str] = None,
) -> Net:
    """Give a model an online mode, in which it takes pieces of many live signals and remembers each by its id.

    | | plain tensor | `StreamTensor` |
    | --- | --- | --- |
    | `model.offline()`, as patched | as before | `StreamOnlineError` |
    | `model.online()` | `StreamOnlineError` | the next pieces of the outputs |

    Online, the outputs of an id, put together, are what the model gives for its whole signal. A model that is captured,
    or whose type has a handler, does not run its own Python then; where neither can be, its ``forward`` runs on the
    pieces, its layers remember, and whatever else touches time raises `StreamOnlineError`.

    Args:
        model: in its eval form, or to be put into it before it is used online. It is changed in place: ``forward``,
            ``online`` and ``offline`` become attributes of its own. Its parameters, their names, and its copies and
            pickles stay what they are; the signals stay with the model
        example: an input, with which the model is captured; as for `create_stream`
        time_dim: axis of time in the example
        length_multiple: as for `create_stream`
        prompt: whether outputs come as soon as they can, which costs more where the hop is large; see `RowStream`
        training: as for `create_stream`; ``model.train()`` and ``model.eval()`` count online too

    Returns:
        the model. One that is patched already is given back as it is if no option came, and patched anew otherwise

    Raises:
        UnsupportedModuleError: it cannot be streamed as a whole, nor has any layer a stream
        StreamOnlineError: ``signals_live``, it is patched anew while signals are live

    Example:
        >>> import torch, torchstreamer as pts
        >>> model = pts.patch_module(torch.nn.Conv1d(1, 1, 3, bias=False))
        >>> x = torch.randn(1, 8)
        >>> model.online()
        Conv1d(1, 1, kernel_size=(3,), stride=(1,), bias=False)
        >>> y = model(pts.stream_tensor([x[:, :5]], ids=["a"], first=True))
        >>> z = model(pts.stream_tensor([x[:, 5:]], ids=["a"], last=True))
        >>> torch.testing.assert_close(torch.cat([y.tensor(), z.tensor()], -1), model.offline()(x[None]))
    """
    options: Dict[str, Any] = {}
    if example is not None:
        options.update(example=example, time_dim=time_dim, length_multiple=length_multiple)
    if prompt:
        options.update(prompt=True)
    if training is not None:
        options.update(training=training)
    patch: Optional[Patch] = model.__dict__.get(PATCH)
    if patch is not None:
        if not options:
            return model
        _require_none_live(patch, "patched anew")
        patch.options, patch.executor = options, None
    else:
        patch = put_patch(model, options)
    try:
        patch.ready(model)
    except BaseException:
        unpatch_module(model)
        raise
    return model


def unpatch_module(model: Net) -> Net:
    """Make a patched model what it was.

    Args:
        model: patched or not

    Returns:
        the model

    Raises:
        StreamOnlineError: ``signals_live``, signals have begun and not ended; drop them first, or end them
    """
    patch: Optional[Patch] = model.__dict__.get(PATCH)
    if patch is not None:
        _require_none_live(patch, "unpatched")
        for name in patch.added:
            model.__dict__.pop(name, None)
        del model.__dict__[PATCH]
        model.__dict__.update(patch.own)
    return model


def is_online(model: nn.Module) -> bool:
    """Whether a model is patched and in its online mode."""
    patch = model.__dict__.get(PATCH)
    return patch is not None and patch.online


# --------------------------------------------------------------------------- what a patched model does


class _Whole:
    # A model whose stream runs.

    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    def step(self, args: Tuple[Any, ...], kwargs: Dict[str, Any], x: StreamTensor) -> StreamTensor:
        if len(args) + len(kwargs) != 1:
            raise StreamOnlineError(
                f"online_arguments: {len(args) + len(kwargs)} arguments came; one StreamTensor was expected, as "
                "the model is captured with one input; leave the others out, or hand them in from the first signal on "
                "if the model was patched without an example"
            )
        return self.runner.step(x)

    def follow(self, training: bool) -> None:
        stream = self.runner.rows.stream
        if stream.training != training:
            stream.train(training)

    def ids(self) -> Tuple[Hashable, ...]:
        return self.runner.rows.ids()

    def get(self, id: Hashable) -> Dict[str, Tensor]:
        return self.runner.get(id)

    def set(self, id: Hashable, state: Dict[str, Tensor]) -> None:
        self.runner.set(id, state)

    def drop(self, id: Hashable) -> None:
        self.runner.drop(id)

    def nbytes_of(self, id: Hashable) -> int:
        return self.runner.rows.nbytes_of(id)

    def detach(self, ids: Any) -> None:
        for id in ids:
            self.runner.rows.detach_state(id)


class Patch:
    """What a patched model keeps of its patch. Copies and pickles begin without signals."""

    def __init__(self, options: Dict[str, Any], own: Dict[str, Any], online: bool = False) -> None:
        self.options = options
        self.own = own
        self.added = _ADDED
        self.online = online
        self.executor: Union[None, _Whole, Layerwise] = None
        self.place: Any = None
        self.parts: Any = None
        self.turn = SoleTurn("one of the same model", "let a forward leave its own patched model alone")

    def ready(self, model: nn.Module, one_input: bool = True) -> Union[_Whole, Layerwise]:
        """What runs, made when it is first needed, and anew when the model has moved or has other parts.

        Args:
            model: the model
            one_input: whether it gets one input alone; a captured model takes no other
        """
        if self.executor is not None:
            place = _place(model)
            if place != self.place:
                _require_none_live(self, f"moved from {self.place} to {place}")
                self.executor = None
            elif not self.parts.unchanged():
                _require_none_live(self, "given other parameters, buffers, layers or hooks")
                self.executor = None
        if self.executor is None or not (one_input or isinstance(self.executor, Layerwise) or self.ids()):
            self.executor = _executor(model, dict(self.options), one_input)
            self.place = _place(model)
            self.parts = _Parts(model)
        return self.executor

    def ids(self) -> Tuple[Hashable, ...]:
        """Of the signals that have begun and not ended."""
        return () if self.executor is None else self.executor.ids()

    def known(self, id: Hashable) -> Union[_Whole, Layerwise]:
        """What runs a signal.

        Raises:
            StreamInputError: ``unknown_id``
        """
        if self.executor is None or id not in self.executor.ids():
            raise StreamInputError(
                f"unknown_id: {id!r} came; the id of a signal that has begun and not ended was expected; see "
                "stream_state(model).ids()"
            )
        return self.executor

    def __deepcopy__(self, memo: Any) -> "Patch":
        return Patch(dict(self.options), dict(self.own), self.online)

    def __reduce__(self) -> Any:
        return Patch, (self.options, self.own, self.online)


class _Parts:
    # What a model is made of; an executor is of these parts, and no others.

    def __init__(self, model: nn.Module) -> None:
        self._tables = [
            (table, list(table.items()))
            for module in model.modules()
            for table in (module._parameters, module._buffers, module._modules)
        ]
        self._hooks = [
            (hooks, len(hooks))
            for module in model.modules()
            for hooks in (module._forward_hooks, module._forward_pre_hooks)
        ]

    def unchanged(self) -> bool:
        for table, items in self._tables:
            if len(table) != len(items):
                return False
            for name, part in items:
                if table.get(name) is not part:
                    return False
        return all(len(hooks) == count for hooks, count in self._hooks)


def put_patch(model: nn.Module, options: Dict[str, Any]) -> Patch:
    """Patch a model; its stream is made when it is first needed."""
    own = {name: model.__dict__[name] for name in _ADDED if name in model.__dict__}
    patch = Patch(options, own)
    model.__dict__[PATCH] = patch
    model.__dict__["forward"] = partial(_forward, model)
    model.__dict__["online"] = partial(set_online, model, True)
    model.__dict__["offline"] = partial(set_online, model, False)
    model.__dict__["__prepare_scriptable__"] = partial(_refuse_script, model)
    return patch


def _executor(model: nn.Module, options: Dict[str, Any], one_input: bool = True) -> Union[_Whole, Layerwise]:
    prompt = options.pop("prompt", False)
    still = None if "training" in options else False
    given = twin(model, lambda module: None, training=still)
    refuse_hooks(given)  # of the model itself: they would run outside of what is checked
    try:
        if one_input or "example" in options or "training" in options:
            return _Whole(Runner(RowStream(create_stream(given, **options), prompt=prompt)))
        return Layerwise(model, prompt)
    except UnsupportedModuleError as error:
        if "example" in options or "training" in options or not one_input:
            raise
        layers = Layerwise(model, prompt)
        if not layers.layers:
            raise error from None
        return layers


def _forward(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
    patch: Patch = model.__dict__[PATCH]
    args = tuple([value.data if isinstance(value, Batch) else value for value in args])
    kwargs = {name: value.data if isinstance(value, Batch) else value for name, value in kwargs.items()}
    x = next((value for value in (*args, *kwargs.values()) if isinstance(value, StreamTensor)), None)
    if not patch.online:
        if x is not None:
            raise StreamOnlineError(
                f"offline: a StreamTensor came to a {type(model).__name__} that is offline; a plain tensor was "
                "expected; call model.online(), or pass x.tensor()"
            )
        own = patch.own.get("forward")
        return own(*args, **kwargs) if own is not None else type(model).forward(model, *args, **kwargs)
    if x is None:
        raise StreamOnlineError(
            f"online: {', '.join(type(value).__name__ for value in args) or 'nothing'} came to a "
            f"{type(model).__name__} that is online; a StreamTensor was expected; make it with pts.stream_tensor, or "
            "call model.offline()"
        )
    with patch.turn:
        executor = patch.ready(model, len(args) + len(kwargs) == 1)
        if model.training and "training" not in patch.options and _random(model):
            raise StreamOnlineError(
                f"training_mode: the {type(model).__name__} is in training mode, in which it depends on the batch or "
                "on chance; its eval form was expected; call model.eval(), or patch it with training='frozen'"
            )
        _require_known(executor.ids(), x)
        if "training" in patch.options and isinstance(executor, _Whole):
            executor.follow(model.training)
        return executor.step(args, kwargs, x)


def _require_known(known: Any, x: StreamTensor) -> None:
    known = set(known)
    ids = x.ids
    if len(set(ids)) < len(ids):
        double = next(id for id in ids if ids.count(id) > 1)
        raise StreamInputError(
            f"doubled_ids: {double!r} came twice; one row for each signal was expected; join its pieces, or call twice"
        )
    for id, first in zip(ids, x.first, strict=True):
        if not first and id not in known:
            raise StreamInputError(
                f"unknown_id: {id!r} came; the id of a signal that has begun and not ended was expected; begin it with "
                "first=True"
            )


def _random(model: nn.Module) -> bool:
    return any(isinstance(module, MODES) and module.training for module in model.modules())


def set_online(model: Net, mode: bool) -> Net:
    """Put a patched model into its online mode, or out of it."""
    patch: Patch = model.__dict__[PATCH]
    if mode:
        with patch.turn:
            patch.ready(model)
    patch.online = mode
    return model


def _refuse_script(model: nn.Module) -> NoReturn:
    raise StreamOnlineError(
        f"patched: a patched {type(model).__name__} came to torch.jit.script; one that is not patched was expected; "
        "call pts.unpatch_module(model) first, and script the model, or its stream from pts.create_stream(model)"
    )


def _place(model: nn.Module) -> Any:
    tensor: Optional[Tensor] = next(iter(model.parameters()), None)
    tensor = next(iter(model.buffers()), None) if tensor is None else tensor
    return None if tensor is None else (tensor.device, tensor.dtype)


def _require_none_live(patch: Patch, what: str) -> None:
    live = patch.ids()
    if live:
        raise StreamOnlineError(
            f"signals_live: the model was {what} while {len(live)} signals are live, {live[0]!r} among them; none was "
            "expected, as their states would be lost; end them, or stream_state(model).drop(id) them"
        )
