"""Weights, packed as the kernels read them, and written as one string literal."""

from typing import Dict, List

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Weights", "by_outputs", "literal", "padded"]

# Weights begin at whole vectors of the widest machine.
_ALIGNED = 16
_LINE = 120


def padded(width: int) -> int:
    """Numbers from a row of so many to the next: whole vectors, or as many as a narrow one takes."""
    if width > 8:
        return -(-width // 16) * 16
    return 1 << (width - 1).bit_length() if width > 0 else 1


def by_outputs(weight: Tensor) -> Tensor:
    """A matrix ``[K, outputs]`` in blocks of 64 outputs, or 16: ``[outputs / 16][K][16]``."""
    wide = padded(weight.size(1))
    weight = F.pad(weight, [0, wide - weight.size(1)])
    block = 64 if wide % 64 == 0 else min(wide, 16)
    return weight.reshape(weight.size(0), wide // block, block).transpose(0, 1).contiguous()


class Weights:
    """All constants of a net, one after the other.

    Args:
        dtype: of the net
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.pieces: List[Tensor] = []
        self.count = 0
        self._known: Dict[bytes, int] = {}

    def add(self, values: Tensor) -> int:
        """Where these values stand; equal ones stand there once."""
        flat = values.detach().to("cpu", self.dtype).contiguous().reshape(-1)
        # One vector more, as narrow rows are read by whole ones.
        flat = F.pad(flat, [0, -flat.numel() % _ALIGNED])
        key = flat.numpy().tobytes()
        if key not in self._known:
            self._known[key] = self.count
            self.pieces.append(flat)
            self.count += flat.numel()
        return self._known[key]

    def data(self) -> bytes:
        """The bytes, little-endian."""
        return b"".join(piece.numpy().tobytes() for piece in self.pieces)


def literal(data: bytes) -> str:
    """Bytes as lines of a string literal, which a compiler reads 20 times as fast as numbers."""
    plain = {byte: chr(byte) for byte in range(32, 127) if chr(byte) not in '"\\?'}
    table = [plain.get(byte, f"\\{byte:03o}") for byte in range(256)]
    lines: List[str] = []
    line: List[str] = []
    length = 0
    for byte in data:
        text = table[byte]
        line.append(text)
        length += len(text)
        if length >= _LINE:
            lines.append('"' + "".join(line) + '"')
            line, length = [], 0
    lines.append('"' + "".join(line) + '"')
    return "\n".join(lines)
