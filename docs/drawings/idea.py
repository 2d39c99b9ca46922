"""Draw docs/assets/idea.svg: samples in, samples out, padding at the true ends.

    python docs/drawings/idea.py

How many samples each call gives is asked of the stream that the picture shows.
"""

import sys
from pathlib import Path

from torch import nn

import torchstreamer as pts

__all__ = ["drawn"]

TARGET = Path(__file__).parent.parent / "assets" / "idea.svg"
COLOURS = ["#2b7bba", "#b05e12", "#8250a8"]  # of the three calls
CHUNK, CALLS, PADDING = 4, 3, 2
SIDE, STEP, GAP = 32, 38, 26  # of a sample, from sample to sample, more between chunks
LEFT, IN, BOX, OUT = 44, 64, 126, 214  # of the first sample of padding; rows

STYLE = """
.idea { --ink: #24292f; --faint: #6e7781; }
@media (prefers-color-scheme: dark) { .idea { --ink: #e6edf3; --faint: #9aa4af; } }
.idea text { fill: var(--md-typeset-color, var(--ink)); }
.idea .faint { fill: var(--md-default-fg-color--light, var(--faint)); }
.idea .line { stroke: var(--md-default-fg-color--light, var(--faint)); fill: none; }
.idea .sample text { fill: #fff; }
"""


def _x(i: int) -> int:
    """The left edge of sample ``i``; samples below 0 and past the end are padding."""
    call = min(max(i // CHUNK, 0), CALLS - 1)
    return LEFT + (i + PADDING) * STEP + call * GAP


def _sample(i: int, y: int, colour: str, name: str) -> str:
    x = _x(i)
    return (
        f'<g class="sample"><rect x="{x}" y="{y}" width="{SIDE}" height="{SIDE}" rx="5" fill="{colour}"/>'
        f'<text x="{x + SIDE / 2}" y="{y + 21}" text-anchor="middle">{name}</text></g>'
    )


def drawn() -> str:
    """The picture."""
    stream = pts.create_stream(nn.Conv1d(1, 1, 2 * PADDING + 1, padding=PADDING))
    total = CHUNK * CALLS
    done = [stream.output_length(CHUNK * (call + 1), final=call == CALLS - 1) for call in range(CALLS)]
    begin = [0, *done[:-1]]
    width, height = _x(total + PADDING - 1) + SIDE + 20, 306
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" class="idea" role="img" '
        'aria-labelledby="idea-title idea-text" font-family="system-ui, sans-serif" font-size="14">',
        '<title id="idea-title">Samples in, samples out</title>',
        f'<desc id="idea-text">A signal of {total} samples comes in {CALLS} calls. A convolution with padding '
        f"{PADDING} gives {', '.join(str(e - b) for b, e in zip(begin, done, strict=True))} samples in them. Padding "
        "stands at the true start and end of the signal only. The samples joined are those of the network on the whole "
        "signal.</desc>",
        f"<style>{STYLE}</style>",
        f'<text x="8" y="{IN + 21}">in</text><text x="8" y="{OUT + 21}">out</text>',
    ]
    for i in [*range(-PADDING, 0), *range(total, total + PADDING)]:
        lines.append(
            f'<rect class="line" x="{_x(i)}" y="{IN}" width="{SIDE}" height="{SIDE}" rx="5" stroke-width="1.5" '
            f'stroke-dasharray="4 3"/><text class="faint" x="{_x(i) + SIDE / 2}" y="{IN + 21}" '
            'text-anchor="middle">0</text>'
        )
    for call in range(CALLS):
        colour, first, last = COLOURS[call], CHUNK * call, CHUNK * call + CHUNK - 1
        said = f"stream(chunk{', final=True' if call == CALLS - 1 else ''})"
        middle = (_x(first) + _x(last) + SIDE) / 2
        lines.append(f'<text x="{middle}" y="22" text-anchor="middle" font-family="monospace">{said}</text>')
        lines.append(
            f'<path d="M{_x(first)} 44v-8H{_x(last) + SIDE}v8" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        lines += [_sample(i, IN, colour, f"x{_small(i)}") for i in range(first, last + 1)]
        lines += [_sample(i, OUT, colour, f"y{_small(i)}") for i in range(begin[call], done[call])]
        lines.append(_arrow(middle, IN + SIDE + 4, BOX - 4))
        given = (_x(begin[call]) + _x(done[call] - 1) + SIDE) / 2
        lines.append(_arrow(given, BOX + 52, OUT - 4))
    lines += [
        f'<rect class="line" x="{_x(-PADDING)}" y="{BOX}" width="{_x(total + PADDING - 1) + SIDE - _x(-PADDING)}" '
        'height="48" rx="8" stroke-width="1.5"/>',
        f'<text x="{(_x(0) + _x(total - 1) + SIDE) / 2}" y="{BOX + 20}" text-anchor="middle" font-family="monospace">'
        "stream = pts.create_stream(net)</text>",
        f'<text class="faint" x="{(_x(0) + _x(total - 1) + SIDE) / 2}" y="{BOX + 39}" text-anchor="middle">'
        "keeps what later outputs need, and pads at the true ends</text>",
        f'<path class="line" stroke-width="1.5" d="M{_x(0)} {OUT + SIDE + 8}v8H{_x(total - 1) + SIDE}v-8"/>',
        f'<text x="{(_x(0) + _x(total - 1) + SIDE) / 2}" y="{OUT + SIDE + 40}" text-anchor="middle">'
        "joined: what the network gives on the whole signal</text>",
        "</svg>",
    ]
    return "\n".join(lines).replace("\n\n", "\n") + "\n"


def _small(i: int) -> str:
    return f'<tspan font-size="10" dy="3">{i}</tspan>'


def _arrow(x: float, top: int, bottom: int) -> str:
    return f'<path class="line" stroke-width="1.5" d="M{x} {top}V{bottom}m-4 -6l4 6l4 -6"/>'


if __name__ == "__main__":
    TARGET.write_text(drawn())
    sys.stdout.write(f"{TARGET}\n")
