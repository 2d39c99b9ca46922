"""Recurrent layers whose weights are computed: weight norm and spectral norm by either API, and any parametrization."""

from typing import Any, Callable, Dict

import pytest
import torch
from recurrent_signals import differs, joined, normal
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, spectral_norm, weight_norm

import torchstreamer as pts
from torchstreamer.testing import verify_stream

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")


class Bounded(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return torch.tanh(weight + 0.1)


def bounded(rnn: nn.Module, name: str) -> Any:
    parametrize.register_parametrization(rnn, name, Bounded())
    return rnn


LAYERS: Dict[str, Callable[[], Any]] = {
    "weight norm": lambda: parametrizations.weight_norm(nn.GRU(3, 4), "weight_hh_l0"),
    "weight norm, old": lambda: weight_norm(nn.LSTM(3, 4, batch_first=True), "weight_hh_l0", dim=None),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.RNN(3, 4), "weight_ih_l0"),
    # Of the weights of the input: with those of the state at norm 1, rounding errors grow a millionfold in 270 samples.
    "spectral norm, old": lambda: spectral_norm(nn.GRU(3, 4), "weight_ih_l0"),
    "a bias": lambda: bounded(nn.GRU(3, 4), "bias_hh_l0"),
    "both layers": lambda: parametrizations.spectral_norm(
        parametrizations.weight_norm(nn.LSTM(3, 4, 2), "weight_ih_l0"), "weight_hh_l1"
    ),
}


@pytest.mark.parametrize("name", list(LAYERS))
def test_follows_its_parameters(name: str) -> None:
    torch.manual_seed(0)
    net, x = pts.Recurrent1d(LAYERS[name]()).double().eval(), normal(2, 3, 40)
    stream = pts.create_stream(net)
    with torch.no_grad():
        first = joined(stream, x, 1, 1, 25)
        for parameter in net.parameters():
            parameter.mul_(1.3)
        whole = net(x)
        assert differs(first, whole) > 1e-2
        for each in (stream, torch.jit.script(stream)):
            assert differs(joined(each, x, 1, 1, 25), whole) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["weight norm", "spectral norm, old"])
def test_every_rule(name: str) -> None:
    torch.manual_seed(0)
    verify_stream(LAYERS[name]().eval(), (2, 3, 30), static=True)


def test_refused() -> None:
    for rnn, code in (
        (LAYERS["spectral norm"](), "training_mode"),
        (LAYERS["spectral norm, old"](), "training_mode"),
        (bounded(bounded(nn.GRU(3, 4), "weight_ih_l0"), "weight_hh_l0").eval(), ""),
        (parametrizations.orthogonal(nn.GRU(3, 4), "weight_hh_l0").eval(), ""),
    ):
        try:
            pts.create_stream(rnn)
        except pts.UnsupportedModuleError as error:
            assert error.code == code
        else:
            assert not code
