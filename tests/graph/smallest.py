"""The smallest model of each architecture of the zoo, for checks that take every stream hundreds of times."""

from zoo import (
    TCN,
    ConvTasNet,
    DACDecoder,
    DACEncoder,
    DeepSpeech2,
    Demucs,
    HiFiGAN,
    MelGAN,
    QuartzNet,
    ResNet1d,
    SEANetDecoder,
    SEANetEncoder,
    SpaceToDepth,
    SubpixelUpsampler,
    UNetLinear,
    Wav2Letter,
    WaveNet,
    WaveUNet,
    _conditioned,
    _entry,
    _signal,
    _spectrogram,
)


def _wavenet(**options):
    return WaveNet(classes=2, residual_channels=2, gate_channels=2, skip_channels=2, layers=2, stacks=1, **options)


def _hifigan(**options):
    return HiFiGAN(2, (2,), (4,), 4, (3,), ((2,),), **options)


_SEANET = {"dimension": 2, "filters": 4, "strides": (2,), "kernel_size": 3}


def _deepspeech2(**options):
    return DeepSpeech2(4, 2, channels=(2,), kernels=((3, 5),), strides=((2, 2),), **options)


def _quartznet():
    return QuartzNet(
        2,
        2,
        first=2,
        first_kernel=3,
        widths=(2,),
        kernels=(3,),
        blocks_each=1,
        repeats=1,
        second_last=2,
        second_last_kernel=3,
        last=2,
    )


SMALLEST = [
    _entry("wavenet", _wavenet, _signal(1, 24)),
    _entry(
        "wavenet_mel_speaker",
        lambda: _wavenet(local_channels=2, upsample_rates=(2,), speaker_channels=2),
        _conditioned(2, 24, hop=2, speaker=2),
        time_dim=(-1, -1, None),
        length_multiple=2,
    ),
    _entry("hifigan", _hifigan, _signal(2, 12)),
    _entry("tcn", lambda: TCN(2, 2, (2,), 3), _signal(2, 20)),
    _entry(
        "seanet_encoder_causal",
        lambda: SEANetEncoder(causal=True, pad_mode="constant", extra_padding=True, **_SEANET),
        _signal(1, 24),
    ),
    _entry("seanet_encoder", lambda: SEANetEncoder(true_skip=True, **_SEANET), _signal(1, 24), length_multiple=2),
    _entry("seanet_decoder_causal", lambda: SEANetDecoder(causal=True, pad_mode="constant", **_SEANET), _signal(2, 12)),
    _entry("seanet_decoder", lambda: SEANetDecoder(**_SEANET), _signal(2, 12)),
    _entry("dac_encoder", lambda: DACEncoder(channels=2, strides=(2,), latent=2, dilations=(2,)), _signal(1, 32)),
    _entry("dac_decoder", lambda: DACDecoder(latent=2, channels=4, strides=(2,), dilations=(2,)), _signal(2, 20)),
    _entry(
        "conv_tasnet",
        lambda: ConvTasNet(filters=2, window=4, bottleneck=2, hidden=2, skip=2, blocks=1, repeats=1),
        _signal(1, 24),
        length_multiple=2,
    ),
    _entry(
        "wave_unet",
        lambda: WaveUNet(channels=1, sources=2, levels=1, filters=2, down_kernel=5, up_kernel=3),
        _signal(1, 24),
        length_multiple=2,
    ),
    _entry(
        "demucs",
        lambda: Demucs(sources=1, audio_channels=2, channels=2, depth=1, kernel_size=4, stride=2),
        _signal(2, 24),
        length_multiple=2,
    ),
    _entry(
        "wav2letter",
        lambda: Wav2Letter(2, 2, width=2, wide=2, first_kernel=4, middle_kernel=3, middle_layers=1, last_kernel=4),
        _signal(2, 24),
    ),
    _entry("deepspeech2", _deepspeech2, _spectrogram(4, 24), output_time_dim=1),
    _entry("deepspeech2_lookahead", lambda: _deepspeech2(lookahead=2), _spectrogram(4, 24), output_time_dim=1),
    _entry("quartznet", _quartznet, _signal(2, 24)),
    _entry("melgan", lambda: MelGAN(mels=2, channels=4, rates=(2,), dilations=(1, 3)), _signal(2, 12)),
    _entry("resnet1d", lambda: ResNet1d(sensors=2, classes=2, widths=(4, 4), blocks=(1, 1)), _signal(2, 24)),
    _entry("unet_linear", lambda: UNetLinear(1, 1, widths=(2, 2)), _signal(1, 24), length_multiple=2),
    _entry("subpixel_upsampler", lambda: SubpixelUpsampler(channels=2, rate=2, kernel=3), _signal(1, 20)),
    _entry(
        "space_to_depth",
        lambda: SpaceToDepth(channels=2, rate=2, kernel=3, layers=1),
        _signal(1, 24),
        length_multiple=2,
    ),
]
