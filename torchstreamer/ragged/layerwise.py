"""Models that are streamed layer by layer: their own ``forward`` runs on pieces, and layers remember."""

from typing import Any, Dict, Hashable, Optional, Sequence, Tuple

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
from .running import Runner
from .strict import Strict, packed_like, rows_of_packed
from .tensor import StreamTensor

__all__ = ["Layerwise"]

# What treats every sample alone runs as it is, in whatever layout it stands.
_AS_THEY_ARE = (PointwiseStream, IdentityStream, BatchNorm1dStream, ChannelNormStream)


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
        self.used = False

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        packed = isinstance(x, nn.utils.rnn.PackedSequence)
        if not packed and not isinstance(x, StreamTensor):
            return self.net(x, *args, **kwargs)  # of no signal
        if any(value is not None for value in (*args, *kwargs.values())):
            self._refuse("online_arguments", "more than its input came", "only the input", "leave the others out")
        if self.used:
            self._refuse(
                "online_layer_twice",
                "the forward called it twice",
                "once, as it remembers one signal for each row",
                "give an example: pts.patch_module(model, example=x)",
            )
        self.used = True
        rows = rows_of_packed(x) if packed else x
        for id, first in zip(rows.ids, rows.first, strict=True):
            if not first and id not in self.runner.rows:
                self._refuse(
                    "online_gap",
                    f"a piece of {id!r} came, of which none came before",
                    "every piece of a signal, from its first one on",
                    "let the forward run all its layers on all rows",
                )
        with torch._C.DisableTorchFunction():
            y = self.runner.step(rows)
            if packed:
                return packed_like(x, y), _LastState(self.net)
        return (y, _LastState(self.net)) if self.recurrent else y

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("net"), name)

    def _refuse(self, code: str, came: str, expected: str, remedy: str) -> None:
        raise StreamOnlineError(f"{code}: {type(self.net).__name__}: {came}; {expected}, was expected; {remedy}")


class _LastState:
    # In the place of the state that a recurrent layer gives at the end of the signal.

    def __init__(self, net: nn.Module) -> None:
        self._net = net

    def __getattr__(self, name: str) -> Any:
        return self._refuse()

    def _refuse(self, *args: Any) -> Any:
        raise StreamOnlineError(
            f"final_state: the forward uses the last state of {type(self._net).__name__}, which is that of the end "
            "of the signal; its outputs alone were expected to be used; take the last sample of them when the signal "
            "has ended"
        )

    __getitem__ = __iter__ = __len__ = __add__ = __mul__ = __sub__ = __bool__ = _refuse
    __torch_function__ = classmethod(lambda cls, func, types, args=(), kwargs=None: _refuse_last())


def _refuse_last() -> Any:
    raise StreamOnlineError(
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
        self.live: Dict[Hashable, None] = {}

    def step(self, args: Tuple[Any, ...], kwargs: Dict[str, Any], x: StreamTensor) -> Any:
        """What the forward gives for pieces; if it raises, no signal has changed."""
        ids = x.ids
        before = [(layer.runner, layer.runner.standing(ids)) for layer in self.layers.values()]
        for layer in self.layers.values():
            layer.used = False
        try:
            with Strict():
                y = self.net.forward(*args, **kwargs)
            for part in pytree.tree_leaves(y):
                if isinstance(part, Tensor) and not isinstance(part, StreamTensor):
                    raise StreamOnlineError(
                        f"online_output: the forward gave a plain tensor of shape {list(part.shape)}; a StreamTensor "
                        "was expected, so that it is known whose it is; give what is made of the input by operations "
                        "that keep rows and time"
                    )
        except BaseException:
            for runner, standing in before:
                runner.back_to(standing)
            raise
        for id, last in zip(ids, x.last, strict=True):
            if last:
                self.drop(id)
            else:
                self.live[id] = None
        return y

    def ids(self) -> Tuple[Hashable, ...]:
        """Of the signals that have begun and not ended."""
        return tuple(self.live)

    def get(self, id: Hashable) -> Dict[str, Tensor]:
        """The state of a signal, of every layer."""
        return {
            f"{path}/{name}": tensor
            for path, layer in self.layers.items()
            if id in layer.runner.rows
            for name, tensor in layer.runner.get(id).items()
        }

    def set(self, id: Hashable, state: Dict[str, Tensor]) -> None:
        """Let a signal go on from a state."""
        parts: Dict[str, Dict[str, Tensor]] = {}
        for name, tensor in state.items():
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
        self.live[id] = None

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
