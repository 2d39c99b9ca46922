"""Models captured in several threads at once: what is replaced in torch meanwhile is for one thread, and comes back."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, List

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import DimConstraints, ShapeEnv
from torch.nn.modules import transformer

import torchstreamer as pts
from torchstreamer.graph.exporter_patches import replaced


class Rounded(nn.Module):
    """Checks values and rounds a length by floats."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.conv, self.factor = nn.Conv1d(2, 2, 3).double(), factor

    def forward(self, x: Tensor) -> Tensor:
        assert not x.isnan().any()
        y = self.conv(x)
        return F.interpolate(y, scale_factor=self.factor)[..., : int(y.shape[-1] * self.factor / 2)]


def functions() -> List[Any]:
    return [
        torch.SymBool.__bool__,
        ShapeEnv._set_replacement,
        DimConstraints.solve,
        transformer._detect_is_causal_mask,
        globals().get("int"),
    ]


def test_captures_in_threads() -> None:
    before = functions()
    nets = [Rounded(i % 3 + 1) for i in range(6)]
    x = torch.randn(1, 2, 40, dtype=torch.float64)
    with ThreadPoolExecutor(4) as pool:
        streams = list(pool.map(lambda net: pts.create_stream(net, example=x), nets))
    assert functions() == before
    for net, stream in zip(nets, streams, strict=True):
        y = torch.cat([stream(x[..., :7]), stream(x[..., 7:], final=True)], -1)
        torch.testing.assert_close(y, net(x), rtol=1e-12, atol=1e-12)


def test_a_replacement_is_for_one_thread() -> None:
    class Owner:
        def number(self) -> int:
            return 1

    owner = Owner()
    with ThreadPoolExecutor(1) as pool:
        with replaced(Owner, "number", lambda self: 2):
            assert owner.number() == 2 and pool.submit(owner.number).result() == 1
    assert owner.number() == 1
