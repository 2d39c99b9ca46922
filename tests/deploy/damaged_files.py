"""Exported files, damaged at random: they are refused, or give what they always gave.

    python tests/deploy/damaged_files.py [count] [seed]

Bytes are flipped, cut, swapped, repeated and exchanged between files. Each damaged file must raise `StreamFileError`
when it is loaded; one that loads must give the same outputs as the whole one, to the bit. Prints how far it is, and
exits with 1 if any file did something else.
"""

import random
import sys
import tempfile
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import torch
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.deploy.files import seal

CHUNK = 4


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv1d(2, 1, 3)).eval()


def written(folder: Path, compiled: bool = True) -> Dict[str, bytes]:
    """A small stream in every format that can be written here, by its suffix.

    Args:
        folder: where to write them
        compiled: whether the ``.pt2`` file holds a program, which takes a compiler half a minute
    """
    stream = pts.create_stream(small_net())
    files = {".pt": pts.export(stream, folder / "whole.pt").read_bytes()}
    files[".onnx"] = pts.export(stream, folder / "whole.onnx", CHUNK).read_bytes()
    path = folder / "whole.pt2"
    if compiled:
        pts.export(stream, path, CHUNK)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("whole/archive_format", "pt2")
            archive.writestr("whole/data/aotinductor/model/step.wrapper_metadata.json", "{}")
        seal(path)
    return {**files, ".pt2": path.read_bytes()}


# ---------------------------------------------------------------------- damage


def _block(data: bytes, draw: random.Random) -> Tuple[int, int]:
    start = draw.randrange(len(data) + 1)
    return start, min(start + draw.choice([1, 2, 8, 64, 1000]), len(data))


def flip(data: bytes, other: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 20])):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def flip_near_an_end(data: bytes, other: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    at = draw.randrange(min(200, len(data)))
    changed[at if draw.random() < 0.3 else -at - 1] = draw.randrange(256)
    return bytes(changed)


def cut_end(data: bytes, other: bytes, draw: random.Random) -> bytes:
    return data[: draw.choice([draw.randrange(len(data)), len(data) - draw.randrange(1, 100)])]


def cut_out(data: bytes, other: bytes, draw: random.Random) -> bytes:
    start, stop = _block(data, draw)
    return data[:start] + data[stop:]


def insert(data: bytes, other: bytes, draw: random.Random) -> bytes:
    at = draw.choice([0, len(data), draw.randrange(len(data))])
    return data[:at] + draw.randbytes(draw.choice([1, 22, 300])) + data[at:]


def repeat(data: bytes, other: bytes, draw: random.Random) -> bytes:
    start, stop = _block(data, draw)
    return data[:stop] + data[start:stop] * draw.choice([1, 3]) + data[stop:]


def swap(data: bytes, other: bytes, draw: random.Random) -> bytes:
    a, b, c, d = sorted(draw.randrange(len(data) + 1) for _ in range(4))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def blank(data: bytes, other: bytes, draw: random.Random) -> bytes:
    start, stop = _block(data, draw)
    return data[:start] + bytes(stop - start) + data[stop:]


def exchange(data: bytes, other: bytes, draw: random.Random) -> bytes:
    start, stop = _block(data, draw)
    return data[:start] + other[start:stop] + data[stop:]


def join(data: bytes, other: bytes, draw: random.Random) -> bytes:
    return data + other if draw.random() < 0.5 else other + data


def rename(data: bytes, other: bytes, draw: random.Random) -> bytes:
    return other


DAMAGES: List[Callable[[bytes, bytes, random.Random], bytes]] = [
    *(flip, flip_near_an_end, cut_end, cut_out, insert, repeat, swap, blank, exchange, join, rename)
]


# ---------------------------------------------------------------------- what comes of it


def outputs(runner: Any, x: Tensor) -> Tensor:
    pieces = [runner(piece) for piece in x.split([5, 1, 14], -1)] + [runner.flush()]
    return torch.cat([piece for piece in pieces if piece is not None], -1)


def damage(files: Dict[str, bytes], folder: Path, draw: random.Random, wanted: Dict[str, Tensor], x: Tensor) -> str:
    """Damage one file and load it; ``""`` if it was refused as it must be, or else what it did."""
    suffix, other = draw.choice(sorted(files)), draw.choice(sorted(files))
    how = draw.choice(DAMAGES)
    data = how(files[suffix], files[other], draw)
    path = folder / f"damaged{suffix}"
    path.write_bytes(data)
    try:
        found = outputs(pts.load(path), x)
    except pts.StreamFileError as error:
        refused = str(path) in str(error) and (data != files[suffix] or suffix not in wanted)
        return "" if refused else f"{how.__name__} of {suffix}: {error}"
    except Exception as error:
        return f"{how.__name__} of {suffix}: {type(error).__name__}: {error}"
    same = data == files[suffix] and torch.equal(found, wanted[suffix])
    return "" if same else f"{how.__name__} of {suffix}: it was loaded"


def damage_many(files: Dict[str, bytes], folder: Path, count: int, seed: int, whole: List[str]) -> List[str]:
    """What files did that they must not.

    Args:
        files: whole ones, by their suffix
        folder: for damaged ones
        count: how many
        seed: of the damage
        whole: the suffixes of those that load when they are whole
    """
    draw, x = random.Random(seed), torch.randn(1, 1, 20, generator=torch.Generator().manual_seed(0))
    wanted = {}
    for suffix in whole:
        path = folder / f"undamaged{suffix}"
        path.write_bytes(files[suffix])
        wanted[suffix] = outputs(pts.load(path), x)
        with torch.no_grad():
            torch.testing.assert_close(wanted[suffix], small_net()(x))
    faults, begin = [], time.monotonic()
    for number in range(count):
        fault = damage(files, folder, draw, wanted, x)
        if fault:
            faults.append(f"{number}: {fault}")
        if count > 100 and (number + 1) % 100 == 0:
            print(f"{number + 1} of {count}, {len(faults)} faults, {time.monotonic() - begin:.0f} s", flush=True)
    return faults


def main() -> int:
    warnings.simplefilter("ignore")
    count, seed = (int(given) for given in (*sys.argv[1:], *("2000", "0")[len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        files = written(Path(folder))
        faults = damage_many(files, Path(folder), count, seed, sorted(files))
    print(*faults, f"{count} damaged files, seed {seed}: {len(faults)} faults", sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
