"""A small denoiser of speech, and its trained weights. TorchScript compiles this file."""

from importlib.resources import as_file, files
from pathlib import Path
from typing import Optional, Sequence, Union

import torch
from torch import Tensor, nn

from ..audio import Spectral1d
from ..containers.parallel import Parallel1d
from ..containers.residual import Residual1d
from ..core.registry import register_streamer
from ..layers.elementwise import PointwiseStream

__all__ = ["RATE_HZ", "Denoiser", "LogMagnitude", "LogMagnitudeStream", "Twice", "TwiceStream", "pretrained_denoiser"]

RATE_HZ = 16000
N_FFT = 512
HOP = 160


class LogMagnitude(nn.Module):
    """Magnitudes of a spectrum on the scale of a network: ``1 + log10(|X| + 1e-4) / 2``.

    Shape:
        - input: ``[B, 2 · bins, frames]``, real parts and then imaginary parts
        - output: ``[B, bins, frames]``
    """

    def forward(self, x: Tensor) -> Tensor:
        """The scaled logarithm."""
        real, imaginary = x.chunk(2, 1)
        # The smaller number is for the gradient alone, which a root has none of at 0.
        magnitude = (real * real + imaginary * imaginary + 1e-12).sqrt()
        return torch.log10(magnitude + 1e-4) * 0.5 + 1.0


class Twice(nn.Module):
    """A factor for each bin, for the real parts and the imaginary ones.

    Shape:
        - input: ``[B, bins, frames]``
        - output: ``[B, 2 · bins, frames]``
    """

    def forward(self, x: Tensor) -> Tensor:
        """The factors, side by side."""
        return torch.cat([x, x], 1)


@register_streamer(LogMagnitude)
class LogMagnitudeStream(PointwiseStream):
    """Stream of a `LogMagnitude`."""

    fresh = True

    def __init__(self, net: LogMagnitude) -> None:
        super().__init__(net, groups=2, halves=True)


@register_streamer(Twice)
class TwiceStream(PointwiseStream):
    """Stream of a `Twice`."""

    fresh = True

    def __init__(self, net: Twice) -> None:
        super().__init__(net)

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        return 2 * channels if channels > 0 else channels


def _block(channels: int, dilation: int) -> nn.Module:
    past = nn.ConstantPad1d((2 * dilation, 0), 0.0)
    return Residual1d(nn.Sequential(past, nn.Conv1d(channels, channels, 3, dilation=dilation), nn.PReLU(channels)))


class Denoiser(Spectral1d):
    """Takes noise out of speech at 16 kHz: factors between 0 and 1 for the bins of its short-time spectra.

    The factors come from a causal network of dilated convolutions on the logarithms of the magnitudes: those of a frame
    depend on it and on earlier ones. A frame has 512 samples, and one begins every 160 (10 ms), so a sample is given
    352 samples (22 ms) after the chunk of 160 in which it came.

    Args:
        channels: of the network between the spectra
        dilations: of its convolutions, each of three frames

    Shape:
        - input: ``[B, 1, T]``
        - output: ``[B, 1, T]``

    Example:
        >>> import torch, torchstreamer as pts
        >>> from torchstreamer.models import Denoiser
        >>> net = Denoiser(channels=8, dilations=(1, 2)).eval()
        >>> stream, x = pts.create_stream(net), torch.randn(1, 1600)
        >>> y = [stream(chunk) for chunk in x.split(160, -1)] + [stream.flush()]
        >>> torch.testing.assert_close(torch.cat([each for each in y if each is not None], -1), net(x))
    """

    sampling_fs = RATE_HZ  # for the command line

    def __init__(self, channels: int = 64, dilations: Sequence[int] = (1, 2, 4, 8, 16, 32, 1, 2)) -> None:
        bins = N_FFT // 2 + 1
        factors = nn.Sequential(
            LogMagnitude(),
            nn.Conv1d(bins, channels, 1),
            *(_block(channels, dilation) for dilation in dilations),
            nn.Conv1d(channels, bins, 1),
            nn.Sigmoid(),
            Twice(),
        )
        super().__init__(Parallel1d(nn.Identity(), factors, merge="mul"), N_FFT, HOP, window="sqrt_hann", causal=True)


def pretrained_denoiser(weights: Optional[Union[str, Path]] = None) -> Denoiser:
    """The trained denoiser, in eval mode and float32.

    Its card, `docs/denoiser.md`, says what it was trained on, what it gains and what it does not do.

    Args:
        weights: a file that ``examples/denoiser/train.py`` wrote, by default the one of the package

    Example:
        >>> import torch
        >>> from torchstreamer.models import pretrained_denoiser
        >>> pretrained_denoiser()(torch.randn(1, 1, 16000)).shape
        torch.Size([1, 1, 16000])
    """
    # Weights that are inference tensors cannot tell that they changed: a stream would pack them anew for each chunk.
    with torch.inference_mode(False):
        net = Denoiser()
        if weights is None:
            with as_file(files(__package__) / "denoiser.pt") as path:
                state = torch.load(path, weights_only=True)
        else:
            state = torch.load(weights, weights_only=True)
        net.load_state_dict(state)
        return net.eval()
