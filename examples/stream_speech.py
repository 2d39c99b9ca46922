"""Stream speech through an encoder-decoder in chunks of 10 ms, and compare with the whole recording at once.

    python examples/stream_speech.py [output.wav]

The network lowers the rate step by step to 500 Hz and brings it back, with dilated residual blocks on the way, and
padding in every layer. Its weights are random but always the same, so the output is a rough voice; what counts is that
it is the same voice either way.
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
    from torch import Tensor, nn

    import torchstreamer as pts

SPEECH = Path(__file__).parent / "speech.wav"
CHUNK_MS = 10
STRIDES = [2, 4, 4]
LIMIT = 1e-4  # of the output's scale


def residual_block(channels: int, dilation: int) -> nn.Module:
    """A dilated convolution and a mixing of channels, with the input added."""
    return pts.Residual1d(
        nn.Sequential(
            nn.ELU(),
            nn.Conv1d(channels, channels // 2, 3, padding=dilation, dilation=dilation),
            nn.ELU(),
            nn.Conv1d(channels // 2, channels, 1),
        )
    )


def build_net() -> nn.Sequential:
    """An encoder with strides down, a decoder with strides up; 32 samples at 16 kHz become one frame and back."""
    torch.manual_seed(0)
    channels = 16
    layers: list[nn.Module] = [nn.Conv1d(1, channels, 7, padding="same")]
    for stride in STRIDES:
        layers += [residual_block(channels, 3), nn.GELU()]
        layers.append(nn.Conv1d(channels, 2 * channels, 2 * stride, stride=stride, padding=stride // 2))
        channels *= 2
    for stride in reversed(STRIDES):
        layers.append(nn.GELU())
        layers.append(nn.ConvTranspose1d(channels, channels // 2, 2 * stride, stride=stride, padding=stride // 2))
        channels //= 2
        layers += [residual_block(channels, 3)]
    layers += [nn.ELU(), nn.Conv1d(channels, 1, 7, padding="same")]
    return nn.Sequential(*layers).eval()


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
    parser = argparse.ArgumentParser(description="Stream speech through a network, in chunks of 10 ms.")
    parser.add_argument("output", type=Path, nargs="?", default=Path("speech_out.wav"), help="WAV file to write")
    output = parser.parse_args().output

    torch.set_num_threads(1)
    net = build_net()
    speech, rate_hz = read_wav(SPEECH)
    chunk_length = rate_hz * CHUNK_MS // 1000

    with torch.inference_mode():
        stream = pts.create_stream(net)
        start = time.perf_counter()
        answers = [stream(chunk) for chunk in torch.split(speech, chunk_length, dim=-1)]
        state_nbytes = stream.state_nbytes()
        answers.append(stream.flush())
        seconds = time.perf_counter() - start
        streamed = torch.cat([y for y in answers if y is not None], dim=-1)

        whole = net(speech[None])[0]

    first_chunk = next(number for number, y in enumerate(answers, start=1) if y is not None)
    # The least input after which an output is settled, whatever comes later.
    first_length = next(n for n in range(1, speech.shape[-1]) if stream.output_length(n, final=False) > 0)
    duration = speech.shape[-1] / rate_hz
    same_shape = streamed.shape == whole.shape
    difference = ((streamed - whole).abs().max() / whole.abs().max()).item() if same_shape else float("inf")
    write_wav(output, streamed, rate_hz)

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
