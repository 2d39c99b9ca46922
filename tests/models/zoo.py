"""Published architectures, small and with random weights: what a user may want to stream.

Tests put this folder on `sys.path`, import this module, and run through `ZOO`.
"""

from dataclasses import dataclass
from typing import Any, Callable, Optional, Union

import torch
from conv_tasnet import ConvTasNet, CumulativeLayerNorm, GlobalLayerNorm
from dac import DACDecoder, DACEncoder, Snake
from deepspeech2 import DeepSpeech2
from demucs import Demucs
from hifigan import HiFiGAN
from melgan import MelGAN
from quartznet import QuartzNet
from resnet1d import ResNet1d
from seanet import SEANet, SEANetDecoder, SEANetEncoder
from squeeze_excite import SENet1d
from subpixel import SpaceToDepth, SubpixelUpsampler
from tcn import TCN
from torch import Tensor, nn
from unet_linear import UNetLinear
from wav2letter import Wav2Letter
from wave_unet import LearnedUpsampling, WaveUNet
from wavenet import WaveNet


@dataclass(frozen=True)
class Entry:
    """An architecture in one variant.

    `make()`: the model, in eval mode, always with the same weights.
    `example(length, batch)`: its input, always the same for the same arguments, both of which have defaults. A tuple
    where the model takes several inputs; then the length is that of the first.
    `time_dim`: the time dimension of the input. With several inputs, a tuple: of each, and None for what has no time.
    `length_multiple`: lengths must be multiples of this.
    `refused`: why the model cannot be streamed, as a word of the message; empty if it can.
    `shortest`: the shortest length for which the model runs and gives anything.
    `output_time_dim`: the time dimension of the output.
    """

    name: str
    make: Callable[[], nn.Module]
    example: Callable[..., Any]
    time_dim: Union[int, tuple[Optional[int], ...]] = -1
    length_multiple: int = 1
    refused: str = ""
    shortest: int = 1
    output_time_dim: int = -1

    def inputs(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        """The example as the model's arguments, also where there is one."""
        example = self.example(*args, **kwargs)
        return example if isinstance(example, tuple) else (example,)


# --------------------------------------------------------------------------- examples


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def _signal(channels: int, default: int) -> Callable[..., Any]:
    """[B, channels, T]."""
    return lambda length=default, batch=1: _random(batch, channels, length)


def _spectrogram(frequencies: int, default: int) -> Callable[..., Any]:
    """[B, 1, frequencies, T]."""
    return lambda length=default, batch=1: _random(batch, 1, frequencies, length)


def _conditioned(conditions: int, default: int, hop: int = 1, speaker: int = 0) -> Callable[..., Any]:
    """[B, 1, T] and [B, conditions, T / hop], and where asked for a vector [B, speaker]."""

    def example(length: int = default, batch: int = 1) -> tuple[Tensor, ...]:
        inputs = _random(batch, 1, length), _random(batch, conditions, length // hop)
        return (*inputs, _random(batch, speaker)) if speaker else inputs

    return example


# --------------------------------------------------------------------------- weights


def _randomize(module: nn.Module) -> None:
    """Random parameters where a module starts with ones and zeros."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        nn.init.normal_(module.running_mean, 0.0, 0.3)
        nn.init.uniform_(module.running_var, 0.5, 1.5)
    if isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)):
        nn.init.uniform_(module.weight, 0.5, 1.5)
        nn.init.normal_(module.bias, 0.0, 0.3)
    elif isinstance(module, (GlobalLayerNorm, CumulativeLayerNorm)):
        nn.init.uniform_(module.gamma, 0.5, 1.5)
        nn.init.normal_(module.beta, 0.0, 0.3)
    elif isinstance(module, Snake):
        nn.init.uniform_(module.alpha, 0.5, 2.0)
    elif isinstance(module, nn.PReLU):
        nn.init.uniform_(module.weight, 0.1, 0.5)
    elif isinstance(module, LearnedUpsampling):
        nn.init.normal_(module.weight)


def _unit_variance(module: nn.Module, args: Any, out: Tensor) -> Tensor:
    """A forward hook that scales a layer's weights such that its output has standard deviation 1."""
    scale = out.std()
    module.weight = (
        nn.Parameter(module.weight / scale) if type(module.weight) is nn.Parameter else module.weight / scale
    )
    if module.bias is not None:
        module.bias.div_(scale)
    return out / scale


def _small(make: Callable[[], nn.Module], example: Callable[..., Any]) -> Callable[[], nn.Module]:
    """Makes the model with weights for which signals neither die nor grow from layer to layer."""

    def seeded() -> nn.Module:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            model = make().eval()
            model.apply(_randomize)
            layers = [m for m in model.modules() if isinstance(m, (nn.modules.conv._ConvNd, nn.Linear))]
            hooks = [layer.register_forward_hook(_unit_variance) for layer in layers]
            inputs = example()
            model(*inputs) if isinstance(inputs, tuple) else model(inputs)
            for hook in hooks:
                hook.remove()
        return model

    return seeded


def _entry(name: str, make: Callable[[], nn.Module], example: Callable[..., Any], **fields: Any) -> Entry:
    return Entry(name, _small(make, example), example, **fields)


# --------------------------------------------------------------------------- the table


def _wavenet(**options: Any) -> WaveNet:
    small = {"classes": 6, "residual_channels": 6, "gate_channels": 5, "skip_channels": 12, "layers": 4, "stacks": 2}
    return WaveNet(**{**small, **options})


def _hifigan(**options: Any) -> HiFiGAN:
    return HiFiGAN(
        mels=6,
        upsample_rates=(4, 2, 2),
        upsample_kernels=(8, 4, 4),
        initial_channels=32,
        block_kernels=(3, 5),
        block_dilations=((1, 3), (1, 3)),
        **options,
    )


def _tcn(**options: Any) -> TCN:
    return TCN(in_channels=3, classes=4, channels=(6, 6, 8), kernel_size=3, **options)


_SEANET = {"dimension": 6, "filters": 4, "strides": (2, 4), "units": 2, "kernel_size": 5, "pad_mode": "constant"}


def _seanet(module: Callable[..., nn.Module], **options: Any) -> nn.Module:
    return module(**{**_SEANET, **options})


def _dac_encoder(**options: Any) -> DACEncoder:
    return DACEncoder(channels=4, strides=(2, 4), latent=6, **options)


def _dac_decoder(**options: Any) -> DACDecoder:
    return DACDecoder(latent=6, channels=16, strides=(4, 2), **options)


def _conv_tasnet(**options: Any) -> ConvTasNet:
    return ConvTasNet(filters=8, window=8, bottleneck=6, hidden=8, skip=6, blocks=3, repeats=2, **options)


def _wave_unet(**options: Any) -> WaveUNet:
    return WaveUNet(channels=1, sources=2, levels=3, filters=4, down_kernel=7, up_kernel=3, **options)


def _demucs(**options: Any) -> Demucs:
    return Demucs(sources=2, audio_channels=2, channels=4, depth=2, **options)


def _wav2letter(**options: Any) -> Wav2Letter:
    return Wav2Letter(
        features=4,
        letters=5,
        width=6,
        wide=8,
        first_kernel=8,
        middle_kernel=5,
        middle_layers=3,
        last_kernel=6,
        **options,
    )


def _deepspeech2(**options: Any) -> DeepSpeech2:
    return DeepSpeech2(
        frequencies=9, classes=5, channels=(3, 4), kernels=((5, 5), (3, 5)), strides=((2, 2), (2, 1)), **options
    )


def _quartznet() -> QuartzNet:
    return QuartzNet(
        mels=4,
        classes=5,
        first=6,
        first_kernel=5,
        widths=(6, 8),
        kernels=(5, 7),
        blocks_each=1,
        repeats=2,
        second_last=8,
        second_last_kernel=7,
        last=10,
    )


def _melgan() -> MelGAN:
    return MelGAN(mels=4, channels=16, rates=(4, 2))


def _resnet1d() -> ResNet1d:
    return ResNet1d(sensors=3, classes=4, widths=(6, 8, 8), blocks=(1, 2, 1))


def _unet_linear(**options: Any) -> UNetLinear:
    return UNetLinear(in_channels=1, out_channels=2, widths=(4, 6, 8), **options)


def _senet(**options: Any) -> SENet1d:
    return SENet1d(classes=4, channels=8, kernel=3, blocks=2, reduction=2, **options)


ZOO = [
    _entry("wavenet", _wavenet, _signal(1, 100)),
    _entry("wavenet_both_sides", lambda: _wavenet(causal=False, kernel_size=3), _signal(1, 150)),
    _entry("wavenet_local", lambda: _wavenet(local_channels=4), _conditioned(4, 100), time_dim=(-1, -1)),
    _entry(
        "wavenet_local_speaker",
        lambda: _wavenet(local_channels=4, speaker_channels=3),
        _conditioned(4, 100, speaker=3),
        time_dim=(-1, -1, None),
    ),
    _entry(
        "wavenet_mel",
        lambda: _wavenet(local_channels=4, upsample_rates=(4, 2)),
        _conditioned(4, 120, hop=8),
        time_dim=(-1, -1),
        length_multiple=8,
        shortest=8,
    ),
    _entry("hifigan", _hifigan, _signal(6, 24)),
    _entry("hifigan_small_blocks", lambda: _hifigan(small_blocks=True, normed=False), _signal(6, 24)),
    _entry("tcn", _tcn, _signal(3, 80)),
    _entry("tcn_channels_last", lambda: _tcn(channels_first=False), _signal(3, 80), output_time_dim=1),
    _entry(
        "seanet_encoder_causal",
        lambda: _seanet(SEANetEncoder, causal=True),
        _signal(1, 160),
        length_multiple=8,
        shortest=8,
    ),
    _entry("seanet_encoder", lambda: _seanet(SEANetEncoder), _signal(1, 160), length_multiple=8, shortest=8),
    _entry(
        "seanet_encoder_reflect",
        lambda: _seanet(SEANetEncoder, pad_mode="reflect"),
        _signal(1, 160),
        length_multiple=8,
        shortest=24,
    ),
    _entry(
        "seanet_encoder_causal_reflect",
        lambda: _seanet(SEANetEncoder, causal=True, pad_mode="reflect"),
        _signal(1, 160),
        length_multiple=8,
        shortest=40,
    ),
    _entry(
        "seanet_encoder_extra_padding",
        lambda: _seanet(SEANetEncoder, causal=True, extra_padding=True),
        _signal(1, 163),
    ),
    _entry("seanet_decoder_causal", lambda: _seanet(SEANetDecoder, causal=True), _signal(6, 24)),
    _entry("seanet_decoder", lambda: _seanet(SEANetDecoder), _signal(6, 24)),
    _entry("seanet_causal", lambda: _seanet(SEANet, causal=True), _signal(1, 160), length_multiple=8, shortest=8),
    _entry("seanet", lambda: _seanet(SEANet, true_skip=True), _signal(1, 160), length_multiple=8, shortest=8),
    _entry("dac_encoder", _dac_encoder, _signal(1, 320), shortest=8),
    _entry("dac_encoder_unpadded", lambda: _dac_encoder(padded=False), _signal(1, 480), shortest=274),
    _entry("dac_decoder", _dac_decoder, _signal(6, 40)),
    _entry("dac_decoder_unpadded", lambda: _dac_decoder(padded=False), _signal(6, 60), shortest=37),
    _entry("conv_tasnet", _conv_tasnet, _signal(1, 160), length_multiple=4, shortest=8),
    _entry(
        "conv_tasnet_global",
        lambda: _conv_tasnet(norm="gLN", causal=False),
        _signal(1, 160),
        length_multiple=4,
        shortest=8,
        refused="mean",
    ),
    _entry(
        "conv_tasnet_frame_norm",
        lambda: _conv_tasnet(norm="frame", mask="softmax"),
        _signal(1, 160),
        length_multiple=4,
        shortest=8,
    ),
    _entry(
        "conv_tasnet_batch_norm",
        lambda: _conv_tasnet(norm="BN", causal=False, speakers=3),
        _signal(1, 160),
        length_multiple=4,
        shortest=8,
    ),
    _entry("wave_unet_context", _wave_unet, _signal(1, 160), length_multiple=8, shortest=8),
    _entry("wave_unet_learned", lambda: _wave_unet(learned=True), _signal(1, 160), length_multiple=8, shortest=8),
    _entry("wave_unet_same", lambda: _wave_unet(context=False), _signal(1, 160), length_multiple=8, shortest=8),
    _entry("demucs", _demucs, _signal(2, 160), length_multiple=16, shortest=16),
    _entry(
        "demucs_normalized",
        lambda: _demucs(normalize=True),
        _signal(2, 160),
        length_multiple=16,
        shortest=16,
        refused="std",
    ),
    _entry("wav2letter", _wav2letter, _signal(4, 80), shortest=2),
    _entry(
        "wav2letter_raw",
        lambda: _wav2letter(raw=True, raw_kernel=12, raw_stride=6, hard=True),
        _signal(1, 240),
        shortest=12,
    ),
    _entry("deepspeech2", _deepspeech2, _spectrogram(9, 60), output_time_dim=1),
    _entry("deepspeech2_lookahead", lambda: _deepspeech2(lookahead=3), _spectrogram(9, 60), output_time_dim=1),
    _entry("quartznet", _quartznet, _signal(4, 80)),
    _entry("melgan", _melgan, _signal(4, 32), shortest=4),
    _entry("resnet1d", _resnet1d, _signal(3, 200)),
    _entry("unet_linear_strided", lambda: _unet_linear(down="strided"), _signal(1, 100), length_multiple=4, shortest=4),
    _entry("unet_linear_average", _unet_linear, _signal(1, 100), length_multiple=4, shortest=4),
    _entry(
        "unet_nearest_maximum",
        lambda: _unet_linear(down="maximum", mode="nearest"),
        _signal(1, 100),
        length_multiple=4,
        shortest=4,
    ),
    _entry("subpixel_upsampler", lambda: SubpixelUpsampler(channels=6), _signal(1, 60)),
    _entry("space_to_depth", lambda: SpaceToDepth(channels=6), _signal(1, 100), length_multiple=4, shortest=4),
    _entry("squeeze_excite", _senet, _signal(1, 80), refused="mean"),
    _entry("squeeze_excite_pooling", lambda: _senet(pooling=True), _signal(1, 80), refused="adaptive_avg_pool1d"),
]
