"""Models that are streamed layer by layer: their own ``forward`` runs on pieces, and layers remember."""

from functools import partial
from typing import Any, Dict, Hashable, List, NoReturn, Optional, Sequence, Set, Tuple

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

from ..core.patched import twin
from ..core.registry import create_stream, find_handler
from ..core.rows import RowStream
from ..errors import StreamOnlineError, UnsupportedModuleError
from ..layers.elementwise import IdentityStream, PointwiseStream
from ..layers.normalization import BatchNorm1dStream, ChannelNormStream
from ..layers.rnn_weights import Recurrent1d
from .packing import packed_like, rows_of_packed
from .piece_numbers import PieceLength, RowCount, first_refusal, of_pieces, refuse
from .row_data import RowData
from .running import Runner
from .strict import Strict
from .tensor import StreamTensor, bare, with_layout

__all__ = ["Layerwise"]

# What treats every sample alone runs as it is, in whatever layout it stands.
_AS_THEY_ARE = (PointwiseStream, IdentityStream, BatchNorm1dStream, ChannelNormStream)


class _Call:
    # A call of the model: which layers were called, and for whom.

    def __init__(self) -> None:
        self.took: Dict[nn.Module, Set[Hashable]] = {}
        self.strict = Strict()


class _Layer(nn.Module):
    # In the place of a module that has a stream.

    def __init__(self, net: nn.Module, rows: RowStream) -> None:
        super().__init__()
        self.recurrent = isinstance(net, nn.RNNBase)
        axes = None
        if isinstance(net, nn.RNNBase):
            axes = (0, 1) if net.batch_first else (1, 0)
        self.net = net
        self.runner = Runner(rows, axes)
        self.call: Optional[_Call] = None  # that runs

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        packed = isinstance(x, nn.utils.rnn.PackedSequence)
        if not packed and not isinstance(x, StreamTensor):
            return self.net(x, *args, **kwargs)  # of no signal
        if not all(map(self._as_none, (*args, *kwargs.values()))):
            self._refuse("online_arguments", "more than its input came", "only the input", "leave the others out")
        call = self.call
        if call is None:
            self._refuse(
                "online_layer_late",
                "it was called after the forward, by the backward pass of a checkpoint for instance",
                "one call in it",
                "leave checkpoints out online",
            )
        if self in call.took:
            self._refuse(
                "online_layer_twice",
                "the forward called it twice",
                "once, as it remembers one signal for each row",
                "give an example: pts.patch_module(model, example=x)",
            )
        rows = rows_of_packed(x) if packed else x
        call.took[self] = set(rows.ids)
        for id, first in zip(rows.ids, rows.first, strict=True):
            if not first and id not in self.runner.rows:
                self._refuse(
                    "online_gap",
                    f"a piece of {id!r} came, of which none came before",
                    "every piece of a signal, from its first one on",
                    "let the forward run all its layers on all rows",
                )
        with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
            y = widened(self.runner.step(rows))
            call.strict.owned.note(y)
            if packed:
                y = packed_like(x, y)
                call.strict.owned.note(tuple(y))
                return y, _last_state(self.net)
        return (y, _last_state(self.net)) if self.recurrent else y

    def _as_none(self, value: Any) -> bool:
        # A recurrence that begins with zeros begins as it does of itself.
        states = value if isinstance(value, tuple) else (value,)
        plain = all(isinstance(state, Tensor) and not isinstance(state, StreamTensor) for state in states)
        return value is None or (self.recurrent and plain and not any(map(torch.count_nonzero, states)))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("net"), name)

    def _refuse(self, code: str, came: str, expected: str, remedy: str) -> NoReturn:
        try:
            refuse(f"{code}: {type(self.net).__name__}: {came}; {expected}, was expected; {remedy}")
        except StreamOnlineError as error:
            if self.call is not None:  # another thread may have called it, whose errors nobody looks at
                self.call.strict.owned.refused = self.call.strict.owned.refused or error
            raise


def widened(x: StreamTensor) -> StreamTensor:
    """With two samples at least, padding or not, so that no size of time is 0, or 1, which broadcasts."""
    layout, data = x._layout, bare(x)
    lack = 2 - data.shape[layout.time]
    if lack <= 0:
        return x
    shape = list(data.shape)
    shape[layout.time] = lack
    return with_layout(torch.cat([data, data.new_zeros(shape)], layout.time), layout)


def narrowed(x: StreamTensor) -> StreamTensor:
    """With no more padding than the longest row takes."""
    layout, data = x._layout, bare(x)
    longest = max(layout.rows.lengths, default=0)
    return x if longest == data.shape[layout.time] else with_layout(data.narrow(layout.time, 0, longest), layout)


def _last_state(net: nn.Module) -> Any:
    return (_LastState(net), _LastState(net)) if isinstance(net, nn.LSTM) else _LastState(net)


class _LastState:
    # In the place of the state that a recurrent layer gives at the end of the signal.

    def __init__(self, net: nn.Module) -> None:
        self._net = net

    def __getattr__(self, name: str) -> Any:
        return self._refuse()

    def _refuse(self, *args: Any) -> Any:
        refuse(
            f"final_state: the forward uses the last state of {type(self._net).__name__}, which is that of the end "
            "of the signal; its outputs alone were expected to be used; take the last sample of them when the signal "
            "has ended"
        )

    __getitem__ = __iter__ = __len__ = __add__ = __mul__ = __sub__ = __bool__ = __radd__ = __rmul__ = _refuse
    __neg__ = __truediv__ = __rsub__ = __matmul__ = __pow__ = __float__ = __array__ = _refuse
    __torch_function__ = classmethod(lambda cls, func, types, args=(), kwargs=None: _refuse_last())


def _refuse_last() -> Any:
    refuse(
        "final_state: the forward uses the last state of a recurrent layer, which is that of the end of the signal; "
        "its outputs alone were expected to be used; take the last sample of them when the signal has ended"
    )


class Layerwise:
    """A model whose ``forward`` runs as it stands, on pieces, with a stream in the place of each layer that has one.

    Args:
        net: the model; it stays as it is
        prompt: as for `RowStream`

    Raises:
        UnsupportedModuleError: no layer of it has a stream
    """

    def __init__(self, net: nn.Module, prompt: bool) -> None:
        self.layers: Dict[str, _Layer] = {}
        net = twin(net, lambda module: None, training=False)
        paths = {id(module): path for path, module in net.named_modules()}

        def replaced(module: nn.Module) -> Optional[nn.Module]:
            if find_handler(module) is None:
                return None
            try:
                stream = create_stream(Recurrent1d(module) if isinstance(module, nn.RNNBase) else module)
                if isinstance(stream, _AS_THEY_ARE):
                    return None
                layer = _Layer(module, RowStream(stream, prompt=prompt))
            except UnsupportedModuleError:
                return None  # its layers may have streams; if not, its operations are refused when they are called
            self.layers[paths[id(module)]] = layer
            return layer

        self.net = twin(net, replaced)
        layered = {id(part) for layer in self.layers.values() for part in layer.modules()}
        self._own = [
            module
            for module in self.net.modules()
            if id(module) not in layered and not isinstance(module, torch.jit.ScriptModule)
        ]
        # Of each signal how many samples came, in each input; None where nobody told.
        self.live: Dict[Hashable, Tuple[Optional[int], ...]] = {}

    def step(self, args: Tuple[Any, ...], kwargs: Dict[str, Any], x: StreamTensor) -> Any:
        """What the forward gives for pieces; if it raises, no signal has changed."""
        ids, layers = x.ids, list(self.layers.values())
        before = [(layer.runner, layer.runner.standing(ids)) for layer in layers]
        kept = [(module, dict(module.__dict__), dict(module._buffers)) for module in self._own]
        versions = [_version(buffer) for module in self._own for buffer in module._buffers.values()]
        came: List[Tuple[Optional[int], ...]] = []  # of each input
        first_refusal(forget=True)
        call = _Call()
        try:
            for layer in layers:
                layer.__dict__["call"] = call
                for id, first in zip(ids, x.first, strict=True):
                    if first:
                        layer.runner.drop(id)
            args, kwargs = pytree.tree_map(partial(self._handed, x, came), (args, kwargs))
            try:
                call.strict.owned.note(pytree.tree_leaves((args, kwargs)))
                with call.strict.owned.running(), call.strict:
                    y = self.net.forward(*args, **kwargs)
            except Exception as error:
                refused = first_refusal() or call.strict.owned.refused
                if refused is None or refused is error:
                    raise
                raise refused from error
            refused = first_refusal() or call.strict.owned.refused
            if refused is not None:  # and the forward went on all the same
                raise refused
            self._require_all_rows(call, before, x)
            self._require_no_memory(kept, versions)
            y = pytree.tree_map(partial(_given, x), y)
        except BaseException:
            for runner, standing in before:
                runner.back_to(standing)
            for module, attributes, buffers in kept:
                module.__dict__.clear()
                module.__dict__.update(attributes)
                module._buffers.clear()
                module._buffers.update(buffers)
            raise
        finally:
            first_refusal(forget=True)  # its traceback would keep the pieces
            for layer in layers:
                layer.__dict__["call"] = None
        for row, (id, last) in enumerate(zip(ids, x.last, strict=True)):
            if last:
                self.drop(id)
            else:
                self.live[id] = tuple([each[row] for each in came])
        return y

    def _handed(self, x: StreamTensor, came: List[Tuple[Optional[int], ...]], value: Any) -> Any:
        # An argument as the forward gets it: pieces that know where they start, and a copy, since it may write to them.
        if not isinstance(value, StreamTensor):
            return self._lengths(x, value)
        layout = value._layout
        rows = layout.rows
        if layout.batch is None or (rows.ids, rows.first, rows.last) != (x.ids, x.first, x.last):
            raise StreamOnlineError(
                f"online_arguments: StreamTensors with the rows [{x._layout.rows}] and [{rows}] came; equal ids, in "
                "one order, that begin and end together were expected; bring them into one order, or make calls of "
                "their own for other signals"
            )
        at = len(came)
        stands = [
            0 if first else (self.live.get(id) or (None,) * (at + 1))[at]
            for id, first in zip(rows.ids, rows.first, strict=True)
        ]
        for id, here, start in zip(rows.ids, stands, rows.start, strict=True):
            if None not in (here, start) and here != start:
                raise StreamOnlineError(
                    f"online_gap: a piece of {id!r} came that starts at sample {start} of its signal; {here} was "
                    "expected, as so many came; hand in every piece once and in order"
                )
        starts = tuple([begun if here is None else here for here, begun in zip(stands, rows.start, strict=True)])
        came.append(tuple([None if here is None else here + n for here, n in zip(starts, rows.lengths, strict=True)]))
        placed = layout.having(RowData(rows.ids, rows.first, rows.last, rows.lengths, starts))
        return widened(with_layout(bare(value).clone(), placed))

    def _lengths(self, x: StreamTensor, value: Any) -> Any:
        # The lengths of the rows are those of pieces, in whatever form they come.
        lengths = list(x._layout.rows.lengths)
        if isinstance(value, Tensor) and value.dim() == 1 and not value.is_floating_point():
            if value.tolist() == lengths:
                return of_pieces(value.clone())
        return value

    def _require_all_rows(self, call: _Call, before: Any, x: StreamTensor) -> None:
        # A layer that has had pieces of a signal must get all of them.
        for layer, (_, (standing, _)) in zip(self.layers.values(), before, strict=True):
            for id, first in zip(x.ids, x.first, strict=True):
                if not first and standing[0][id] is not None and id not in call.took.get(layer, ()):
                    raise StreamOnlineError(
                        f"online_gap: {type(layer.net).__name__} was not given the piece of {id!r}, of which it had "
                        "those before; every piece of a signal was expected; let the forward run all its layers on all "
                        "rows"
                    )

    def _require_no_memory(self, kept: Any, versions: List[Optional[int]]) -> None:
        # What a forward keeps for its next call would be that of other pieces.
        for module, attributes, buffers in kept:
            for name, value in module.__dict__.items():
                before = attributes.get(name)
                if value is not before and before is not None and not isinstance(value, StreamTensor):
                    raise _remembering(module, name)
            for name, buffer in module._buffers.items():
                if buffer is not buffers.get(name):
                    raise _remembering(module, name)
        if versions != [_version(buffer) for module in self._own for buffer in module._buffers.values()]:
            raise _remembering(self.net, "a buffer")

    def ids(self) -> Tuple[Hashable, ...]:
        """Of the signals that have begun and not ended."""
        return tuple(self.live)

    def get(self, id: Hashable) -> Dict[str, Tensor]:
        """The state of a signal, of every layer."""
        state = {
            f"{path}/{name}": tensor
            for path, layer in self.layers.items()
            if id in layer.runner.rows
            for name, tensor in layer.runner.get(id).items()
        }
        came = self.live[id]
        if None not in came:
            state["@came"] = torch.tensor(came)
        return state

    def set(self, id: Hashable, state: Dict[str, Tensor]) -> None:
        """Let a signal go on from a state."""
        parts: Dict[str, Dict[str, Tensor]] = {}
        own = dict(state)
        came = own.pop("@came", None)
        for name, tensor in own.items():
            path, _, rest = name.partition("/")
            parts.setdefault(path, {})[rest] = tensor
        unknown = [path for path in parts if path not in self.layers]
        if unknown:
            raise StreamOnlineError(
                f"invalid_state: a state of the layers {sorted(parts)} came; the layers of this model are "
                f"{sorted(self.layers)}; take it from stream_state(model).get(id) of the same model"
            )
        before = [(layer.runner, layer.runner.standing([id])) for layer in self.layers.values()]
        try:
            for path, layer in self.layers.items():
                layer.runner.drop(id)
                if path in parts:
                    layer.runner.set(id, parts[path])
        except BaseException:
            for runner, standing in before:
                runner.back_to(standing)
            raise
        self.live[id] = () if came is None else tuple(came.tolist())

    def drop(self, id: Hashable) -> None:
        """Forget a signal."""
        self.live.pop(id, None)
        for layer in self.layers.values():
            layer.runner.drop(id)

    def nbytes_of(self, id: Hashable) -> int:
        """Bytes of the state of a signal."""
        return sum(layer.runner.rows.nbytes_of(id) for layer in self.layers.values() if id in layer.runner.rows)

    def detach(self, ids: Optional[Sequence[Hashable]] = None) -> None:
        """Cut the gradient's path into earlier pieces."""
        for layer in self.layers.values():
            for id in layer.runner.rows.ids() if ids is None else ids:
                if id in layer.runner.rows:
                    layer.runner.rows.detach_state(id)


def _version(buffer: Optional[Tensor]) -> Optional[int]:
    return None if buffer is None or buffer.is_inference() else buffer._version


def _remembering(module: nn.Module, name: str) -> StreamOnlineError:
    return StreamOnlineError(
        f"online_memory: the forward changes {name} of {type(module).__name__}, which its next call would find, "
        "with other pieces; a forward that keeps nothing was expected; let layers remember; or give an "
        "example of the input, with which the model is captured: pts.patch_module(model, example=x)"
    )


def _given(x: StreamTensor, part: Any) -> Any:
    # A part of the output.
    if isinstance(part, PieceLength):
        part._refuse()
    if isinstance(part, RowCount):
        return int.__int__(part)
    if not isinstance(part, Tensor):
        return part
    if not isinstance(part, StreamTensor):
        raise StreamOnlineError(
            f"online_output: the forward gave a plain tensor of shape {list(part.shape)}; a StreamTensor was expected, "
            "so that it is known whose it is; give what is made of the input by operations that keep rows and time"
        )
    if len(part.ids) != len(x.ids) or set(part.ids) != set(x.ids):
        raise StreamOnlineError(
            f"online_output: the forward gave the rows [{part._layout.rows}] for [{x._layout.rows}]; each row once was "
            "expected; keep all rows, and choose in the output"
        )
    return narrowed(part)
