"""`ChunkModule`: a network for inputs that do not fit, of which it computes one chunk at a time."""

from typing import Any, Dict, List, Optional, Sequence, Tuple

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..core.checkpoint import checkpoint_step
from ..core.registry import create_stream
from ..errors import StreamInputError
from .uneven_rows import UnevenRows
from .whole import Result, Signal, device_of

__all__ = ["ChunkModule"]


class ChunkModule(nn.Module):
    """A network that computes its input chunk by chunk, for inputs too long to be computed at once.

    It takes the whole input and gives the whole output, the same as ``net``; in between there is never more than one
    chunk. Input and output may be memory maps, and may stand on another device than the weights, to which only chunks
    go. Its ``state_dict`` has the keys of ``net``'s own, so weights saved from either load into the other.

    Under autograd every chunk keeps what its backward pass needs, which is as much as ``net`` keeps; with
    ``checkpoint`` only the stream's state and the output are kept for each, and the rest is computed again.

    Args:
        net: a network, as for `create_stream`
        chunk: samples of the (first) input at a time, rounded up to a multiple of the stream's ``hop``
        checkpoint: whether a chunk is computed again in the backward pass, which takes less memory and more time
        options: of `create_stream`, such as ``example=``

    Attributes:
        net: the network
        chunk: samples at a time, rounded
        checkpoint: as given

    Shape:
        - input: as of ``net``, ``[B, C, T]`` or ``[C, T]`` unless an example says otherwise; tensors or NumPy arrays
        - output: as of ``net``

    Raises:
        UnsupportedModuleError: the network cannot be streamed
        StreamInputError: ``invalid_chunk_size``

    Example:
        >>> import torch, torchstreamer as pts
        >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 9, stride=4), torch.nn.ReLU(), torch.nn.Conv1d(4, 1, 3))
        >>> chunked, x = pts.ChunkModule(net, chunk=100), torch.randn(2, 1, 1000)
        >>> torch.testing.assert_close(chunked(x), net(x))
        >>> y = chunked(x, lengths=[1000, 500])  # what is beyond 500 in the second row does not count
        >>> torch.testing.assert_close(y[1:, :, : chunked.output_length(500)], net(x[1:, :, :500]))
    """

    def __init__(self, net: nn.Module, chunk: int, checkpoint: bool = False, **options: Any) -> None:
        super().__init__()
        if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
            raise StreamInputError(
                f"invalid_chunk_size: chunk={chunk!r} came; a whole number of samples, at least 1, was expected; as "
                "many as fit well"
            )
        self.net = net
        self.checkpoint = checkpoint
        self._options = options
        self._made: Optional[Tuple[List[Any], Any]] = None
        hop = self._stream().hop
        self.chunk = -(-chunk // hop) * hop
        self.register_state_dict_post_hook(_without_prefix)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_with_prefix)  # type: ignore[no-untyped-call]

    def forward(self, *inputs: Any, lengths: Optional[Sequence[int]] = None, out: Any = None) -> Any:
        """Compute the whole output.

        Args:
            inputs: as of ``net``
            lengths: of the rows of a batch, in samples of the (first) input: what is beyond is padding, which no output
                depends on. The output is as long as without, and zero beyond `output_length` of each row
            out: where to put the output: a tensor or a NumPy array of its shape, or a memory map; values are converted
                to its dtype. Of a network with several outputs a list with one for each

        Returns:
            the output, which stands where the first input does, or ``out``

        Raises:
            StreamInputError: the input does not fit; ``invalid_lengths``; ``invalid_out``
        """
        stream = self._stream()
        try:
            if lengths is not None:
                found = self._ragged(stream, inputs, lengths, out)
            else:
                found = self._whole(stream, inputs, out)
        finally:
            stream.reset()
        if found is not None:
            return found
        # Nothing comes out of so short an input. The network says whether that is an error.
        device = device_of(stream, inputs)
        first = Signal(inputs[0])
        y = self.net(*[None if x is None else Signal(x).whole(device) for x in inputs])
        leaves, spec = pytree.tree_flatten(y)
        results = self._results(out, len(leaves), first)
        for result, leaf in zip(results, leaves, strict=True):
            result.add(leaf, -1, leaf.shape[-1])
        return pytree.tree_unflatten([result.get() for result in results], spec)

    def output_length(self, n: int) -> Any:
        """Length of the output for an input of ``n`` samples; in the structure of the outputs, if there are several."""
        return self._stream().output_length(n)

    def extra_repr(self) -> str:
        return f"chunk={self.chunk}, checkpoint={self.checkpoint}"

    # ------------------------------------------------------------------ one batch

    def _whole(self, stream: Any, inputs: Sequence[Any], out: Any) -> Any:
        ports = getattr(stream, "ports", None)
        signals = self._signals(stream, inputs)
        first = 0 if ports is None else stream.first
        takes, gives = _time_axes(stream, signals)
        device = device_of(stream, inputs)
        lead: Any = signals[first]
        total = lead.shape[takes[first]]
        expected, _ = pytree.tree_flatten(stream.output_length(total))
        results: List[Result] = []
        spec: Any = None
        for begin in range(0, total, self.chunk):
            end = min(begin + self.chunk, total)
            final = end == total
            pieces: List[Optional[Tensor]] = []
            for i, (signal, axis) in enumerate(zip(signals, takes, strict=True)):
                if signal is None or (axis is None and begin > 0):
                    pieces.append(None)
                elif axis is None:
                    pieces.append(signal.whole(device))
                else:
                    ends = [n if ports is None or not n else ports[i].length(n) for n in (begin, end)]
                    pieces.append(signal.piece(ends[0], signal.shape[axis] if final else ends[1], axis, device))
            leaves, spec = pytree.tree_flatten(self._step(stream, pieces, final))
            if not results:
                results = self._results(out, len(leaves), lead)
            for result, leaf, axis, length in zip(results, leaves, gives, expected, strict=True):
                if leaf is not None:
                    result.add(leaf, axis, length)
        if not any(result.begun for result in results):
            return None
        return pytree.tree_unflatten([result.get() for result in results], spec)

    def _signals(self, stream: Any, inputs: Sequence[Any]) -> List[Optional[Signal]]:
        ports = getattr(stream, "ports", None)
        wanted = 1 if ports is None else len(ports)
        if len(inputs) > wanted or len(inputs) <= (0 if ports is None else stream.first):
            raise StreamInputError(
                f"invalid_chunk: {len(inputs)} inputs came; the stream takes {wanted}; give all, in the example that "
                "the module is made with too"
            )
        signals = [None if x is None else Signal(x) for x in inputs]
        for signal in signals:
            if signal is not None and (ports is None and len(signal.shape) < 2 or not signal.shape):
                raise StreamInputError(
                    f"invalid_chunk: an input of shape {list(signal.shape)} came; [B, C, T] or [C, T] was expected; "
                    "reshape it"
                )
        return signals + [None] * (wanted - len(signals))

    def _step(self, stream: Any, pieces: Sequence[Optional[Tensor]], final: bool) -> Any:
        return checkpoint_step(stream, *pieces, final=final) if self.checkpoint else stream(*pieces, final=final)

    def _results(self, out: Any, count: int, like: Signal) -> List[Result]:
        outs = [out] * count if out is None else [out] if count == 1 else list(out)
        if len(outs) != count:
            raise StreamInputError(
                f"invalid_out: {len(outs)} came in out; {count} were expected; one for each output of the model"
            )
        return [Result(where, like.device) for where in outs]

    def _ragged(self, stream: Any, inputs: Sequence[Any], lengths: Sequence[int], out: Any) -> Any:
        signals = self._signals(stream, inputs)
        takes, gives = _time_axes(stream, signals)
        counts = [int(n) for n in lengths]
        uneven = UnevenRows(stream, self._step, self.chunk, signals, takes, gives, counts, device_of(stream, inputs))
        lead: Any = signals[uneven.first]
        return uneven.run(self._results(out, len(gives), lead))

    # ------------------------------------------------------------------ the stream

    def _stream(self) -> Any:
        # Made anew where the network has other tensors, on another device, or is in another mode.
        now: List[Any] = [
            *((tensor, tensor.dtype, tensor.device) for tensor in (*self.net.parameters(), *self.net.buffers())),
            *((module, module.training) for module in self.net.modules()),
        ]
        if self._made is None or not _same(self._made[0], now):
            self._made = now, create_stream(self.net, **self._moved())
        return self._made[1]

    def _moved(self) -> Dict[str, Any]:
        # The example in the dtype and on the device of the weights.
        options = dict(self._options)
        weight = next((p for p in self.net.parameters() if p.is_floating_point()), None)
        if weight is not None and options.get("example") is not None:
            options["example"] = pytree.tree_map(
                lambda x: x.to(weight.device, weight.dtype if x.is_floating_point() else x.dtype), options["example"]
            )
        return options

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "_made": None}


def _same(then: List[Any], now: List[Any]) -> bool:
    return len(then) == len(now) and all(a[0] is b[0] and a[1:] == b[1:] for a, b in zip(then, now, strict=True))


def _time_axes(stream: Any, signals: Sequence[Optional[Signal]]) -> Tuple[List[Optional[int]], List[int]]:
    # Of every input, None for a static one, and of every output.
    if not hasattr(stream, "ports"):
        return [-1], [-1]
    alone = _unbatched(stream, signals)
    ins = [None if port.static else port.time - (alone and 0 <= port.rows < port.time) for port in stream.ports]
    outs = zip(stream.time_axes, stream.row_axes, strict=True)
    return ins, [time - (alone and 0 <= rows < time) for time, rows in outs]


def _unbatched(stream: Any, signals: Sequence[Optional[Signal]]) -> bool:
    # Whether the inputs of a stream with ports have no batch axis.
    return any(
        x is not None and port.rows >= 0 and len(x.shape) == len(port.shape) - 1
        for port, x in zip(stream.ports, signals, strict=False)
    )


def _without_prefix(module: nn.Module, state: Dict[str, Any], prefix: str, metadata: Dict[str, Any]) -> None:
    within = prefix + "net."
    for key in [key for key in state if key.startswith(within)]:
        state[prefix + key.removeprefix(within)] = state.pop(key)


def _with_prefix(module: nn.Module, state: Dict[str, Any], prefix: str, *more: Any) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        state[f"{prefix}net.{key.removeprefix(prefix)}"] = state.pop(key)
