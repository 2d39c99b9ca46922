"""Stream a model that is a class with a `forward` of its own, in chunks of 10 ms, and compare with the whole recording.

    python examples/stream_any_model.py [output.wav]

The model frames the signal, takes spectra, makes samples of them again as a vocoder does, and adds these to the signal
that came in. Nothing of it is a `Sequential`: there are frames, gates, sums, and padding that depends on the length of
the signal. `create_stream` captures it with an example of its input. Its weights are random but always the same.
"""

import argparse
import sys
import time
import warnings
import wave
from pathlib import Path

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")  # not needed here
    import torch
    import torch.nn.functional as F
    from torch import Tensor, nn

    import torchstreamer as pts

SPEECH = Path(__file__).parent / "speech.wav"
CHUNK_MS = 10
WINDOW, STEP = 256, 64
LIMIT = 1e-4  # of the output's scale


class GatedLayer(nn.Module):
    """A causal, dilated, gated convolution with a residual connection: [B, C, T] to [B, C, T]."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.context = 2 * dilation
        self.conv = nn.Conv1d(channels, 2 * channels, 3, dilation=dilation)
        self.mix = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """One layer."""
        content, gate = self.conv(F.pad(x, (self.context, 0))).chunk(2, dim=1)
        return x + self.mix(torch.tanh(content) * torch.sigmoid(gate))


class Revoicer(nn.Module):
    """Samples [B, 1, T] to spectra, one for each STEP, and these to samples again, added to the input: [B, 1, T]."""

    window: Tensor

    def __init__(self, channels: int = 32, rates: tuple[int, ...] = (4, 4, 4)) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(WINDOW))
        self.first = nn.Conv1d(WINDOW // 2 + 1, channels, 3, padding=1)
        self.ups = nn.ModuleList()
        self.layers = nn.ModuleList()
        for rate in rates:
            self.ups.append(nn.ConvTranspose1d(channels, channels // 2, 2 * rate, stride=rate, padding=rate // 2))
            channels //= 2
            self.layers.extend(GatedLayer(channels, dilation) for dilation in (1, 3))
        self.last = nn.Conv1d(channels, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """The whole model."""
        frames = F.pad(x[:, 0], (WINDOW - STEP, 0)).unfold(-1, WINDOW, STEP) * self.window
        h = self.first(torch.log1p(torch.fft.rfft(frames).abs()).transpose(1, 2))
        for i, up in enumerate(self.ups):
            h = up(F.leaky_relu(h, 0.1))
            h = sum(layer(h) for layer in self.layers[2 * i : 2 * i + 2]) / 2
        y = torch.tanh(self.last(F.leaky_relu(h)))
        return x + 0.2 * F.pad(y, (0, x.shape[-1] - y.shape[-1]))  # the last samples fill no frame


def build_model() -> Revoicer:
    """The model, always with the same weights."""
    torch.manual_seed(0)
    return Revoicer().eval()


def read_wav(path: Path) -> tuple[Tensor, int]:
    """A mono recording of 16-bit samples as ``[1, T]`` between -1 and 1, and its rate."""
    with wave.open(str(path)) as file:
        if (file.getnchannels(), file.getsampwidth()) != (1, 2):
            raise ValueError(f"{path} has not one channel of 16-bit samples")
        samples = torch.frombuffer(bytearray(file.readframes(file.getnframes())), dtype=torch.int16)
        return samples.float()[None] / 2**15, file.getframerate()


def write_wav(path: Path, x: Tensor, rate_hz: int) -> None:
    """Write ``[1, T]`` as 16-bit samples, as loud as fits."""
    samples = (x[0] / x.abs().max() * (2**15 - 1)).round().to(torch.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(bytes(samples.view(torch.uint8).tolist()))


def main() -> int:
    """Run the example; 1 if the streamed output is not that of the whole recording."""
    parser = argparse.ArgumentParser(description="Stream speech through a model class, in chunks of 10 ms.")
    parser.add_argument("output", type=Path, nargs="?", default=Path("any_model_out.wav"), help="WAV file to write")
    output = parser.parse_args().output

    torch.set_num_threads(1)
    model = build_model()
    speech, rate_hz = read_wav(SPEECH)
    chunk_length = rate_hz * CHUNK_MS // 1000

    start = time.perf_counter()
    stream = pts.create_stream(model, example=torch.randn(1, 1, 4 * WINDOW))
    creation = time.perf_counter() - start

    with torch.inference_mode():
        start = time.perf_counter()
        answers = [stream(chunk) for chunk in torch.split(speech, chunk_length, dim=-1)]
        state_nbytes = stream.state_nbytes()
        answers.append(stream.flush())
        seconds = time.perf_counter() - start
        streamed = torch.cat([y for y in answers if y is not None], dim=-1)

        whole = model(speech[None])[0]

    first_chunk = next(number for number, y in enumerate(answers, start=1) if y is not None)
    # The least input after which an output is settled, whatever comes later.
    first_length = next(n for n in range(1, speech.shape[-1]) if stream.output_length(n, final=False) > 0)
    duration = speech.shape[-1] / rate_hz
    same_shape = streamed.shape == whole.shape
    difference = ((streamed - whole).abs().max() / whole.abs().max()).item() if same_shape else float("inf")
    write_wav(output, streamed, rate_hz)

    print(f"stream made         in {creation:.1f} s: hop {stream.hop}, ratio {stream.ratio[0]}:{stream.ratio[1]}")
    print(f"input               {duration:.2f} s of speech, {speech.shape[-1]} samples in chunks of {CHUNK_MS} ms")
    print(f"output              {streamed.shape[-1]} samples; the whole recording at once gives {whole.shape[-1]}")
    print(f"largest difference  {difference:.1e} of the output's scale")
    print(
        f"first output        after {first_length} samples ({1000 * first_length / rate_hz:.1f} ms) of input, "
        f"so with chunk {first_chunk}"
    )
    print(f"state               {state_nbytes} bytes before the end")
    print(f"real-time factor    {seconds / duration:.3f} (time taken / duration, one thread)")
    print(f"written             {output}")
    if not difference <= LIMIT:
        print(f"The difference is larger than {LIMIT:.0e}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
