"""Streams of torch's recurrent layers: `torch.nn.RNN`, `torch.nn.GRU` and `torch.nn.LSTM`.

TorchScript compiles this file, so it uses no postponed annotations.
"""

# A submodule's methods are not known to the type checker.
# mypy: disable-error-code="operator, union-attr"

from typing import Any, Dict, List, NoReturn, Optional, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.registry import require_plain
from ..errors import UnsupportedModuleError
from .limits import recurrent_samples
from .recurrent import RecurrentStream
from .rnn_weights import Recurrent1d, RecurrentWeights
from .torch_recurrent import Start, TorchRecurrentStream, affine_rows, joined

__all__ = ["GRUStream", "LSTMStream", "RNNStream", "recurrent_stream", "refuse_cell"]


class RNNStream(TorchRecurrentStream):
    """Stream of a `torch.nn.RNN` over channels first: of ``Recurrent1d(net)``, see `Recurrent1d`.

    Args:
        net: the layer; several layers, and either nonlinearity
        initial: its initial state, as of `Recurrent1d`

    Shape:
        - input: ``[B, input_size, T]`` or ``[input_size, T]``, whatever ``batch_first`` is
        - output: ``[B, hidden_size, T]`` or ``[hidden_size, T]``

    Raises:
        UnsupportedModuleError: it is bidirectional, or drops values between its layers in training mode

    Example:
        >>> import torch, torchstreamer as pts
        >>> rnn = torch.nn.RNN(4, 8, nonlinearity="relu")
        >>> x = torch.randn(1, 4, 30)
        >>> stream = pts.create_stream(rnn)
        >>> y = torch.cat([stream(x[..., :13]), stream(x[..., 13:], final=True)], dim=-1)
        >>> torch.testing.assert_close(y, pts.Recurrent1d(rnn)(x))
    """

    def __init__(self, net: Union[nn.RNN, RecurrentWeights], initial: Start = None) -> None:
        super().__init__(net, initial, nn.RNN, ["h"])
        self.relu = net.nonlinearity == "relu"
        self.longest = recurrent_samples(False, self.sizes[0])

    def sample_by_sample(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        w = self.weights.tensors()
        hs = list(state[0].unbind(1))
        ys: List[Tensor] = []
        b_ih: Optional[Tensor] = None
        b_hh: Optional[Tensor] = None
        for sample in x.unbind(2):
            for i in range(self.layers):
                k = i * self.stride
                if self.bias:
                    b_ih, b_hh = w[k + 2], w[k + 3]
                if self.relu:
                    sample = torch.rnn_relu_cell(sample, hs[i], w[k], w[k + 1], b_ih, b_hh)
                else:
                    sample = torch.rnn_tanh_cell(sample, hs[i], w[k], w[k + 1], b_ih, b_hh)
                hs[i] = sample
            ys.append(sample)
        return joined(ys, 2), [joined(hs, 1)]

    @torch.jit.unused
    def cell(
        self, x: Tensor, state: List[Tensor], weight: Tensor, bias: Optional[Tensor], last: Optional[Tensor]
    ) -> List[Tensor]:
        sums = affine_rows(state[0], weight, bias) + x
        return [torch.relu(sums) if self.relu else torch.tanh(sums)]

    def whole(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        h = state[0].transpose(0, 1).contiguous()
        w = self.weights.tensors()
        x = x.permute(2, 0, 1)
        if self.relu:
            y, h = torch.rnn_relu(x, h, w, self.bias, self.layers, 0.0, False, False, False)
        else:
            y, h = torch.rnn_tanh(x, h, w, self.bias, self.layers, 0.0, False, False, False)
        return y.permute(1, 2, 0), [h.transpose(0, 1).contiguous()]


class GRUStream(TorchRecurrentStream):
    """Stream of a `torch.nn.GRU` over channels first: of ``Recurrent1d(net)``, see `Recurrent1d`.

    Args:
        net: the layer; it may have several layers
        initial: its initial state, as of `Recurrent1d`

    Shape:
        - input: ``[B, input_size, T]`` or ``[input_size, T]``, whatever ``batch_first`` is
        - output: ``[B, hidden_size, T]`` or ``[hidden_size, T]``

    Raises:
        UnsupportedModuleError: it is bidirectional, or drops values between its layers in training mode

    Example:
        >>> import torch, torchstreamer as pts
        >>> gru = torch.nn.GRU(4, 8, num_layers=2)
        >>> x = torch.randn(1, 4, 30)
        >>> stream = pts.create_stream(gru)
        >>> y = torch.cat([stream(x[..., :13]), stream(x[..., 13:], final=True)], dim=-1)
        >>> torch.testing.assert_close(y, gru(x.permute(2, 0, 1))[0].permute(1, 2, 0))
    """

    def __init__(self, net: Union[nn.GRU, RecurrentWeights], initial: Start = None) -> None:
        super().__init__(net, initial, nn.GRU, ["h"])
        self.longest = recurrent_samples(False, self.sizes[0])

    def sample_by_sample(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        w = self.weights.tensors()
        if self.layers == 1 and self.bias and x.size(2) == 1:
            h = torch.gru_cell(x.squeeze(2), state[0].squeeze(1), w[0], w[1], w[2], w[3])
            return h.unsqueeze(2), [h.unsqueeze(1)]
        hs = list(state[0].unbind(1))
        ys: List[Tensor] = []
        b_ih: Optional[Tensor] = None
        b_hh: Optional[Tensor] = None
        for sample in x.unbind(2):
            for i in range(self.layers):
                k = i * self.stride
                if self.bias:
                    b_ih, b_hh = w[k + 2], w[k + 3]
                sample = torch.gru_cell(sample, hs[i], w[k], w[k + 1], b_ih, b_hh)
                hs[i] = sample
            ys.append(sample)
        return joined(ys, 2), [joined(hs, 1)]

    @torch.jit.unused
    def cell(
        self, x: Tensor, state: List[Tensor], weight: Tensor, bias: Optional[Tensor], last: Optional[Tensor]
    ) -> List[Tensor]:
        h = state[0]
        x_r, x_z, x_n = x.chunk(3, 1)
        h_r, h_z, h_n = affine_rows(h, weight, bias).chunk(3, 1)
        n = torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n)
        return [n + torch.sigmoid(x_z + h_z) * (h - n)]

    def whole(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        h = state[0].transpose(0, 1).contiguous()
        w = self.weights.tensors()
        y, h = torch.gru(x.permute(2, 0, 1), h, w, self.bias, self.layers, 0.0, False, False, False)
        return y.permute(1, 2, 0), [h.transpose(0, 1).contiguous()]


class LSTMStream(TorchRecurrentStream):
    """Stream of a `torch.nn.LSTM` over channels first: of ``Recurrent1d(net)``, see `Recurrent1d`.

    Args:
        net: the layer; it may have several layers, and ``proj_size``
        initial: its initial state, the hidden and the cell's, as of `Recurrent1d`

    Shape:
        - input: ``[B, input_size, T]`` or ``[input_size, T]``, whatever ``batch_first`` is
        - output: ``[B, H, T]`` or ``[H, T]``, where ``H`` is ``proj_size`` if that is not 0, else ``hidden_size``

    Raises:
        UnsupportedModuleError: it is bidirectional, or drops values between its layers in training mode

    Example:
        >>> import torch, torchstreamer as pts
        >>> lstm = torch.nn.LSTM(4, 8, proj_size=3)
        >>> x = torch.randn(1, 4, 30)
        >>> stream = pts.create_stream(lstm)
        >>> y = torch.cat([stream(x[..., :13]), stream(x[..., 13:], final=True)], dim=-1)
        >>> torch.testing.assert_close(y, lstm(x.permute(2, 0, 1))[0].permute(1, 2, 0))
    """

    def __init__(self, net: Union[nn.LSTM, RecurrentWeights], initial: Start = None) -> None:
        super().__init__(net, initial, nn.LSTM, ["h", "c"])
        self.longest = recurrent_samples(True, self.sizes[1])

    def sample_by_sample(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        w = self.weights.tensors()
        if self.layers == 1 and self.bias and not self.projected and x.size(2) == 1:
            pair = [state[0].squeeze(1), state[1].squeeze(1)]
            h, c = torch.lstm_cell(x.squeeze(2), pair, w[0], w[1], w[2], w[3])
            return h.unsqueeze(2), [h.unsqueeze(1), c.unsqueeze(1)]
        hs = list(state[0].unbind(1))
        cs = list(state[1].unbind(1))
        ys: List[Tensor] = []
        b_ih: Optional[Tensor] = None
        b_hh: Optional[Tensor] = None
        for sample in x.unbind(2):
            for i in range(self.layers):
                k = i * self.stride
                if self.bias:
                    b_ih, b_hh = w[k + 2], w[k + 3]
                if self.projected:
                    gates = F.linear(sample, w[k], b_ih) + F.linear(hs[i], w[k + 1], b_hh)
                    g_i, g_f, g_g, g_o = gates.chunk(4, 1)
                    cs[i] = torch.sigmoid(g_f) * cs[i] + torch.sigmoid(g_i) * torch.tanh(g_g)
                    sample = F.linear(torch.sigmoid(g_o) * torch.tanh(cs[i]), w[k + self.stride - 1])
                else:
                    sample, cs[i] = torch.lstm_cell(sample, [hs[i], cs[i]], w[k], w[k + 1], b_ih, b_hh)
                hs[i] = sample
            ys.append(sample)
        return joined(ys, 2), [joined(hs, 1), joined(cs, 1)]

    @torch.jit.unused
    def cell(
        self, x: Tensor, state: List[Tensor], weight: Tensor, bias: Optional[Tensor], last: Optional[Tensor]
    ) -> List[Tensor]:
        i, f, g, o = (affine_rows(state[0], weight, bias) + x).chunk(4, 1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return [h if last is None else torch.mm(h, last), c]

    def whole(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        h = state[0].transpose(0, 1).contiguous()
        c = state[1].transpose(0, 1).contiguous()
        w = self.weights.tensors()
        y, h, c = torch.lstm(x.permute(2, 0, 1), [h, c], w, self.bias, self.layers, 0.0, False, False, False)
        return y.permute(1, 2, 0), [h.transpose(0, 1).contiguous(), c.transpose(0, 1).contiguous()]


def refuse_cell(net: nn.Module) -> NoReturn:
    """Refuse a cell, which computes one step of a recurrence."""
    whole = type(net).__name__.removesuffix("Cell")
    raise UnsupportedModuleError(
        "single_step",
        net,
        "it computes a single step, and whoever calls it carries its state",
        f"use nn.{whole}, which is the cell along time, or register a handler for the module that calls it in a loop",
    )


def recurrent_stream(net: Recurrent1d) -> RecurrentStream:
    """The stream of a `Recurrent1d`."""
    require_plain(net, Recurrent1d)
    kinds: Dict[type, Any] = {nn.RNN: RNNStream, nn.GRU: GRUStream, nn.LSTM: LSTMStream}
    kind = next(kinds[base] for base in type(net.rnn).__mro__ if base in kinds)
    try:
        stream: TorchRecurrentStream = kind(net.rnn, net.initial())
    except UnsupportedModuleError as error:
        raise error.within(net) from None
    stream.axes = None
    return stream
