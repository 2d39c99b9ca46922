"""Networks without their padding, and the edges of networks that have it everywhere."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

import torchstreamer as pts
from torchstreamer.testing import verify_stream


def padded_everywhere():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.ReflectionPad1d((2, 1)),
        nn.Conv1d(2, 4, 5, padding=4),
        nn.ELU(inplace=True),
        nn.Conv1d(4, 4, 4, padding="same", dilation=2),
        pts.Residual1d(nn.Conv1d(4, 4, 3, padding=1, padding_mode="reflect")),
        nn.AvgPool1d(3, 1, padding=1, count_include_pad=False),
        nn.Conv1d(4, 4, 3, padding=2, padding_mode="replicate", stride=2),
        nn.ReplicationPad1d(1),
        nn.ConvTranspose1d(4, 2, 4, stride=2, padding=1),
        nn.ConstantPad1d((1, 2), 0.5),
    )


@pytest.mark.long
def test_equal_at_the_first_and_last_sample():
    net = padded_everywhere().double()
    x = torch.randn(1, 2, 50).double()
    stream = pts.create_stream(net)
    pieces = [stream(x[..., i : i + 1]) for i in range(50)] + [stream.flush()]
    y = torch.cat([piece for piece in pieces if piece is not None], -1)
    expected = net(x)
    assert y.shape == expected.shape
    for i in (0, 1, 2, -3, -2, -1):
        torch.testing.assert_close(y[..., i], expected[..., i], rtol=0, atol=1e-12)
    verify_stream(net.float(), torch.randn(2, 2, 40), static=True)


@pytest.mark.long
def test_without_padding_is_the_valid_convolution():
    net = padded_everywhere()
    valid = pts.without_padding(net)
    x = torch.randn(1, 2, 60)
    y = x
    for module in net:
        if isinstance(module, nn.Conv1d):
            y = nn.functional.conv1d(y, module.weight, module.bias, module.stride, 0, module.dilation)
        elif isinstance(module, nn.ConvTranspose1d):
            y = nn.functional.conv_transpose1d(y, module.weight, module.bias, module.stride)
        elif isinstance(module, nn.AvgPool1d):
            y = nn.functional.avg_pool1d(y, 3, 1)
        elif isinstance(module, pts.Residual1d):
            conv = module.net
            y = nn.functional.conv1d(y, conv.weight, conv.bias) + y[..., 1:-1]
        elif isinstance(module, nn.ELU):
            y = nn.functional.elu(y)
    torch.testing.assert_close(valid(x), y)
    verify_stream(valid, torch.randn(2, 2, 60), static=True)


def test_without_padding_leaves_the_net_alone():
    net = padded_everywhere()
    x = torch.randn(1, 2, 30)
    expected = net(x)
    valid = pts.without_padding(net)
    with torch.no_grad():
        for p in valid.parameters():
            p.zero_()
    torch.testing.assert_close(net(x), expected)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
@pytest.mark.parametrize("norm", [weight_norm, parametrizations.weight_norm])
def test_without_padding_of_normed_layers(norm):
    net = norm(nn.Conv1d(2, 3, 5, padding=2))
    x = torch.randn(1, 2, 20)
    torch.testing.assert_close(pts.without_padding(net)(x), nn.functional.conv1d(x, net.weight, net.bias))


def test_without_padding_keeps_crops_and_two_dimensions():
    assert pts.without_padding(nn.ConstantPad1d((-2, 3), 0.0)).padding == (-2, 0)
    assert isinstance(pts.without_padding(nn.ReflectionPad1d(2)), nn.Identity)
    net = pts.without_padding(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"))
    assert net(torch.zeros(1, 1, 9, 9)).shape == (1, 1, 7, 7)
    assert pts.without_padding(nn.MaxPool2d(3, 1, padding=1))(torch.zeros(1, 1, 9, 9)).shape == (1, 1, 7, 7)
