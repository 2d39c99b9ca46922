"""Cut tensors, and the relative lengths that go with them, into chunks."""

from typing import Any, List, Sequence

import torch
from torch import Tensor

from .arguments import whole_number

__all__ = ["split_fixed_chunks", "split_wav_lens"]


def split_fixed_chunks(x: Tensor, chunk_size: int, dim: int = -1) -> List[Tensor]:
    """Cut a tensor into chunks of one size along any dimension; the last one may be smaller.

    Args:
        x: the tensor, of one dimension or more
        chunk_size: size of a chunk along ``dim``, in samples
        dim: the dimension to cut along

    Returns:
        the chunks, views of ``x``; a tensor that is empty along ``dim`` is its own only chunk

    Raises:
        TypeError: ``x`` is no tensor
        ValueError: ``chunk_size`` below 1, or a tensor without dimensions
        IndexError: ``x`` has no such dimension

    Example:
        >>> import torch
        >>> from torchstreamer.analysis import split_fixed_chunks
        >>> [tuple(chunk.shape) for chunk in split_fixed_chunks(torch.zeros(16, 300, 80), 128, dim=1)]
        [(16, 128, 80), (16, 128, 80), (16, 44, 80)]
    """
    chunk_size = whole_number(chunk_size, "chunk_size")
    _require_tensor(x, "x")
    if x.dim() == 0:
        raise ValueError("invalid_tensor: a tensor without dimensions came; one to cut along was expected; reshape it")
    return list(torch.split(x, chunk_size, dim))


def split_wav_lens(chunk_lens: Sequence[int], wav_lens: Tensor) -> List[Tensor]:
    """Relative lengths of the signals of a batch, chunk by chunk.

    Args:
        chunk_lens: samples of each chunk, for instance ``[chunk.size(1) for chunk in chunks]``; 0 is allowed
        wav_lens: relative length of each signal, ``[B]``: of 100 samples, 0.25 means 25

    Returns:
        for every chunk the part of it, 0 to 1, that each signal fills, ``[B]``; an empty chunk is filled by nobody.
        Weighted with ``chunk_lens`` they add up to ``wav_lens * sum(chunk_lens)``

    Raises:
        TypeError: ``wav_lens`` is no tensor
        ValueError: a negative length

    Example:
        >>> import torch
        >>> from torchstreamer.analysis import split_wav_lens
        >>> split_wav_lens([8, 8, 4], torch.tensor([1.0, 0.65, 0.25]))[1]  # 20, 13 and 5 samples
        tensor([1.0000, 0.6250, 0.0000])
    """
    _require_tensor(wav_lens, "wav_lens")
    if any(length < 0 for length in chunk_lens):
        raise ValueError(
            f"invalid_chunk_lens: {list(chunk_lens)} came; lengths from 0 on were expected; pass sizes of chunks"
        )
    lengths = wav_lens if wav_lens.is_floating_point() else wav_lens.to(torch.get_default_dtype())
    frames = lengths * sum(chunk_lens)
    parts: List[Tensor] = []
    start = 0
    for length in chunk_lens:
        parts.append(((frames - start) / length).clamp(0.0, 1.0) if length > 0 else torch.zeros_like(frames))
        start += length
    return parts


def _require_tensor(x: Any, name: str) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(
            f"invalid_tensor: {name}, a {type(x).__name__}, came; a tensor was expected; pass torch.as_tensor({name})"
        )
