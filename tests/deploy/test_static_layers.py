"""Every layer with all its arguments in a static step: rows of any age, exact from first to last sample."""

import os
from typing import Any

import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from random_graphs import RandomGraph, graphs
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.testing.live_rows import LiveRows
from torchstreamer.testing.strategies import CHANNELS, layer_nets, networks

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "dev")
STEPS = 200 if PROFILE == "thorough" else 50

# torch says so once a process, which as an error would look like a signal that is too short.


class Snake(nn.Module):
    """Pointwise, of a type that nobody knows."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sin(x) ** 2


def conv(*args: Any, **kwargs: Any) -> nn.Module:
    return nn.Conv1d(2, 4, *args, **kwargs)


def transposed(*args: Any, **kwargs: Any) -> nn.Module:
    return nn.ConvTranspose1d(2, 4, *args, **kwargs)


def after_conv(layer: nn.Module) -> nn.Module:
    """Behind a layer with padding and look-ahead, and in front of another."""
    return nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), layer, nn.Conv1d(2, 2, 3, padding=2))


def one_sided(left: int, right: int, mode: str) -> nn.Module:
    layer = conv(5, padding=2, padding_mode=mode)
    layer._reversed_padding_repeated_twice = [left, right]
    return layer


NETS = {
    "conv": lambda: conv(3),
    "conv_kernel_1": lambda: conv(1),
    "conv_kernel_1_stride": lambda: conv(1, stride=3, padding=2),
    "conv_stride_over_kernel": lambda: conv(2, stride=5, padding=1),
    "conv_dilated": lambda: conv(4, dilation=7, padding=5, bias=False),
    "conv_dilated_stride": lambda: conv(3, stride=4, dilation=3, padding=2),
    "conv_groups": lambda: conv(3, groups=2, padding=1),
    "conv_depthwise": lambda: nn.Conv1d(2, 2, 5, groups=2, padding=2),
    "conv_same_even": lambda: conv(4, padding="same"),
    "conv_same_dilated": lambda: conv(4, padding="same", dilation=3),
    "conv_wide_padding": lambda: conv(3, padding=9),
    "conv_reflect": lambda: conv(5, padding=3, padding_mode="reflect"),
    "conv_reflect_stride": lambda: conv(6, stride=3, padding=4, padding_mode="reflect"),
    "conv_reflect_same": lambda: conv(4, padding="same", padding_mode="reflect"),
    "conv_replicate": lambda: conv(5, padding=7, padding_mode="replicate"),
    "conv_reflect_left": lambda: one_sided(4, 0, "reflect"),
    "conv_reflect_right": lambda: one_sided(0, 4, "reflect"),
    "conv_replicate_unequal": lambda: one_sided(1, 6, "replicate"),
    "conv_long": lambda: conv(40),
    "conv_beyond_the_first_guess": lambda: conv(700, stride=7),
    "conv_normed": lambda: nn.utils.parametrizations.weight_norm(conv(3, padding=1)),
    "transposed": lambda: transposed(4),
    "transposed_stride": lambda: transposed(6, stride=3, padding=1),
    "transposed_output_padding": lambda: transposed(3, stride=4, padding=1, output_padding=2),
    "transposed_dilated": lambda: transposed(3, stride=2, dilation=5, padding=4, output_padding=3),
    "transposed_stride_over_kernel": lambda: transposed(2, stride=5),
    "transposed_gap_padded": lambda: transposed(1, stride=4, padding=2, output_padding=3),
    "transposed_all_cropped": lambda: transposed(2, stride=2, padding=5),
    "transposed_groups": lambda: transposed(4, stride=2, groups=2, bias=False),
    "average": lambda: nn.AvgPool1d(3),
    "average_padded": lambda: after_conv(nn.AvgPool1d(4, 3, 2)),
    "average_uncounted": lambda: after_conv(nn.AvgPool1d(4, 1, 2, count_include_pad=False)),
    "average_ceil": lambda: after_conv(nn.AvgPool1d(5, 3, 1, ceil_mode=True)),
    "average_ceil_uncounted": lambda: nn.AvgPool1d(5, 4, 2, ceil_mode=True, count_include_pad=False),
    "average_stride_over_kernel": lambda: nn.AvgPool1d(2, 5, 1, ceil_mode=True),
    "maximum": lambda: after_conv(nn.MaxPool1d(3, 1, 1)),
    "maximum_ceil": lambda: nn.MaxPool1d(4, 3, 2, ceil_mode=True),
    "maximum_dilated": lambda: nn.MaxPool1d(3, 2, 1, 4, ceil_mode=True),
    "maximum_stride_over_kernel": lambda: nn.MaxPool1d(2, 7),
    "power": lambda: nn.LPPool1d(2, 3, 2),
    "power_ceil": lambda: after_conv(nn.LPPool1d(4, 4, 3, ceil_mode=True)),
    "nearest": lambda: after_conv(nn.Upsample(scale_factor=3)),
    "nearest_fraction": lambda: after_conv(nn.Upsample(scale_factor=2.5)),
    "nearest_down": lambda: nn.Upsample(scale_factor=0.75),
    "nearest_exact": lambda: after_conv(nn.Upsample(scale_factor=1.5, mode="nearest-exact")),
    "nearest_exact_down": lambda: nn.Upsample(scale_factor=0.25, mode="nearest-exact"),
    "linear": lambda: after_conv(nn.Upsample(scale_factor=2, mode="linear")),
    "linear_fraction": lambda: after_conv(nn.Upsample(scale_factor=2.5, mode="linear")),
    "linear_down": lambda: after_conv(nn.Upsample(scale_factor=0.75, mode="linear")),
    "pad": lambda: after_conv(nn.ZeroPad1d((3, 8))),
    "pad_value": lambda: after_conv(nn.ConstantPad1d((5, 2), -1.5)),
    "pad_left_crop_right": lambda: after_conv(nn.ConstantPad1d((4, -3), 0.5)),
    "crop_left_pad_right": lambda: after_conv(nn.ConstantPad1d((-4, 3), 0.5)),
    "crop": lambda: after_conv(nn.ZeroPad1d((-2, -5))),
    "pad_reflect": lambda: after_conv(nn.ReflectionPad1d((4, 2))),
    "pad_reflect_crop": lambda: after_conv(nn.ReflectionPad1d((-2, 3))),
    "pad_replicate": lambda: after_conv(nn.ReplicationPad1d((2, 6))),
    "pad_replicate_crop": lambda: after_conv(nn.ReplicationPad1d((3, -2))),
    "pad_before_strides": lambda: nn.Sequential(nn.ConstantPad1d((5, 3), 0.7), nn.Conv1d(2, 3, 4, stride=3)),
    "pad_before_a_padded_layer": lambda: nn.Sequential(nn.ConstantPad1d((5, 3), 0.7), conv(4, padding=2)),
    "pad_for_two": lambda: nn.Sequential(
        nn.ZeroPad1d((4, 1)), pts.Parallel1d(nn.Conv1d(2, 2, 5), nn.Conv1d(2, 2, 3, padding=1), nn.ZeroPad1d((-1, 0)))
    ),
    "pads_in_a_row": lambda: nn.Sequential(nn.ZeroPad1d(2), nn.ReflectionPad1d(1), nn.ConstantPad1d((1, 3), 2.0)),
    "batch_norm": lambda: after_conv(nn.BatchNorm1d(2)),
    "batch_norm_plain": lambda: nn.BatchNorm1d(2, affine=False),
    "pointwise": lambda: nn.Sequential(nn.ELU(inplace=True), nn.PReLU(2), nn.GLU(1), nn.Softplus()),
    "pointwise_unknown": lambda: after_conv(Snake()),
    "identity": lambda: nn.Identity(),
    "dropout": lambda: after_conv(nn.Dropout()),
    "residual": lambda: pts.Residual1d(nn.Sequential(nn.Conv1d(2, 2, 5), nn.PReLU())),
    "residual_padded": lambda: pts.Residual1d(nn.Conv1d(2, 2, 5, padding=2)),
    "residual_crops": lambda: pts.Residual1d(nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.ZeroPad1d((-1, -3)))),
    "parallel_add": lambda: pts.Parallel1d(nn.Conv1d(2, 3, 3), nn.Conv1d(2, 3, 9, padding=1)),
    "parallel_multiply": lambda: pts.Parallel1d(nn.Conv1d(2, 2, 4, 2), nn.AvgPool1d(2), merge="mul"),
    "parallel_cat": lambda: pts.Parallel1d(nn.Identity(), nn.Conv1d(2, 1, 7, padding=3), merge="cat"),
    "nested": lambda: nn.Sequential(
        conv(4, stride=2, padding=3),
        pts.Residual1d(
            nn.Sequential(nn.ELU(), pts.Residual1d(nn.Conv1d(4, 4, 3, padding=2, dilation=2)), nn.BatchNorm1d(4))
        ),
        pts.Parallel1d(
            nn.ConvTranspose1d(4, 2, 4, stride=2, padding=1),
            nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv1d(4, 2, 1)),
            merge="cat",
        ),
        nn.MaxPool1d(2, 1, 1),
    ),
    "rates_up_and_down": lambda: nn.Sequential(
        transposed(5, stride=3), nn.AvgPool1d(4, 2, 1), conv_of(4, 3, stride=3), nn.Upsample(scale_factor=2)
    ),
}


def conv_of(channels: int, *args: Any, **kwargs: Any) -> nn.Module:
    return nn.Conv1d(channels, 2, *args, **kwargs)


def random_norms(module: nn.Module) -> None:
    if isinstance(module, nn.BatchNorm1d):
        nn.init.normal_(module.running_mean)
        nn.init.uniform_(module.running_var, 0.5, 2.0)
        if module.affine:
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)


@pytest.mark.parametrize("name", NETS)
def test_layers(name: str) -> None:
    torch.manual_seed(0)
    net = NETS[name]().double().eval().apply(random_norms)
    stream = pts.create_stream(net)
    least = next(n for n in range(1, 2000) if stream.output_length(n) > 0)
    lengths = [least - 1, least, least + 1, least + 9]
    channels = None if any(isinstance(m, (nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d)) for m in net.modules()) else 2
    for i, (turns, batches) in enumerate([(1, (6,)), (3, (1, 5))]):
        columns = 0 if i else None  # one of the two ways in which convolutions are computed
        rows = LiveRows(
            stream, net, stream.hop * turns, batches, seed=i, lengths=lengths, channels=channels, columns=columns
        )
        rows.run(max(STEPS, 2 * least // stream.hop // turns)).compare()


@given(net=st.one_of(layer_nets(), networks()), turns=st.integers(1, 4), seed=st.integers(0, 1000))
@settings(max_examples={"ci": 24, "thorough": 2000}.get(PROFILE, 10))
def test_random_networks(net: nn.Module, turns: int, seed: int) -> None:
    stream = pts.create_stream(net)
    try:
        rows = LiveRows(stream, net, stream.hop * turns, (4, 2), seed, channels=CHANNELS)
    except pts.UnsupportedModuleError as error:
        assert error.code == "short_copies"
        return
    rows.run(STEPS).compare(0)


@given(model=graphs(), turns=st.integers(1, 3), seed=st.integers(0, 1000))
@settings(max_examples={"ci": 8, "thorough": 600}.get(PROFILE, 5))
def test_random_graphs(model: RandomGraph, turns: int, seed: int) -> None:
    example = model.signal(model.example_length, 2, seed=1)
    try:
        stream = pts.create_stream(model, example=example, length_multiple=model.length_multiple)
    except pts.UnsupportedModuleError:
        reject()  # tests of graphs say whether it should be
    lengths = [model.shortest, model.shortest + model.length_multiple, model.example_length]
    chunk = stream.hop * turns

    def net(x: Tensor) -> Tensor:
        # Below the shortest length a value inside is empty, or broadcast by chance.
        return model(x) if x.shape[-1] >= model.shortest else x[..., :0]

    # Where a model weighs by 0, as attention does what is behind its mask, nan tells nothing of what depends on what.
    spoiled = example.clone()
    spoiled[..., -1] = float("nan")
    with torch.no_grad():
        nan = 0.0 if model(spoiled)[..., 0].isnan().any() else 0.1
    rows = LiveRows(stream, net, chunk, (4, 2), seed, multiple=model.length_multiple, lengths=lengths, nan=nan)
    rows.run(max(STEPS, 2 * model.shortest // chunk)).compare(0)
