"""Networks of other layers than convolutions."""

import torch
from torch import nn

import torchstreamer as pts

C, T = nn.Conv1d, nn.ConvTranspose1d


class Over(nn.Module):
    """A function of values ``[B, C, T]``, after a convolution."""

    def __init__(self, function, channels: int = 4, net: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = C(3, channels, 3, padding=1)
        self.net = net or nn.Identity()
        self.function = function

    def forward(self, x):
        return self.function(self.net(self.conv(x)))


def channels(net: nn.Module) -> int:
    """Channels in."""
    if isinstance(net, Over):
        return 3
    first = next((m for m in net.modules() if isinstance(m, (C, T, nn.RNNBase))), None)
    if isinstance(first, nn.RNNBase):
        return first.input_size
    return first.in_channels if first is not None else 3


def options() -> dict:
    return {
        name: {"channels": 3}
        for name in (
            "reflect_alone",
            "replicate_alone",
            "max_pool",
            "max_padded",
            "average",
            "average_ceil",
            "average_alone",
            "nearest",
            "linear",
            "linear_down",
            "prelu",
        )
    }


def nets() -> dict[str, nn.Module]:
    """Networks by name."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = {
            "transposed": T(3, 5, 4, stride=2, padding=1),
            "transposed_long": nn.Sequential(
                T(2, 18, 9, stride=3, padding=2, output_padding=1), nn.ReLU(), C(18, 2, 3)
            ),
            "transposed_grouped": T(4, 6, 5, stride=2, groups=2),
            "transposed_depthwise": T(4, 4, 5, stride=1, groups=4, padding=2),
            "transposed_dilated": T(2, 3, 3, stride=2, dilation=3, padding=1),
            "down_up": nn.Sequential(
                C(2, 6, 4, stride=2, padding=1), nn.LeakyReLU(0.1), T(6, 2, 4, stride=2, padding=1)
            ),
            "reflect": nn.Sequential(
                C(2, 4, 5, padding=2, padding_mode="reflect"), nn.ReLU(), C(4, 2, 3, padding=3, padding_mode="reflect")
            ),
            "replicate": C(2, 4, 5, padding=4, stride=2, padding_mode="replicate"),
            "reflect_alone": nn.Sequential(nn.ReflectionPad1d((3, 2))),
            "replicate_alone": nn.Sequential(nn.ReplicationPad1d((3, 2)), nn.Tanh()),
            "max_pool": nn.MaxPool1d(3, 2),
            "max_padded": nn.MaxPool1d(5, 2, padding=2, dilation=1, ceil_mode=True),
            "average": nn.AvgPool1d(4, 2, padding=1),
            "average_ceil": nn.AvgPool1d(3, 2, padding=1, ceil_mode=True, count_include_pad=False),
            "average_alone": nn.AvgPool1d(2),
            "nearest": nn.Upsample(scale_factor=3),
            "linear": nn.Upsample(scale_factor=2, mode="linear"),
            "linear_down": nn.Upsample(scale_factor=0.5, mode="linear", align_corners=False),
            "elu": Over(torch.nn.functional.elu),
            "prelu": nn.PReLU(3),
            "functions": Over(
                lambda x: torch.exp(-x.abs()) + torch.log1p(x * x) + torch.sin(x) * torch.sqrt(x.abs()) + x**3
            ),
            "softmax": Over(lambda x: torch.softmax(x, 1)),
            "log_softmax": Over(lambda x: torch.log_softmax(x, 1)),
            "glu": Over(lambda x: nn.functional.glu(x, 1)),
            "means": Over(lambda x: x - x.mean(1, keepdim=True) + x.amax(1, keepdim=True)),
            "cat": Over(lambda x: torch.cat([x, x.flip(1) * 2, x[:, 1:3]], 1)),
            "split": Over(lambda x: x.chunk(2, 1)[0] * torch.sigmoid(x.chunk(2, 1)[1])),
            "where": Over(lambda x: torch.where(x > 0, x, torch.zeros_like(x) - 1).clamp(max=0.7)),
            "layer_norm": Over(lambda x: x, 6, nn.Sequential(Turned(nn.LayerNorm(6)))),
            "group_view": Over(lambda x: x.view(x.shape[0], 2, 2, -1).sum(1)),
            "cumulative": Over(
                lambda x: x.cumsum(-1) / 9 + x.cummax(-1)[0] + x.cummin(-1)[0] + (x / 9 + 1).cumprod(-1)
            ),
            "logcumsumexp": Over(lambda x: x.logcumsumexp(-1) + x.cumsum(1)),
            "running_mean": Over(lambda x: x.cumsum(-1) / torch.arange(1, x.shape[-1] + 1, dtype=x.dtype)),
            "positions": Over(lambda x: x + torch.sin(0.3 * torch.arange(2, 2 + x.shape[-1], dtype=x.dtype))),
            "more_samples": Over(lambda x: x.view(x.shape[0], 2, 2, -1).transpose(2, 3).flatten(2)),
            "folded": Over(
                lambda x: nn.functional.conv_transpose1d(
                    torch.conv1d(x.reshape(-1, 2, x.shape[-1]), torch.full([3, 2, 3], 0.3), padding=1),
                    torch.full([3, 2, 4], 0.2),
                    torch.tensor([0.1, 0.2]),
                    stride=2,
                    padding=1,
                ).reshape(x.shape[0], 4, -1)
            ),
            "gelu": nn.Sequential(
                C(2, 3, 3), nn.GELU(), C(3, 3, 1), nn.GELU(approximate="tanh"), nn.Softsign(), nn.LogSigmoid()
            ),
            "gru": pts.Recurrent1d(nn.GRU(3, 5)),
            "gru_lag": nn.Sequential(
                C(2, 3, 5, padding=1), pts.Recurrent1d(nn.GRU(3, 17, num_layers=2)), C(17, 2, 3, padding=2)
            ),
            "lstm": nn.Sequential(
                C(2, 4, 3, padding=1, stride=2), pts.Recurrent1d(nn.LSTM(4, 6)), T(6, 1, 2, stride=2)
            ),
            "lstm_projected": pts.Recurrent1d(nn.LSTM(3, 8, proj_size=3)),
            "rnn": pts.Recurrent1d(nn.RNN(3, 4, nonlinearity="relu", bias=False)),
        }
    return {name: net.eval() for name, net in found.items()}


class Turned(nn.Module):
    """A layer over the channels of every sample."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x.transpose(1, 2)).transpose(1, 2)
