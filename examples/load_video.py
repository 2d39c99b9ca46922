"""Read videos as clips, several at once: batches of frames in which every row goes on where it stopped.

    python examples/load_video.py [report.json] [--videos one.mp4 two.mp4 …]

Without videos it draws some: a dot that goes its way, frame by frame. With videos it needs PyAV (pip install av). Two
processes read four videos at a time in clips of 8 frames, each in a row of its own; when one ends, the next takes its
row. The example checks that in every row each frame follows the one before, and prints how fast they come.
"""

import argparse
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import torchstreamer as pts

CLIP = 8  # frames
ROWS = 4
SIZE = 64  # pixels


def draw_videos(folder: Path, count: int = 7) -> list[Path]:
    """Videos of unequal length, as arrays ``[frames, height, width, 3]``. A frame's first pixel is its number."""
    paths = []
    for number in range(count):
        frames = np.zeros((30 + 17 * number % 50, SIZE, SIZE, 3), np.uint8)
        for at, frame in enumerate(frames):
            frame[(7 * number + at) % SIZE, 2 * at % SIZE] = 255
            frame[0, 0] = at
        paths.append(folder / f"video{number}.npy")
        np.save(paths[-1], frames)
    return paths


def open_video(path: Path) -> Iterator[dict[str, Any]]:
    """The clips of a video, ``[frames, height, width, 3]``, each with its name."""
    frames: Any
    if path.suffix == ".npy":
        frames = np.load(path, mmap_mode="r")  # reads what is asked for, no more
    else:
        container = importlib.import_module("av").open(str(path))
        frames = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
    clip: list[Tensor] = []
    for frame in frames:
        clip.append(torch.from_numpy(np.array(frame)))
        if len(clip) == CLIP:
            yield {"frames": torch.stack(clip), "name": path.name}
            clip = []
    if clip:
        yield {"frames": torch.stack(clip), "name": path.name}


def main() -> int:
    """Run the example; 1 if a frame is not where it belongs."""
    parser = argparse.ArgumentParser(description="Load videos as clips, several at once.")
    parser.add_argument("output", type=Path, nargs="?", help="file for a report")
    parser.add_argument("--videos", type=Path, nargs="+", default=[], help="videos of one size")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        paths = args.videos or draw_videos(Path(folder))
        dataset = pts.StreamDataset(paths, open_video, ROWS, time_dim=0)
        begin, frames, batches, wrong = time.perf_counter(), [0] * len(paths), 0, 0
        for batch in pts.StreamDataLoader(dataset, num_workers=2):
            batches += 1
            for row in batch.valid.nonzero()[:, 0].tolist():
                index, count = int(batch.ids[row]), int(batch.lengths["frames"][row])
                clip = batch.data["frames"][row, :count]
                wrong += batch.data["name"][row] != paths[index].name
                if not args.videos:
                    wrong += clip[:, 0, 0, 0].tolist() != list(range(frames[index], frames[index] + count))
                frames[index] += count
        seconds = time.perf_counter() - begin

    print(f"videos              {len(paths)}, {sum(frames)} frames")
    print(f"batches             {batches} of {ROWS} rows, {CLIP} frames each")
    print(f"frames per second   {sum(frames) / seconds:.0f}, with the start of two processes")
    print(f"frames out of place {wrong}")
    if args.output is not None:
        args.output.write_text(json.dumps({"frames": frames, "batches": batches}))
    if wrong:
        print("Frames were out of place.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
