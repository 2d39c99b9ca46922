"""Sequential, Residual1d and Parallel1d: exact, aligned, and as prompt as their parts allow."""

import copy

import pytest
import torch
from torch import nn

import torchstreamer as pts
from torchstreamer.core.rates import chain_rates
from torchstreamer.testing import verify_stream


def block(dilation=1):
    convs = nn.Conv1d(4, 4, 3, dilation=dilation), nn.Conv1d(4, 4, 1)
    return pts.Residual1d(nn.Sequential(nn.ELU(inplace=True), *convs))


NETS = {
    "empty": lambda: nn.Sequential(),
    "identity": lambda: nn.Sequential(nn.Identity(), nn.Dropout()),
    "nested": lambda: nn.Sequential(nn.Sequential(nn.Conv1d(4, 4, 3), nn.Sequential(nn.ReLU())), nn.Conv1d(4, 2, 2)),
    "down and up": lambda: nn.Sequential(
        nn.Conv1d(4, 4, 4, 2, 1),
        nn.GELU(),
        nn.AvgPool1d(2),
        nn.ConvTranspose1d(4, 4, 4, 2, 1),
        nn.Upsample(scale_factor=2),
    ),
    "rational rates": lambda: nn.Sequential(
        nn.Upsample(scale_factor=1.5, mode="linear"), nn.Conv1d(4, 4, 3, 2, 1), nn.Upsample(scale_factor=2 / 3)
    ),
    "emits nothing for long": lambda: nn.Sequential(nn.Conv1d(4, 4, 4, 4), nn.ConvTranspose1d(4, 2, 8, 4)),
    "residual, same": lambda: pts.Residual1d(nn.Conv1d(4, 4, 5, padding=2)),
    "residual, valid, even": lambda: pts.Residual1d(nn.Conv1d(4, 4, 4)),
    "residual of nothing": lambda: pts.Residual1d(nn.Identity()),
    "residual, in place": lambda: nn.Sequential(block(), block(3)),
    "residual, cropping": lambda: pts.Residual1d(nn.ConstantPad1d((-5, 1), 0.0)),
    "residual, causal": lambda: pts.Residual1d(nn.Sequential(nn.ZeroPad1d((4, 0)), nn.Conv1d(4, 4, 5))),
    "residual, long": lambda: pts.Residual1d(nn.Conv1d(4, 4, 2, dilation=200)),
    "residual, transposed": lambda: pts.Residual1d(nn.ConvTranspose1d(4, 4, 3, padding=3)),
    "residual in residual": lambda: pts.Residual1d(nn.Sequential(block(), nn.Conv1d(4, 4, 2), block(2))),
    "parallel, one": lambda: pts.Parallel1d(nn.Identity()),
    "parallel, add": lambda: pts.Parallel1d(
        nn.Conv1d(4, 4, 3, padding=1), nn.Conv1d(4, 4, 9, padding=4), nn.Identity()
    ),
    "parallel, mul": lambda: pts.Parallel1d(nn.Conv1d(4, 4, 3), nn.Sigmoid(), merge="mul"),
    "parallel, cat": lambda: pts.Parallel1d(nn.Conv1d(4, 2, 3), nn.Conv1d(4, 4, 6), nn.MaxPool1d(3, 1), merge="cat"),
    "parallel, broadcast": lambda: pts.Parallel1d(nn.Conv1d(4, 1, 1), nn.ReLU(inplace=True), merge="mul"),
    "parallel, strided": lambda: pts.Parallel1d(nn.Conv1d(4, 4, 4, 2, 1), nn.MaxPool1d(2), nn.Conv1d(4, 4, 1, 2)),
    "parallel, upsampled": lambda: pts.Parallel1d(
        nn.ConvTranspose1d(4, 4, 4, 2, 1), nn.Upsample(scale_factor=2, mode="linear"), nn.Upsample(scale_factor=2)
    ),
    "parallel in residual": lambda: pts.Residual1d(
        pts.Parallel1d(nn.Conv1d(4, 2, 3), nn.Conv1d(4, 2, 5, dilation=2), merge="cat")
    ),
    "twice the same": lambda: nn.Sequential(*[nn.Conv1d(4, 4, 3)] * 2),
    "codec": lambda: nn.Sequential(
        nn.Conv1d(4, 4, 7, padding=3),
        block(),
        nn.Conv1d(4, 8, 4, 2, 1),
        nn.BatchNorm1d(8),
        nn.Conv1d(8, 8, 8, 4, 2),
        nn.ConvTranspose1d(8, 8, 8, 4, 2),
        nn.PReLU(8),
        nn.ConvTranspose1d(8, 4, 4, 2, 1),
        block(2),
        nn.Conv1d(4, 2, 7, padding=3, padding_mode="reflect"),
        nn.Tanh(),
    ),
}


@pytest.mark.sample(
    "empty",
    "residual, valid, even",
    "emits nothing for long",
    rest=5,
    long=(
        "residual, in place",
        "parallel, strided",
        "parallel in residual",
        "down and up",
        "parallel, upsampled",
        "residual in residual",
        "codec",
    ),
)
@pytest.mark.parametrize("name", NETS)
def test_container(name):
    torch.manual_seed(5)
    net = NETS[name]().eval()
    # Linear upsampling in torch's float32 is off by 1e-5 after 100 samples.
    linear = any(isinstance(module, nn.Upsample) and module.mode == "linear" for module in net.modules())
    verify_stream(net, (2, 4, 240 if "long" in name else 40), dtypes=[torch.float64] if linear else None, static=True)
    if linear:
        wide = copy.deepcopy(net).double()
        verify_stream(
            net, (2, 4, 40), dtypes=[torch.float32], static=False, reference=lambda x: wide(x.double()).float()
        )


def test_rates_of_a_chain():
    def rates(*nets):
        streams = [pts.create_stream(net) for net in nets]
        return chain_rates([(stream.hop, stream.ratio) for stream in streams])

    down2, down3 = nn.Conv1d(1, 1, 2, 2), nn.Conv1d(1, 1, 3, 3)
    up2, up3 = nn.ConvTranspose1d(1, 1, 2, 2), nn.Upsample(scale_factor=3)
    assert rates() == (1, (1, 1))
    assert rates(down2, down3) == (6, (1, 6))
    assert rates(up2, down2) == (1, (1, 1))
    assert rates(down2, up2) == (2, (1, 1))
    assert rates(up3, down2) == (2, (3, 2))
    assert rates(down2, up3, down2) == (4, (3, 4))
    assert rates(nn.Upsample(scale_factor=1.5), nn.Upsample(scale_factor=0.4)) == (10, (3, 5))


def test_the_state_repeats_its_shape_after_a_hop_and_no_sooner():
    net = nn.Sequential(nn.Conv1d(1, 1, 3, 2, 1), nn.Upsample(scale_factor=1.5, mode="linear"), nn.MaxPool1d(3))
    stream = pts.create_stream(net)

    def phase():
        state = stream.get_state()
        return {key: int(value) if value.dim() == 0 else tuple(value.shape) for key, value in state.items()}

    phases = []
    for _ in range(120):
        stream(torch.randn(1, 1))
        phases.append(phase())
    settled = phases[60:]
    assert stream.hop == 4 and all(a == b for a, b in zip(settled, settled[4:], strict=False))
    assert settled[0] != settled[2]


def test_residual_crops_as_the_published_module():
    x = torch.arange(10.0).view(1, 1, 10)
    net = pts.Residual1d(nn.ConstantPad1d((0, -3), 0.0))
    assert torch.equal(net(x), x[..., :7] + x[..., 1:8])


def test_parallel_crops_surplus_evenly():
    x = torch.arange(10.0).view(1, 1, 10)
    net = pts.Parallel1d(nn.ConstantPad1d((0, -5), 0.0), nn.Identity(), merge="cat")
    assert torch.equal(net(x), torch.stack([x[0, 0, :5], x[0, 0, 2:7]])[None])


def test_channels_are_checked_through_the_whole_net_before_anything_is_written():
    net = nn.Sequential(nn.MaxPool1d(3, 1), pts.Parallel1d(nn.Conv1d(2, 3, 3), nn.Conv1d(2, 3, 1)), nn.GLU(dim=1))
    stream = pts.create_stream(net)
    with pytest.raises(pts.StreamInputError, match="a multiple of 2 were expected"):
        stream(torch.randn(2, 9))
    assert not stream.get_state()["streams.0.ring.data"].numel()
    with pytest.raises(pts.StreamInputError, match="branches give 3 and 2 channels"):
        pts.create_stream(pts.Parallel1d(nn.Conv1d(2, 3, 1), nn.Identity()))(torch.randn(2, 9))


def test_a_residual_takes_its_inner_network_too():
    inner = nn.Conv1d(2, 2, 3)
    x = torch.randn(1, 2, 9)
    torch.testing.assert_close(pts.Residual1dStream(inner)(x, final=True), pts.Residual1d(inner)(x))


def test_residual_refuses_a_handler_that_does_not_tell_its_length():
    class Quiet(nn.Module):
        def forward(self, x):
            return x

    class QuietStream(pts.BaseStream):
        def __init__(self, net):
            super().__init__()

        def forward(self, x: torch.Tensor, final: bool = False):
            return x

    from torchstreamer.core import registry

    try:
        pts.register_streamer(Quiet, QuietStream)
        with pytest.raises(pts.UnsupportedModuleError, match="^no_output_length: "):
            pts.create_stream(pts.Residual1d(Quiet()))
    finally:
        registry._factories.pop(Quiet)
