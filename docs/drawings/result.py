"""Draw docs/assets/result.svg: speech through a network in pieces, by a stream and by the network on each piece.

    python docs/drawings/result.py

The recording is that of the examples; the network has random weights.
"""

import sys
import wave
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import torchstreamer as pts

__all__ = ["Result", "drawn", "run"]

ROOT = Path(__file__).parent.parent.parent
TARGET = ROOT / "docs" / "assets" / "result.svg"
SPEECH = ROOT / "examples" / "speech.wav"
CHUNK_MS = 10
BEGIN_S, LENGTH_S = 3.37, 0.06  # what is drawn
WIDTH, LEFT, RIGHT = 800, 64, 12
TOP, WAVE, BETWEEN, DIFFERENCE = 40, 150, 58, 130  # heights of the two panels, and around them
DECADES = (-8, 0)
BIN = 4  # samples to a point of the lower panel

STYLE = """
.result { --ink: #24292f; --faint: #6e7781; --grid: #d0d7de; --naive: #c4580b; --streamed: #00796b; --whole: #9aa4af; }
@media (prefers-color-scheme: dark) {
  .result { --ink: #e6edf3; --faint: #9aa4af; --grid: #3d444d; }
  .result { --naive: #f0883e; --streamed: #4db6ac; --whole: #7d8590; }
}
[data-md-color-scheme="default"] .result {
  --grid: #d0d7de; --naive: #c4580b; --streamed: #00796b; --whole: #9aa4af;
}
[data-md-color-scheme="slate"] .result {
  --grid: #4a4f5c; --naive: #f0883e; --streamed: #4db6ac; --whole: #7d8590;
}
.result text { fill: var(--md-typeset-color, var(--ink)); }
.result .faint { fill: var(--md-default-fg-color--light, var(--faint)); }
.result path { fill: none; stroke-linejoin: round; }
.result .grid { stroke: var(--grid); }
.result .naive { stroke: var(--naive); stroke-width: 1.4; }
.result .streamed { stroke: var(--streamed); stroke-width: 1.4; }
.result .whole { stroke: var(--whole); stroke-width: 5; stroke-opacity: 0.6; }
"""


@dataclass
class Result:
    """Outputs ``[T]`` of the network on the whole, of the stream, and of the network on each piece alone."""

    whole: Tensor
    streamed: Tensor
    naive: Tensor
    chunk: int
    rate_hz: int


def _net() -> nn.Module:
    """Dilated residual blocks with random weights, padded everywhere: an output is made of 71 samples on each side."""
    torch.manual_seed(4)
    blocks: list[nn.Module] = [
        pts.Residual1d(nn.Sequential(nn.Conv1d(16, 16, 3, padding=2**i, dilation=2**i, bias=False), nn.Tanh()))
        for i in range(6)
    ]
    first, last = nn.Conv1d(1, 16, 9, padding=4, bias=False), nn.Conv1d(16, 1, 9, padding=4, bias=False)
    return nn.Sequential(first, *blocks, last).eval()


def _speech() -> tuple[Tensor, int]:
    """A recording as ``[1, T]``, and its rate."""
    with wave.open(str(SPEECH)) as file:
        samples = torch.frombuffer(bytearray(file.readframes(file.getnframes())), dtype=torch.int16)
        return samples.float()[None] / 2**15, file.getframerate()


def run() -> Result:
    """The recording through the network, in three ways."""
    net = _net()
    x, rate_hz = _speech()
    chunk = rate_hz * CHUNK_MS // 1000
    stream = pts.create_stream(net)
    with torch.inference_mode():
        chunks = x[None].split(chunk, dim=-1)
        pieces = [stream(each) for each in chunks] + [stream.flush()]
        streamed = torch.cat([piece for piece in pieces if piece is not None], dim=-1)
        naive = torch.cat([net(each) for each in chunks], dim=-1)
        return Result(net(x[None])[0, 0], streamed[0, 0], naive[0, 0], chunk, rate_hz)


def _path(kind: str, xs: list[float], ys: list[float]) -> str:
    points = " ".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True))
    return f'<path class="{kind}" d="M{points}"/>'


def drawn(result: Result) -> str:
    """The picture of a run."""
    first = int(BEGIN_S * result.rate_hz) // result.chunk * result.chunk
    last = first + int(LENGTH_S * result.rate_hz)
    peak = max(y[first:last].abs().max().item() for y in (result.whole, result.naive))
    inner = WIDTH - LEFT - RIGHT
    xs = [LEFT + inner * i / (last - first) for i in range(last - first)]
    below = TOP + WAVE + BETWEEN
    height = below + DIFFERENCE + 40

    def heights(y: Tensor) -> list[float]:
        return [TOP + WAVE * (0.5 - 0.45 * value / peak) for value in y[first:last].tolist()]

    def decade(power: float) -> float:
        low, high = DECADES
        return below + DIFFERENCE * (high - min(max(power, low), high)) / (high - low)

    def away(y: Tensor) -> list[float]:
        difference = ((y - result.whole)[first:last].abs() / peak).clamp(min=10.0 ** DECADES[0])
        largest = difference.unflatten(0, (-1, BIN)).amax(1)
        return [decade(power) for power in largest.log10().tolist()]

    worst = [float((y - result.whole).abs().max() / result.whole.abs().max()) for y in (result.streamed, result.naive)]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" class="result" role="img" '
        'aria-labelledby="result-title result-text" font-family="system-ui, sans-serif" font-size="13">',
        '<title id="result-title">Speech in pieces of 10 ms</title>',
        '<desc id="result-text">Above, the output of a network on a recording of speech: calling the network on every '
        "piece jumps at the edges of the pieces, the stream lies on the output for the whole. Below, the differences "
        f"from the whole: at most {worst[1]:.0%} of the peak for separate calls, {worst[0]:.0e} for the stream.</desc>",
        f"<style>{STYLE}</style>",
    ]
    for edge in range(first, last + 1, result.chunk):
        x = LEFT + inner * (edge - first) / (last - first)
        lines.append(f'<path class="grid" d="M{x:.1f} {TOP}v{WAVE}M{x:.1f} {below}v{DIFFERENCE}"/>')
        lines.append(
            f'<text class="faint" x="{x:.1f}" y="{height - 22}" text-anchor="middle">'
            f"{1000 * (edge - first) / result.rate_hz:.0f}</text>"
        )
    for power in range(DECADES[0], DECADES[1] + 1, 2):
        y = decade(power)
        lines.append(f'<path class="grid" d="M{LEFT} {y:.1f}h{inner}"/>')
        lines.append(
            f'<text class="faint" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">10'
            f'<tspan font-size="9" dy="-5">{power}</tspan></text>'
        )
    keys = [("whole", "network on the whole"), ("naive", "network on each piece alone"), ("streamed", "stream")]
    place = LEFT
    for kind, words in keys:
        lines.append(f'<path class="{kind}" d="M{place} 14h24"/><text x="{place + 32}" y="18">{words}</text>')
        place += 56 + 7 * len(words)
    lines += [
        _path("whole", xs, heights(result.whole)),
        _path("naive", xs, heights(result.naive)),
        _path("streamed", xs, heights(result.streamed)),
        f'<text class="faint" x="{LEFT}" y="{below - 14}">difference from the whole, relative to its peak</text>',
        _path("naive", xs[::BIN], away(result.naive)),
        _path("streamed", xs[::BIN], away(result.streamed)),
        f'<text class="faint" x="{LEFT + inner / 2}" y="{height - 4}" text-anchor="middle">ms; a line for each piece '
        f"of {CHUNK_MS} ms</text>",
        "</svg>",
    ]
    return "\n".join(line.strip("\n") for line in lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(drawn(run()))
    sys.stdout.write(f"{TARGET}\n")
