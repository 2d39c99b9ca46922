"""Resampling: a chunk of 10 ms and a second of sound, beside the convolution by hand, torch-streamer, soxr and SciPy.

python benchmarks/resample.py            # some three minutes; writes README.md; needs PyPI once
python benchmarks/resample.py --quick    # fewer rounds; prints only
"""

import argparse
import importlib
import math
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peer import FOLDERS, NAME, fetch, load_peer
from report import write_between_markers
from timing import interleave, machine, quartiles
from torch import Tensor, nn

from torchstreamer.audio import Resample, ResampleStream

TORCHAUDIO = "torchaudio==2.11.0"
SOURCE, TARGET, ODD = 44100, 48000, 48001
CHUNK = SOURCE // 100
HAND, HAND_OFFLINE = "strided convolution by hand, scripted", "strided convolution by hand"
OURS, OURS_ODD = "ours, scripted", f"ours, scripted, to {ODD}"
OFFLINE, OFFLINE_ODD = "ours", f"ours, to {ODD}"
# What was asked: ours by another, at most.
ASKED = ((OURS, HAND, 1.2), (OURS_ODD, OURS, 4.0), (OFFLINE_ODD, OFFLINE, 4.0))


class ByHand(nn.Module):
    """A convolution with a filter for each output of a period, and the samples that it has not used yet."""

    def __init__(self, source: int, target: int) -> None:
        super().__init__()
        common = math.gcd(source, target)
        self.down, up = source // common, target // common
        width, cut = 6, min(self.down, up) * 0.99
        self.width = math.ceil(width * self.down / cut)
        place = torch.arange(-self.width, self.width + self.down, dtype=torch.float64) / self.down
        t = ((place - torch.arange(up, dtype=torch.float64)[:, None] / up) * cut).clamp(-width, width)
        kernel = torch.sinc(t) * torch.cos(t * math.pi / width / 2) ** 2 * cut / self.down
        self.register_buffer("kernel", kernel[:, None].float())
        self.register_buffer("held", torch.zeros(1, 1, self.width))

    def forward(self, x: Tensor) -> Tensor:
        """The outputs of whole periods."""
        x = torch.cat([self.held, x], 2)
        count = (x.size(2) - self.kernel.size(2)) // self.down + 1
        used = (count - 1) * self.down + self.kernel.size(2)
        y = torch.conv1d(x[..., :used], self.kernel, None, [self.down])
        self.held = x[..., count * self.down :]
        return y.transpose(1, 2).reshape(1, 1, -1)


def load_torchaudio() -> Any:
    """torchaudio's Python, with a stand-in for its compiled library, which torch-streamer's module imports."""
    folder = FOLDERS / TORCHAUDIO.replace("==", "-")
    if not (folder / "torchaudio").is_dir() and not fetch(folder, TORCHAUDIO):
        raise SystemExit(f"{TORCHAUDIO} could not be fetched; unpack it into {folder} by hand")
    package, extension = types.ModuleType("torchaudio"), types.ModuleType("torchaudio._extension")
    package.__path__ = [str(folder / "torchaudio")]
    vars(extension).update(fail_if_no_align=lambda function: function, lazy_import_sox_ext=None)
    vars(extension).update(_IS_ALIGN_AVAILABLE=False, _IS_RNNT_AVAILABLE=False, _IS_TORCHAUDIO_EXT_AVAILABLE=False)
    package._extension = extension
    sys.modules.update({"torchaudio": package, "torchaudio._extension": extension})
    for part in ("functional", "transforms"):
        importlib.import_module(f"torchaudio.{part}")
    return package


def filter_of_scipy() -> np.ndarray:
    """The same filter, as `scipy.signal.upfirdn` takes it."""
    up, down = 160, 147
    edge = math.ceil(6 * up / 0.99) - 1
    t = np.arange(-edge, edge + 1) * 0.99 / up
    return (np.sinc(t) * np.cos(t * np.pi / 12) ** 2 * 0.99 * min(up, down) / down).astype(np.float32)


def chunks(peer: Any) -> dict[str, Callable[[], object]]:
    """A chunk of 10 ms in each contender, from 44100 to 48000 Hz where it is not said."""
    import soxr
    from scipy.signal import upfirdn

    x = torch.rand(1, 1, CHUNK) - 0.5
    line, array = x[0], x[0, 0].numpy()
    hand, hand_eager = torch.jit.script(ByHand(SOURCE, TARGET)), ByHand(SOURCE, TARGET)
    ours, odd = ResampleStream(SOURCE, TARGET), ResampleStream(SOURCE, ODD)
    script, odd_script = (torch.jit.script(ResampleStream(SOURCE, target)) for target in (TARGET, ODD))
    theirs, their_script = peer.ResampleStream(SOURCE, TARGET), torch.jit.script(peer.ResampleStream(SOURCE, TARGET))
    soxrs = {name: soxr.ResampleStream(SOURCE, TARGET, 1, "float32", name) for name in ("QQ", "HQ", "VHQ")}
    taps, held = filter_of_scipy(), [np.zeros(14, np.float32)]

    def scipy() -> np.ndarray:
        joined = np.concatenate([held[0], array])
        y = upfirdn(taps, joined, 160, 147)
        held[0] = joined[-14:]
        return y[7 : 7 + 480]

    contenders: dict[str, Callable[[], object]] = {
        HAND: lambda: hand(x),
        "the same, eager": lambda: hand_eager(x),
        OURS: lambda: script(x),
        "ours, eager": lambda: ours(x),
        OURS_ODD: lambda: odd_script(x),
        f"ours, eager, to {ODD}": lambda: odd(x),
        "torch-streamer 0.0.2, scripted": lambda: their_script(line),
        "torch-streamer 0.0.2, eager": lambda: theirs(line),
        "SciPy's upfirdn, the same filter, by hand": scipy,
    }
    for name, stream in soxrs.items():
        contenders[f"soxr, {name}, another filter"] = lambda stream=stream: stream.resample_chunk(array)
    for contender in contenders.values():
        for _ in range(20):
            contender()
    return contenders


def seconds(torchaudio: Any) -> dict[str, Callable[[], object]]:
    """A second of sound at once."""
    import soxr
    from scipy.signal import upfirdn

    x = torch.rand(1, 1, SOURCE) - 0.5
    array, taps = x[0, 0].numpy(), filter_of_scipy()
    nets = {target: Resample(SOURCE, target) for target in (TARGET, ODD)}
    theirs, hand = torchaudio.transforms.Resample(SOURCE, TARGET), ByHand(SOURCE, TARGET)
    padding = torch.zeros(1, 1, 300)
    contenders: dict[str, Callable[[], object]] = {
        HAND_OFFLINE: lambda: hand(torch.cat([x, padding], 2)),
        OFFLINE: lambda: nets[TARGET](x),
        OFFLINE_ODD: lambda: nets[ODD](x),
        "torchaudio's Resample": lambda: theirs(x),
        "SciPy's upfirdn, the same filter": lambda: upfirdn(taps, array, 160, 147),
    }
    for name in ("QQ", "HQ", "VHQ"):
        contenders[f"soxr, {name}, another filter"] = lambda name=name: soxr.resample(array, SOURCE, TARGET, name)
    for contender in contenders.values():
        contender()
    return contenders


def check(torchaudio: Any) -> None:
    """What is timed is the same, but for soxr's."""
    x = torch.rand(1, 1, 2 * SOURCE) - 0.5
    y = Resample(SOURCE, TARGET)(x)
    hand = ByHand(SOURCE, TARGET)
    by_hand = torch.cat([hand(chunk) for chunk in x.split(CHUNK, 2)], 2)
    torch.testing.assert_close(by_hand, y[..., : by_hand.size(2)], rtol=0, atol=1e-5)
    torch.testing.assert_close(torchaudio.transforms.Resample(SOURCE, TARGET)(x), y, rtol=0, atol=2e-5)


def table(times: dict[str, list[float]], base: str, tell: Callable[[str], None]) -> None:
    """A line for each contender."""
    for name, values in times.items():
        low, middle, high = quartiles([1e6 * s for s in values])
        ratio = quartiles([a / b for a, b in zip(values, times[base], strict=True)])
        tell(f"| {name} | {middle:.1f} ({low:.1f}-{high:.1f}) | {ratio[1]:.2f} ({ratio[0]:.2f}-{ratio[2]:.2f}) |")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="7 rounds")
    args = parser.parse_args()
    rounds = 7 if args.quick else 25
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torchaudio = load_torchaudio()
    load_peer()
    peer = importlib.import_module(f"{NAME}.audio")
    facts = machine()
    lines = [f"{facts['cpu']}, 1 thread; torch {facts['torch']}, Python {facts['python']}; float32; {rounds} rounds."]

    def tell(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    with torch.inference_mode():
        check(torchaudio)
        tell("")
        tell("| 10 ms, one channel | µs | by the scripted convolution by hand |")
        tell("|---|--:|--:|")
        called = interleave(chunks(peer), rounds, 0.02)
        table(called, HAND, tell)
        tell("")
        tell("| a second, one channel | µs | by the convolution by hand |")
        tell("|---|--:|--:|")
        whole = interleave(seconds(torchaudio), rounds, 0.02)
        table(whole, HAND_OFFLINE, tell)
    tell("")
    for one, other, most in ASKED:
        times = called if one in called else whole
        ratio = quartiles([a / b for a, b in zip(times[one], times[other], strict=True)])[1]
        where = "10 ms" if times is called else "a second"
        tell(f"- {where}, {one}, by {other}: **{ratio:.2f}** (at most {most:g})")
    if not args.quick:
        write_between_markers(Path(__file__).parent / "README.md", "\n".join(lines) + "\n", "resample")


if __name__ == "__main__":
    main()
