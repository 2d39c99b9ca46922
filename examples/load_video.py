"""Read a folder of videos as clips, several at once: in every row of the batches a video goes on where it stopped.

    python examples/load_video.py [grid.png] [--folder FOLDER]

Reads every .mp4 of the folder with PyAV (pip install av); without a folder it makes some of its own, of unequal length.
Two processes read four videos at a time in clips of 4 frames, each in a row of its own; when one ends, the next takes
its row. Meanwhile this process draws each batch, the rows side by side, one picture for every frame, and writes one of
them. It prints how long it waits for a batch, and for its own videos checks that each frame follows the one before.
"""

import argparse
import importlib
import json
import statistics
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import torchstreamer as pts

CLIP = 4  # frames
ROWS = 4
HEIGHT, WIDTH = 96, 128  # what frames are brought to
BIT = 8  # pixels of a square that stands for a bit of a frame's number
BITS = 12


def make_videos(av: Any, folder: Path, count: int = 8) -> list[int]:
    """Videos of a ball that goes its way, and the number of frames in each. In a frame's top row stands its number, in
    squares that are white for 1."""
    lengths = [120 + 70 * number % 200 for number in range(count)]
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for number, length in enumerate(lengths):
        with av.open(str(folder / f"video{number}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", 2_000_000
            for at in range(length):
                picture = np.stack([x, y, np.full_like(x, 30 * number)], -1).astype(np.uint8)
                near = (x - (9 * number + 3 * at) % WIDTH) ** 2 + (y - 50 - 25 * np.sin(at / 9)) ** 2 < 150
                picture[near] = 255, 220, 40
                for bit in range(BITS):
                    picture[:BIT, BIT * bit : BIT * (bit + 1)] = 255 * (at >> bit & 1)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = at, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return lengths


def numbers_of(clip: Tensor) -> list[int]:
    """The frames' own numbers, from their squares."""
    middle = clip[:, BIT // 2, BIT // 2 : BIT * BITS : BIT].float().mean(-1) > 127
    return [int(number) for number in (middle * 2 ** torch.arange(BITS)).sum(-1)]


def open_video(path: Path) -> Iterator[dict[str, Any]]:
    """The clips of a video, ``[frames, height, width, 3]``, each with its name."""
    clip: list[Tensor] = []
    with importlib.import_module("av").open(str(path)) as container:
        for frame in container.decode(video=0):
            small = frame.reformat(width=WIDTH, height=HEIGHT, format="rgb24").to_ndarray()
            clip.append(torch.from_numpy(small))
            if len(clip) == CLIP:
                yield {"frames": torch.stack(clip), "name": path.name}
                clip = []
    if clip:
        yield {"frames": torch.stack(clip), "name": path.name}


def draw(frames: Tensor) -> bytes:
    """One picture of all rows, two side by side, as a PNG file."""
    grid = frames.numpy().reshape(-1, 2, HEIGHT, WIDTH, 3).swapaxes(1, 2).reshape(-1, 2 * WIDTH, 3)
    lines = b"".join(b"\0" + line.tobytes() for line in grid)  # each preceded by its filter: none
    head = struct.pack(">IIBBBBB", grid.shape[1], grid.shape[0], 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(lines, 1)), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def main() -> int:
    """Run the example; 1 if a frame is not where it belongs, or there is nothing to read."""
    parser = argparse.ArgumentParser(description="Load a folder of videos as clips, several at once.")
    parser.add_argument("output", type=Path, nargs="?", default=Path("video_grid.png"), help="the picture, a .png file")
    parser.add_argument("--folder", type=Path, help="a folder of .mp4 files")
    parser.add_argument("--report", type=Path, help="file for the figures")
    args = parser.parse_args()
    try:
        av = importlib.import_module("av")
    except ImportError:
        print("Videos are read with PyAV, which is not installed here: pip install av", file=sys.stderr)
        return 1

    torch.set_num_threads(1)  # the other cores read
    with tempfile.TemporaryDirectory() as made:
        lengths = make_videos(av, Path(made)) if args.folder is None else None
        paths = sorted((args.folder or Path(made)).glob("*.mp4"))
        if not paths:
            print(f"There is no .mp4 file in {args.folder}.", file=sys.stderr)
            return 1
        dataset = pts.StreamDataset(paths, open_video, ROWS, time_dim=0, on_error="skip")
        loader = pts.StreamDataLoader(dataset, num_workers=2)
        counts, wrong, waits, drawn, picture = [0] * len(paths), 0, [], 0.0, b""
        batches, begin = iter(loader), time.perf_counter()
        while (batch := next(batches, None)) is not None:
            waits.append(1000 * (time.perf_counter() - begin))
            begin = time.perf_counter()
            for frame in range(batch.data["frames"].shape[1]):
                grid = draw(batch.data["frames"][:, frame])
                if bool((batch.lengths["frames"] > frame).all()):
                    picture = grid
            drawn += time.perf_counter() - begin
            for row in batch.valid.nonzero()[:, 0].tolist():
                index, count = int(batch.ids[row]), int(batch.lengths["frames"][row])
                wrong += batch.data["name"][row] != paths[index].name
                if lengths is not None:
                    clip = batch.data["frames"][row, :count]
                    wrong += numbers_of(clip) != list(range(counts[index], counts[index] + count))
                counts[index] += count
            begin = time.perf_counter()
    if lengths is not None:
        wrong += counts != lengths

    output = args.output.with_suffix(".png")
    output.write_bytes(picture)
    first, later = waits[0], sorted(waits[1:]) or waits
    p50, p99 = statistics.median(later), later[min(int(0.99 * len(later)), len(later) - 1)]
    print(f"videos              {len(paths)}, {sum(counts)} frames; {len(loader.skipped)} could not be read")
    print(f"batches             {len(waits)} of {ROWS} rows, {CLIP} frames each")
    print(f"time for a batch    p50 {p50:.2f} ms, p99 {p99:.2f} ms; {first:.0f} ms with the start of the processes")
    print(f"drawing a batch     {1000 * drawn / len(waits):.1f} ms")
    print(f"clips out of place  {wrong}")
    print(f"picture             {output}")
    if args.report is not None:
        args.report.write_text(json.dumps({"frames": counts, "batches": len(waits), "p50_ms": p50, "p99_ms": p99}))
    if wrong:
        print("Frames were out of place.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
