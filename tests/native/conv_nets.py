"""Networks of convolutions and what stands beside them."""

import torch
from torch import nn

C, T = nn.Conv1d, nn.ConvTranspose1d


class Branches(nn.Module):
    """Residual sums, whose branches come at different times."""

    def __init__(self) -> None:
        super().__init__()
        self.first = C(2, 6, 5, padding=2)
        self.block = nn.Sequential(C(6, 6, 3, padding=4, dilation=4), nn.ReLU(), C(6, 6, 1))
        self.last = C(6, 1, 3)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.last(x + self.block(x) * 0.5)


class Causal(nn.Module):
    """Padding on the left alone."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([C(4, 4, 3, dilation=2**i) for i in range(4)])

    def forward(self, x):
        for i, conv in enumerate(self.convs):
            x = x + torch.tanh(conv(nn.functional.pad(x, (2 * 2**i, 0))))
        return x


class Dense(nn.Module):
    """Linear layers over the channels of every sample."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer, self.conv = nn.Linear(3, 9), nn.Linear(9, 2), C(3, 3, 4, padding="same")

    def forward(self, x):
        return self.outer(torch.sigmoid(self.inner(self.conv(x).transpose(1, 2)))).transpose(1, 2)


def normed(channels: int) -> nn.BatchNorm1d:
    net = nn.BatchNorm1d(channels)
    nn.init.normal_(net.running_mean)
    nn.init.uniform_(net.running_var, 0.5, 2)
    nn.init.normal_(net.weight)
    nn.init.normal_(net.bias)
    return net


def channels(net: nn.Module) -> int:
    """Channels in."""
    return next(w.shape[1] for w in net.parameters() if w.dim() > 1)


def nets() -> dict[str, nn.Module]:
    """Networks by name, with weights that are always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = {
            "one": C(1, 1, 1),
            "same": C(3, 20, 5, padding="same"),
            "even_same": C(3, 4, 4, padding="same", dilation=3),
            "valid": C(2, 3, 7),
            "more_padding": C(2, 3, 3, padding=7),
            "wide": nn.Sequential(C(17, 40, 3, padding=1), nn.ReLU(), C(40, 5, 2)),
            "stack": nn.Sequential(*[m for _ in range(4) for m in (C(8, 8, 3, padding=1), nn.ReLU())]),
            "dilated": nn.Sequential(C(1, 8, 3, dilation=9, padding=9), nn.Tanh(), C(8, 1, 3, dilation=2)),
            "depthwise": nn.Sequential(
                C(18, 18, 5, groups=18, padding=2), nn.GELU(), C(18, 18, 3, groups=18, stride=2)
            ),
            "multiplied": C(4, 12, 3, groups=4, padding=1),
            "grouped": nn.Sequential(
                C(6, 8, 3, groups=2, padding=2, bias=False), nn.LeakyReLU(0.2), C(8, 4, 2, groups=4)
            ),
            "strided": nn.Sequential(C(2, 5, 4, stride=2, padding=1), nn.ReLU(), C(5, 5, 3, stride=3, padding=2)),
            "skipping": nn.Sequential(C(1, 3, 2, stride=5), nn.SiLU(), C(3, 2, 1, stride=2)),
            "skipping_padded": C(2, 3, 2, stride=5, padding=1),
            "branches": Branches(),
            "causal": Causal(),
            "dense": Dense(),
            "batch_norm": nn.Sequential(C(3, 5, 3, padding=1, bias=False), normed(5), nn.ReLU(), C(5, 2, 3), normed(2)),
            "pointwise": nn.Sequential(
                C(2, 6, 1), nn.ELU(), nn.PReLU(6), nn.Hardswish(), nn.Softplus(), nn.Hardtanh(-0.5, 0.9), nn.Mish()
            ),
            "padded_by_modules": nn.Sequential(
                nn.ZeroPad1d((3, 1)), C(2, 2, 3), nn.ConstantPad1d((1, 2), 0.7), C(2, 2, 2)
            ),
            "residual": pts_residual(),
            "dropout": nn.Sequential(C(2, 2, 3, padding=1), nn.Dropout(0.5), nn.Identity()),
        }
    return {name: net.eval() for name, net in found.items()}


def pts_residual() -> nn.Module:
    from torchstreamer import Residual1d

    return nn.Sequential(Residual1d(C(3, 3, 5)), nn.ReLU(), Residual1d(nn.Sequential(C(3, 3, 3, padding=1), nn.Tanh())))
