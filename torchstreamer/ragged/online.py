"""`patch_module`: a model that keeps, online, the state of every signal whose pieces it is given."""

from abc import ABCMeta
from functools import partial
from threading import RLock
from typing import Any, Dict, Hashable, Iterator, NoReturn, Optional, Tuple, TypeVar, Union

import torch
from torch import Tensor, nn

from ..core.example import Example, TimeDim
from ..core.patched import PATCH, is_patched, twin
from ..core.registry import create_stream
from ..core.rows import RowStream
from ..core.turns import in_use
from ..errors import StreamInputError, StreamOnlineError, UnsupportedModuleError
from .inputs import Batch
from .layerwise import Layerwise
from .running import Runner
from .tensor import StreamTensor

__all__ = ["StreamModule", "StreamState", "is_online", "patch_module", "stream_state", "unpatch_module"]

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
        training: as for `create_stream`

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
    patch: Optional[_Patch] = model.__dict__.get(PATCH)
    if patch is not None:
        if not options:
            return model
        _require_none_live(patch, "patched anew")
        patch.options, patch.executor = options, None
    else:
        patch = _put(model, options)
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
    patch: Optional[_Patch] = model.__dict__.get(PATCH)
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


def stream_state(model: nn.Module) -> "StreamState":
    """What a patched model remembers of its signals.

    Args:
        model: patched

    Raises:
        StreamOnlineError: ``not_patched``
    """
    return StreamState(model)


class StreamState:
    """What a patched model remembers of its signals; it is always what it is now.

    Args:
        model: patched

    Example:
        >>> import torch, torchstreamer as pts
        >>> model = pts.patch_module(torch.nn.Conv1d(1, 1, 3)).online()
        >>> _ = model(pts.stream_tensor([torch.ones(1, 5)], ids=["a"], first=True))
        >>> state = pts.stream_state(model)
        >>> state.ids(), state.nbytes
        (('a',), 8)
        >>> state.drop("a")
        >>> len(state)
        0
    """

    def __init__(self, model: nn.Module) -> None:
        if not is_patched(model):
            raise StreamOnlineError(
                f"not_patched: a {type(model).__name__} came that is not patched; a model that pts.patch_module was "
                "called on was expected; call it"
            )
        self._model = model

    @property
    def _patch(self) -> "_Patch":
        patch: _Patch = self._model.__dict__[PATCH]
        return patch

    def ids(self) -> Tuple[Hashable, ...]:
        """The ids of all signals that have begun and not ended."""
        return self._patch.ids()

    def get(self, id: Hashable) -> Dict[str, Tensor]:
        """The state of a signal: named tensors, which ``torch.save`` takes.

        Raises:
            StreamInputError: ``unknown_id``
        """
        with self._patch.turn():
            return self._patch.known(id).get(id)

    def set(self, id: Hashable, state: Dict[str, Tensor]) -> None:
        """Let a signal, new or not, go on from a state of the same model.

        Raises:
            StreamInputError: ``invalid_state``
        """
        with self._patch.turn():
            self._patch.ready(self._model).set(id, state)

    def drop(self, id: Hashable) -> None:
        """Forget a signal.

        Raises:
            StreamInputError: ``unknown_id``
        """
        with self._patch.turn():
            self._patch.known(id).drop(id)

    def detach(self, *ids: Hashable) -> None:
        """Cut the gradient's path into earlier pieces, of these signals or of all.

        Raises:
            StreamInputError: ``unknown_id``
        """
        with self._patch.turn():
            for id in ids or self._patch.ids():
                self._patch.known(id).detach([id])

    def nbytes_of(self, id: Hashable) -> int:
        """Bytes of the state of a signal.

        Raises:
            StreamInputError: ``unknown_id``
        """
        return self._patch.known(id).nbytes_of(id)

    @property
    def nbytes(self) -> int:
        """Bytes of the states of all signals."""
        return sum(map(self.nbytes_of, self.ids()))

    def __len__(self) -> int:
        return len(self.ids())

    def __contains__(self, id: Hashable) -> bool:
        return id in self.ids()

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self.ids())

    def __repr__(self) -> str:
        return f"StreamState({type(self._model).__name__}, {len(self)} signals, {self.nbytes} bytes)"


class _Patching(ABCMeta):
    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__call__(*args, **kwargs)
        if isinstance(made, nn.Module) and not is_patched(made):
            _put(made, {})
        return made


class StreamModule(nn.Module, metaclass=_Patching):
    """A module that is patched as soon as it has been made, after the outermost ``__init__``.

    Its stream is made when it is first needed. Where that takes an example of the input, call
    `pts.patch_module(model, example=…)` once it is made.

    Example:
        >>> import torch, torchstreamer as pts
        >>> class Smooth(pts.StreamModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.conv = torch.nn.Conv1d(1, 1, 3, padding=1)
        ...     def forward(self, x):
        ...         return x + self.conv(x)
        >>> model = Smooth().eval().online()
        >>> y = model(pts.stream_tensor([torch.ones(1, 5)], ids=["a"], first=True, last=True))
        >>> y.shape
        torch.Size([1, 1, 5])
    """

    def online(self) -> "StreamModule":
        """Take pieces of signals from now on."""
        return _online(self)

    def offline(self) -> "StreamModule":
        """Take plain tensors from now on; live signals wait."""
        return _offline(self)


# --------------------------------------------------------------------------- what a patched model does


class _Whole:
    # A model whose stream runs.

    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    def step(self, args: Tuple[Any, ...], kwargs: Dict[str, Any], x: StreamTensor) -> StreamTensor:
        if len(args) + len(kwargs) != 1:
            raise StreamOnlineError(
                f"online_arguments: {len(args) + len(kwargs)} arguments came; one StreamTensor was expected; leave the "
                "others out"
            )
        return self.runner.step(x)

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


class _Patch:
    # What a patched model keeps of its patch. Copies and pickles begin without signals.

    def __init__(self, options: Dict[str, Any], own: Dict[str, Any], online: bool = False) -> None:
        self.options = options
        self.own = own
        self.added = _ADDED
        self.online = online
        self.executor: Union[None, _Whole, Layerwise] = None
        self.place: Any = None
        self._lock = RLock()

    def turn(self) -> "_Turn":
        return _Turn(self._lock)

    def ready(self, model: nn.Module) -> Union[_Whole, Layerwise]:
        # The executor, made when it is first needed, and anew when the model has moved.
        place = _place(model)
        if self.executor is not None and place != self.place:
            _require_none_live(self, f"moved from {self.place} to {place}")
            self.executor = None
        if self.executor is None:
            self.executor = _executor(model, dict(self.options))
            self.place = place
        return self.executor

    def ids(self) -> Tuple[Hashable, ...]:
        return () if self.executor is None else self.executor.ids()

    def known(self, id: Hashable) -> Union[_Whole, Layerwise]:
        if self.executor is None or id not in self.executor.ids():
            raise StreamInputError(
                f"unknown_id: {id!r} came; the id of a signal that has begun and not ended was expected; see "
                "stream_state(model).ids()"
            )
        return self.executor

    def __deepcopy__(self, memo: Any) -> "_Patch":
        return _Patch(dict(self.options), dict(self.own), self.online)

    def __reduce__(self) -> Any:
        return _Patch, (self.options, self.own, self.online)


class _Turn:
    def __init__(self, lock: Any) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        if not self._lock.acquire(False):
            raise in_use()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


def _put(model: nn.Module, options: Dict[str, Any]) -> _Patch:
    own = {name: model.__dict__[name] for name in _ADDED if name in model.__dict__}
    patch = _Patch(options, own)
    model.__dict__[PATCH] = patch
    model.__dict__["forward"] = partial(_forward, model)
    model.__dict__["online"] = partial(_online, model)
    model.__dict__["offline"] = partial(_offline, model)
    model.__dict__["__prepare_scriptable__"] = partial(_refuse_script, model)
    return patch


def _executor(model: nn.Module, options: Dict[str, Any]) -> Union[_Whole, Layerwise]:
    prompt = options.pop("prompt", False)
    still = None if "training" in options else False
    given = twin(model, lambda module: None, training=still)
    try:
        return _Whole(Runner(RowStream(create_stream(given, **options), prompt=prompt)))
    except UnsupportedModuleError as error:
        if "example" in options:
            raise
        layers = Layerwise(model, prompt)
        if not layers.layers:
            raise error from None
        return layers


def _forward(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
    patch: _Patch = model.__dict__[PATCH]
    args = tuple([value.data if isinstance(value, Batch) else value for value in args])
    x = next((value for value in (*args, *kwargs.values()) if isinstance(value, StreamTensor)), None)
    if not patch.online:
        if x is not None:
            raise StreamOnlineError(
                f"offline: a StreamTensor came to a {type(model).__name__} that is offline; a plain tensor was expected; "
                "call model.online(), or pass x.tensor()"
            )
        own = patch.own.get("forward")
        return own(*args, **kwargs) if own is not None else type(model).forward(model, *args, **kwargs)
    if x is None:
        raise StreamOnlineError(
            f"online: {', '.join(type(value).__name__ for value in args) or 'nothing'} came to a {type(model).__name__} "
            "that is online; a StreamTensor was expected; make it with pts.stream_tensor, or call model.offline()"
        )
    with patch.turn():
        executor = patch.ready(model)
        if model.training and "training" not in patch.options and _random(model):
            raise StreamOnlineError(
                f"training_mode: the {type(model).__name__} is in training mode, in which it depends on the batch or on "
                "chance; its eval form was expected; call model.eval(), or patch it with training='frozen'"
            )
        _require_known(executor.ids(), x)
        return executor.step(args, kwargs, x)


def _require_known(known: Any, x: StreamTensor) -> None:
    known = set(known)
    ids = x.ids
    for id, first in zip(ids, x.first, strict=True):
        if not first and id not in known:
            raise StreamInputError(
                f"unknown_id: {id!r} came; the id of a signal that has begun and not ended was expected; begin it with "
                "first=True"
            )
    if len(set(ids)) < len(ids):
        double = next(id for id in ids if ids.count(id) > 1)
        raise StreamInputError(
            f"doubled_ids: {double!r} came twice; one row for each signal was expected; join its pieces, or call twice"
        )


def _random(model: nn.Module) -> bool:
    from ..layers.elementwise import MODES

    return any(isinstance(module, MODES) and module.training for module in model.modules())


def _online(model: Net, mode: bool = True) -> Net:
    patch: _Patch = model.__dict__[PATCH]
    if mode:
        with patch.turn():
            patch.ready(model)
    patch.online = mode
    return model


def _offline(model: Net) -> Net:
    return _online(model, False)


def _refuse_script(model: nn.Module) -> NoReturn:
    raise StreamOnlineError(
        f"patched: a patched {type(model).__name__} came to torch.jit.script; one that is not patched was expected; call "
        "pts.unpatch_module(model) first, and script the model, or its stream from pts.create_stream(model)"
    )


def _place(model: nn.Module) -> Any:
    tensor = next(iter(model.parameters()), None)
    tensor = next(iter(model.buffers()), None) if tensor is None else tensor
    return None if tensor is None else (tensor.device, tensor.dtype)


def _require_none_live(patch: _Patch, what: str) -> None:
    live = patch.ids()
    if live:
        raise StreamOnlineError(
            f"signals_live: the model was {what} while {len(live)} signals are live, {live[0]!r} among them; none was "
            "expected, as their states would be lost; end them, or stream_state(model).drop(id) them"
        )


_ = torch
