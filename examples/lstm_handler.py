"""A handler of your own: an LSTM. It says how a state begins and what a chunk makes of it; all else follows from that.

python examples/lstm_handler.py [output.onnx]
"""

import sys
from pathlib import Path
from typing import List, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchstreamer as pts


class Lstm(nn.Module):
    """An LSTM over time: [B, C, T] to [B, H, T]."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(channels, hidden, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x.transpose(1, 2))[0].transpose(1, 2)


@pts.register_streamer(Lstm)
class LstmStream(pts.RecurrentStream):
    def __init__(self, net: Lstm) -> None:
        super().__init__(net.rnn.input_size, net.rnn.hidden_size, ["hidden", "cell"])
        self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh = net.rnn.all_weights[0]

    def initial(self, x: Tensor) -> List[Tensor]:
        zeros = x.new_zeros([x.size(0), self.weight_hh.size(1)])
        return [zeros, zeros]

    def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        h, c = state
        ys: List[Tensor] = []
        for sample in F.linear(x.transpose(1, 2), self.weight_ih, self.bias_ih).unbind(1):
            i, f, g, o = (sample + F.linear(h, self.weight_hh, self.bias_hh)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            ys.append(h)
        return torch.stack(ys, 2), [h, c]


if __name__ == "__main__":
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(1, 8, 4, stride=2), Lstm(8, 16), nn.Conv1d(16, 1, 3)).eval()
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "lstm").with_suffix(".onnx")
    pts.export(pts.create_stream(net), path, chunk=4)
    x = torch.randn(1, 1, 403)
    with torch.no_grad():
        for name, stream in {"stream": pts.create_stream(net), path.name: pts.load(path)}.items():
            pieces = [stream(chunk) for chunk in torch.split(x, 10, -1)] + [stream.flush()]
            y, whole = torch.cat([piece for piece in pieces if piece is not None], -1), net(x)
            assert y.shape == whole.shape, f"{tuple(y.shape)}, not {tuple(whole.shape)}"
            print(f"{name}: largest difference {(y - whole).abs().max() / whole.abs().max():.1e} of the output's scale")
