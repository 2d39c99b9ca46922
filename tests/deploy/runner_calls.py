"""Formats of files, signals, and runners that are fed with them."""

import importlib.util
import os
import random
import shutil
from typing import Any, List, Optional

import pytest
import torch
from torch import Tensor, nn

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "dev")
THOROUGH = PROFILE == "thorough"
COMPILER = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))

needs_compiler = pytest.mark.skipif(not COMPILER, reason="needs a C++ compiler")
needs_onnx = pytest.mark.skipif(not ONNX, reason="needs onnx, onnxscript and onnxruntime")
SCRIPT = pytest.param(".pt", id="script")
PACKAGE = pytest.param(".pt2", id="package", marks=needs_compiler)
GRAPH = pytest.param(".onnx", id="onnx", marks=needs_onnx)

CHUNK = 12


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def whole(net: nn.Module, x: Tensor) -> Optional[Tensor]:
    with torch.no_grad():
        try:
            y = net(x.clone())
        except RuntimeError:
            return None
    return y if y.shape[-1] > 0 else None


def cut(n: int, seed: int, longest: int = 3 * CHUNK) -> List[int]:
    """Sizes of chunks: nothing, one, a few, more than a step."""
    draw, sizes = random.Random(seed), []
    while sum(sizes) < n:
        sizes.append(min(draw.choice([0, 1, 2, 7, draw.randint(0, longest)]), n - sum(sizes)))
    return sizes


def fed(runner: Any, x: Tensor, sizes: List[int], came: int = 0, given: int = 0) -> List[Tensor]:
    """Feed pieces; after each, what `output_length` says is out."""
    pieces = []
    for piece in x.split(sizes, -1):
        kept = piece.clone()
        y = runner(piece)
        assert torch.equal(piece, kept)
        came += piece.shape[-1]
        if y is not None:
            assert y.shape[-1] > 0
            pieces.append(y)
            given += y.shape[-1]
        assert given == runner.output_length(came, False)
    return pieces


def compare(pieces: List[Optional[Tensor]], expected: Optional[Tensor], tolerance: float = 1e-4) -> None:
    found = [piece for piece in pieces if piece is not None]
    if expected is None:
        assert not found
        return
    y = torch.cat(found, -1)
    assert y.shape == expected.shape and y.dtype == expected.dtype
    assert float((y - expected).abs().max()) <= tolerance * float(expected.abs().max())
