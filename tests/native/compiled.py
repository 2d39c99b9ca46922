"""Exported nets, compiled many at a time and run through their C interface."""

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import torchstreamer as pts

FLAGS = ["-std=gnu++17", "-O0", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror"]


class Compiled:
    """A net in a shared library.

    Args:
        library: the library
        name: of the net's class, in small letters
        dtype: of its numbers
    """

    def __init__(self, library: ctypes.CDLL, name: str, dtype: torch.dtype) -> None:
        self.library, self.name, self.dtype = library, name, dtype
        self.ins, self.outs = self._function("channels_in")(0), self._function("channels_out")(0)
        self._function("new").restype = ctypes.c_void_p
        self.net = ctypes.c_void_p(self._function("new")())
        assert self.net.value

    def __call__(self, *xs: Tensor) -> Tensor:
        """What it gives for pieces ``[C, n]`` of all inputs."""
        n = xs[0].shape[-1]
        most = self._function("most")(n, 0)
        y = torch.full([self.outs, most], float("nan"), dtype=self.dtype)
        count = self._function("process")(self.net, _rows(*xs), n, _rows(y))
        assert 0 <= count <= most
        return y[:, :count]

    def flush(self) -> Tensor:
        """What the end gives."""
        y = torch.full([self.outs, max(self._function("most_at_end")(0), 1)], float("nan"), dtype=self.dtype)
        count = self._function("flush")(self.net, _rows(y))
        assert 0 <= count <= y.shape[1]
        return y[:, :count]

    def run(self, xs: Sequence[Tensor], cuts: Sequence[int]) -> Tensor:
        """A whole signal ``[C, n]`` of every input; the cuts are those of the first."""
        n = xs[0].shape[-1]
        assert sum(cuts) == n
        ys, came = [], 0
        for cut in cuts:
            spans = (
                [(came * x.shape[-1] // n, (came + cut) * x.shape[-1] // n) for x in xs] if n else [(0, 0)] * len(xs)
            )
            ys.append(self(*(x[:, start:stop].contiguous() for x, (start, stop) in zip(xs, spans, strict=True))))
            came += cut
        return torch.cat([*ys, self.flush()], -1)

    def state(self) -> bytes:
        """Its state."""
        data = ctypes.create_string_buffer(self._function("state_bytes")())
        self._function("save")(self.net, data)
        return data.raw

    def load(self, state: bytes) -> bool:
        """Take a state."""
        return bool(self._function("load")(self.net, state))

    def _function(self, name: str) -> Any:
        return getattr(self.library, f"{self.name}_{name}")


def _rows(*xs: Tensor) -> Any:
    # Pointers to all channels.
    assert all(x.is_contiguous() for x in xs)
    channels = [x[channel] for x in xs for channel in range(x.shape[0])]
    return (ctypes.c_void_p * len(channels))(*(channel.data_ptr() for channel in channels))


def compiled(
    streams: dict[str, Any],
    folder: Path,
    plain: bool = True,
    flags: Sequence[str] = (),
    options: dict[str, dict[str, Any]] | None = None,
) -> dict[str, Compiled]:
    """Streams, exported and compiled in one go.

    Args:
        streams: by name
        folder: for the files
        plain: whether without vectors, which compiles faster
        flags: more of them, for the compiler
        options: of `export`, by name
    """
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    places = {name: f"Net{i}" for i, name in enumerate(streams)}
    for name, stream in streams.items():
        path = folder / f"{places[name]}.cpp"
        pts.export(stream, path, name=places[name], **(options or {}).get(name, {}))
    source = folder / "all.cpp"
    source.write_text("\n".join(f'#include "{place}.cpp"' for place in places.values()) + "\n")
    library = folder / "all.so"
    more = ["-DTORCHSTREAMER_PLAIN"] if plain else ["-march=native"]
    made = subprocess.run(
        ["g++", *FLAGS, *more, *flags, str(source), "-o", str(library)], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr[:4000]
    opened = ctypes.CDLL(str(library))
    found = {}
    for name, place in places.items():
        anchor = streams[name].anchor()
        dtype = (options or {}).get(name, {}).get("dtype") or (anchor.dtype if anchor is not None else torch.float32)
        found[name] = Compiled(opened, place.lower(), dtype)
    return found


def chunkings(n: int, generator: np.random.Generator) -> list[list[int]]:
    """Ways to cut a signal: whole, sample by sample, in primes, with empty pieces, and mixed."""
    mixed, left = [], n
    while left:
        piece = min(left, int(generator.choice([0, 1, 2, 3, 5, 16, 64, 65, 129])))
        mixed.append(piece)
        left -= piece
    primes = [7] * (n // 7) + [n % 7]
    return [[n], [1] * n, primes, mixed]


def agree(
    net: nn.Module,
    made: Compiled,
    x: Tensor | tuple[Tensor, ...],
    cuts: Sequence[int],
    tolerance: float = 1e-5,
    times: tuple[Sequence[int], int] = ((-1,), -1),
) -> None:
    """A net gives what the module gives on the whole; nothing where that raises as the signal is too short.

    Args:
        net: the module
        made: the net
        x: its input, or all of them, with one row
        cuts: of the first of them
        tolerance: of the difference, by scale
        times: time axes of the inputs, and of the output
    """
    xs = x if isinstance(x, tuple) else (x,)
    y = made.run([_channels(each, time) for each, time in zip(xs, times[0], strict=True)], cuts)
    try:
        with torch.no_grad():
            expected = _channels(net(*xs), times[1])
    except Warning:
        raise
    except Exception:
        assert y.numel() == 0
        return
    if expected.numel() == 0:
        assert y.numel() == 0
        return
    assert y.shape == expected.shape, (y.shape, expected.shape)
    assert torch.equal(y.isnan(), expected.isnan())
    finite = expected[expected.isfinite()]
    scale = max(float(finite.abs().max()) if finite.numel() else 0.0, 1.0)
    torch.testing.assert_close(y, expected, rtol=tolerance, atol=tolerance * scale, equal_nan=True)


def _channels(x: Tensor, time: int) -> Tensor:
    # One row as [C, T].
    x = x.movedim(time, -1)
    return x.reshape(-1, x.shape[-1]) if x.numel() else x.new_zeros(1, 0)
