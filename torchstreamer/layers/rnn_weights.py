"""`Recurrent1d`, and the weights of recurrent layers. TorchScript compiles this file."""

# A submodule's methods are not known to the type checker.
# mypy: disable-error-code="operator, union-attr"

from typing import Any, Dict, List, Optional, Sequence, Union

from torch import Tensor, nn
from torch.jit import is_scripting

from ..errors import UnsupportedModuleError
from .weights import PlainWeight, parameter_source

__all__ = ["Recurrent1d", "RecurrentWeights", "refuse_bidirectional", "weights_of"]


class Recurrent1d(nn.Module):
    """A recurrent layer of torch over ``[B, C, T]``, as convolutions have it: its outputs, without the last state.

    Args:
        rnn: a `torch.nn.RNN`, `torch.nn.GRU` or `torch.nn.LSTM`; whatever its ``batch_first`` is
        initial: the state before the first sample, the same for all rows: a parameter or tensor ``[layers, H]`` or
            ``[layers, 1, H]``, two of them for an LSTM. Zeros unless it is given

    Shape:
        - input: ``[B, input_size, T]`` or ``[input_size, T]``
        - output: ``[B, H, T]`` or ``[H, T]``

    Example:
        >>> import torch, torchstreamer as pts
        >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 3), pts.Recurrent1d(torch.nn.GRU(4, 8)))
        >>> stream = pts.create_stream(net)
        >>> x = torch.randn(1, 1, 30)
        >>> y = torch.cat([stream(x[..., :13]), stream(x[..., 13:], final=True)], dim=-1)
        >>> torch.testing.assert_close(y, net(x))
    """

    def __init__(self, rnn: nn.RNNBase, initial: Union[Tensor, Sequence[Tensor], None] = None) -> None:
        super().__init__()
        if not isinstance(rnn, (nn.RNN, nn.GRU, nn.LSTM)):
            raise UnsupportedModuleError(
                "wrong_module", rnn, "a torch.nn.RNN, GRU or LSTM was expected", "give such a layer"
            )
        self.rnn = rnn
        self.in_channels = rnn.input_size
        given = [] if initial is None else [initial] if isinstance(initial, Tensor) else list(initial)
        self.starts = len(given)
        for i, value in enumerate(given):
            if isinstance(value, nn.Parameter):
                self.register_parameter(f"initial{i}", value)
            else:
                self.register_buffer(f"initial{i}", value)

    def initial(self) -> Optional[List[Tensor]]:
        """The tensors of the initial state, or ``None`` if that is zeros."""
        return [getattr(self, f"initial{i}") for i in range(self.starts)] or None

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 2:
            return self.forward(x.unsqueeze(0)).squeeze(0)
        first = self.rnn.batch_first
        hx: Any = None
        if self.starts:
            rows = x.size(0)
            start = [value.unsqueeze(1) if value.dim() == 2 else value for value in self.initial() or ()]
            hx = tuple(value.expand(-1, rows, -1).contiguous() for value in start)
            hx = hx[0] if len(hx) == 1 else hx
        y = self.rnn(x.transpose(1, 2) if first else x.permute(2, 0, 1), hx)[0]
        return y.transpose(1, 2) if first else y.permute(1, 2, 0)


class RecurrentWeights(nn.Module):
    """The weights of a recurrent layer that runs forwards, as torch's operators take them.

    Args:
        sources: modules that give the weights, in torch's order: of each layer those of the input and of the hidden
            state, then both biases if there are any, then that of the projection
        layers: their number
        bias: whether there are biases
        nonlinearity: of a `torch.nn.RNN`

    Attributes:
        input_size: channels in
        hidden_size: size of the state
        proj_size: size of the output of a projection, or 0
        output_size: channels out
        per_layer: how many weights a layer has
    """

    __jit_ignored_attributes__ = ["_tables"]

    def __init__(self, sources: Sequence[nn.Module], layers: int, bias: bool, nonlinearity: str = "tanh") -> None:
        super().__init__()
        self.sources = nn.ModuleList(sources)
        self.layers = layers
        self.bias = bias
        self.nonlinearity = nonlinearity
        self.per_layer = len(sources) // layers
        tensors = [source() for source in sources]
        projected = self.per_layer % 2 == 1
        self.input_size = int(tensors[0].shape[1])
        self.output_size = int(tensors[1].shape[1])
        self.hidden_size = int(tensors[self.per_layer - 1].shape[1]) if projected else self.output_size
        self.proj_size = self.output_size if projected else 0
        # Where modules keep plain weights: calls of them all at every step would cost as much as the step.
        self._tables: Optional[List[Dict[str, Any]]] = None

    def tensors(self) -> List[Tensor]:
        """All weights, of layer after layer."""
        if not is_scripting():
            tables = self._tables
            return self._look_up() if tables is None else [table["weight"] for table in tables]
        found: List[Tensor] = []
        for source in self.sources:
            found.append(source())
        return found

    def anchor(self) -> Optional[Tensor]:
        """A parameter that says dtype and device."""
        for source in self.sources:
            return source.anchor()
        return None

    def _look_up(self) -> List[Tensor]:
        if all(isinstance(source, PlainWeight) for source in self.sources):
            both = [(source._parameters, source._buffers) for source in self.sources]
            self._tables = [parameters if "weight" in parameters else buffers for parameters, buffers in both]
        return [source() for source in self.sources]

    def __repr__(self) -> str:
        return "RecurrentWeights()"

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "_tables": None}


def refuse_bidirectional(net: nn.Module) -> UnsupportedModuleError:
    """The error for a layer that runs backwards over time too."""
    return UnsupportedModuleError(
        "bidirectional",
        net,
        "its backward half begins at the end of the signal, so every output needs all of it",
        "train it with bidirectional=False; or, where it need not run over time, fold time into the batch, as "
        "dual-path models do",
    )


def weights_of(net: nn.RNNBase) -> RecurrentWeights:
    """The weights of a layer.

    Raises:
        UnsupportedModuleError: it is bidirectional, drops values in training mode, or a weight is computed in a way
            that is not known
    """
    if net.bidirectional:
        raise refuse_bidirectional(net)
    if net.dropout > 0 and net.training and net.num_layers > 1:
        raise UnsupportedModuleError(
            "training_mode",
            net,
            "in training mode it drops random values between its layers",
            "call eval() first",
        )
    sources = [parameter_source(net, name) for name in net._flat_weights_names]
    return RecurrentWeights(sources, net.num_layers, net.bias, getattr(net, "nonlinearity", "tanh"))
