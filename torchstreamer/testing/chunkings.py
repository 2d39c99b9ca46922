"""Ways of cutting a signal.

A chunking is a tuple of lengths, one a call; ``None`` stands for a call without a chunk. The last call is the final
one, so ``(3, 0, 4)`` ends with a chunk of 4 samples, and ``(3, 4, None)`` with ``flush()``.
"""

import random
from typing import Callable, Iterator, List, Optional, Sequence, Tuple

from torch import Tensor

from ..core.whole_numbers import whole_number

__all__ = [
    "Chunking",
    "all_at_once",
    "all_chunkings",
    "chunkings",
    "even_chunks",
    "prime_chunks",
    "random_chunks",
    "shrink_chunking",
    "split_signal",
    "total_length",
    "with_pauses",
]

Chunking = Tuple[Optional[int], ...]

_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97)


def total_length(chunking: Chunking) -> int:
    """Length of the signal that a chunking cuts, in samples.

    Example:
        >>> from torchstreamer.testing import total_length
        >>> total_length((3, None, 0, 4))
        7
    """
    return sum(piece for piece in chunking if piece is not None)


def split_signal(x: Tensor, chunking: Chunking) -> Iterator[Tuple[Optional[Tensor], bool]]:
    """Cut a signal along its last axis.

    Args:
        x: the signal, time last
        chunking: the lengths of the pieces; together the length of ``x``

    Returns:
        for every call of the stream the chunk, a view or ``None``, and whether the call is final

    Raises:
        ValueError: the pieces are together longer or shorter than the signal

    Example:
        >>> import torch
        >>> from torchstreamer.testing import split_signal
        >>> list(split_signal(torch.arange(3), (2, 1)))
        [(tensor([0, 1]), False), (tensor([2]), True)]
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"invalid_signal: a {type(x).__name__} came; a tensor was expected; use torch.as_tensor")
    chunking = tuple(None if piece is None else whole_number(piece, "piece", 0) for piece in chunking)
    if total_length(chunking) != x.shape[-1]:
        raise ValueError(f"invalid_chunking: {chunking} cuts {total_length(chunking)} samples; {x.shape[-1]} came")
    start = 0
    for i, piece in enumerate(chunking):
        chunk = None if piece is None else x.narrow(-1, start, piece)
        start += piece or 0
        yield chunk, i == len(chunking) - 1


def all_at_once(n: int) -> Chunking:
    """The whole signal in one final call."""
    return (whole_number(n, "n", 0),)


def even_chunks(n: int, size: int) -> Chunking:
    """Pieces of ``size`` samples, the last one shorter if need be."""
    n, size = whole_number(n, "n", 0), whole_number(size, "size")
    return tuple(min(size, n - start) for start in range(0, n, size)) or (0,)


def prime_chunks(n: int, first: int = 0) -> Chunking:
    """Pieces as long as the primes 2, 3, 5 … 97, over and over, beginning with prime number ``first``."""
    n, first = whole_number(n, "n", 0), whole_number(first, "first", 0)
    pieces: List[int] = []
    while n > 0:
        pieces.append(min(_PRIMES[first % len(_PRIMES)], n))
        n -= pieces[-1]
        first += 1
    return tuple(pieces) or (0,)


def random_chunks(n: int, seed: int, largest: Optional[int] = None) -> Chunking:
    """Pieces of 0 to ``largest`` samples, small ones and large ones equally often, with calls without a chunk between.

    Args:
        n: length of the signal, in samples
        seed: the same seed gives the same chunking; global random states are left alone
        largest: largest piece; without it, the whole signal
    """
    n = whole_number(n, "n", 0)
    largest = None if largest is None else whole_number(largest, "largest")
    rng = random.Random(f"{seed} {n} {largest}")
    pieces: List[Optional[int]] = []
    left = n
    while left > 0:
        kind = rng.randrange(12)
        if kind == 0:
            pieces.append(0)
        elif kind == 1:
            pieces.append(None)
        else:
            top = min(left, largest or n)
            piece = min(rng.randint(1, 2 ** rng.randint(1, top.bit_length())), top)
            pieces.append(piece)
            left -= piece
    end: List[List[Optional[int]]] = [[], [0], [None]]
    return tuple(pieces + end[rng.randrange(3)]) or (0,)


def with_pauses(chunking: Chunking) -> Chunking:
    """The same pieces, with an empty chunk before and a call without a chunk behind each of them."""
    paused: List[Optional[int]] = []
    for piece in chunking:
        paused += [0, piece, None]
    return tuple(paused)


def all_chunkings(n: int) -> Iterator[Chunking]:
    """Every way of cutting ``n`` samples into pieces of at least one sample: ``2 ** (n - 1)`` of them."""
    n = whole_number(n, "n", 0)
    if n == 0:
        yield (0,)
    for first in range(1, n):
        for rest in all_chunkings(n - first):
            yield (first, *rest)
    if n > 0:
        yield (n,)


def chunkings(n: int, seed: int = 0, pieces: int = 64, thorough: bool = False) -> List[Chunking]:
    """A set of ways of cutting ``n`` samples: at once, in single samples, primes, huge and tiny pieces, at random.

    Args:
        n: length of the signal, in samples
        seed: of the random ones; the same seed gives the same list
        pieces: about the largest number of pieces; longer signals are cut into pieces of more than one sample
        thorough: whether to add more of each kind

    Returns:
        different chunkings, those with few pieces first

    Example:
        >>> from torchstreamer.testing import chunkings
        >>> chunkings(3)[:3]
        [(3,), (3, None), (1, 2)]
    """
    n, pieces = whole_number(n, "n", 0), whole_number(pieces, "pieces")
    if n == 0:
        return [(0,), (None,), (0, None, 0)]
    smallest = -(-n // pieces)
    found: List[Chunking] = [(n,), (n, None)]
    found += [(cut, n - cut) for cut in sorted({1, n // 2, n - 1}) if 0 < cut < n]
    for size in (smallest, smallest + 1) if not thorough else range(smallest, smallest + 4):
        found += [even_chunks(n, size), (*even_chunks(n, size), None)]
    if n <= pieces:
        found.append(with_pauses(even_chunks(n, 1)))
    if smallest < 12:
        found += [prime_chunks(n, first) for first in ((0,) if not thorough else (0, 1, 3, 6))]
    for i in range(3 if not thorough else 12):
        chunking = random_chunks(n, seed + i, None if i % 2 else max(n // 3, 1))
        if len(chunking) <= 2 * pieces:
            found.append(chunking)
    return sorted(dict.fromkeys(found), key=len)


def shrink_chunking(
    chunking: Chunking, fails: Callable[[Chunking], object], attempts: int = 400, multiple: int = 1
) -> Chunking:
    """The smallest chunking found that still fails.

    Chunkings of the same signal into one and two pieces are tried first; then pieces are left out, joined and shortened
    as long as the failure stays.

    Args:
        chunking: one that fails
        fails: whether a chunking fails
        attempts: how often to call ``fails`` at most
        multiple: what the total length of every chunking tried must be a multiple of

    Returns:
        a chunking that fails; ``chunking`` itself if nothing smaller does
    """
    left = attempts

    def failing(candidates: Iterator[Chunking]) -> Optional[Chunking]:
        nonlocal left
        for candidate in candidates:
            if left <= 0:
                return None
            left -= 1
            if fails(candidate):
                return candidate
        return None

    few = failing(c for c in _few_pieces(total_length(chunking)) if _size(c) < _size(chunking))
    smallest = few or chunking
    while True:
        smaller = failing(_fitting(smallest, multiple))
        if smaller is None:
            return smallest
        smallest = smaller


def _size(chunking: Chunking) -> int:
    return len(chunking) + total_length(chunking)


def _few_pieces(n: int) -> Iterator[Chunking]:
    yield (n,)
    yield (n, None)
    for cut in sorted({1, 2, n // 2, n - 1}):
        if 0 < cut < n:
            yield (cut, n - cut)


def _fitting(chunking: Chunking, multiple: int) -> Iterator[Chunking]:
    """Smaller chunkings whose totals are multiples: the first or the last piece makes up for what is missing."""
    for smaller in _smaller(chunking):
        over = total_length(smaller) % multiple
        if over == 0:
            yield smaller
            continue
        pieces = [i for i, piece in enumerate(smaller) if piece is not None]
        for i in sorted({pieces[0], pieces[-1]}):
            for change in (-over, multiple - over):
                piece = (smaller[i] or 0) + change
                fitted = (*smaller[:i], piece, *smaller[i + 1 :])
                if piece >= 0 and _size(fitted) < _size(chunking):
                    yield fitted


def _smaller(chunking: Chunking) -> Iterator[Chunking]:
    if len(chunking) > 3:  # large steps first
        yield chunking[: len(chunking) // 2]
        yield chunking[len(chunking) // 2 :]
    for i, piece in enumerate(chunking):
        before, behind = chunking[:i], chunking[i + 1 :]
        if len(chunking) > 1:
            yield (*before, *behind)
        if piece is not None:
            for shorter in _shorter(piece):
                yield (*before, shorter, *behind)
    for i in range(len(chunking) - 1):
        one, two = chunking[i], chunking[i + 1]
        if one is not None and two is not None:
            yield (*chunking[:i], one + two, *chunking[i + 2 :])


def _shorter(piece: int) -> Sequence[int]:
    return sorted({shorter for shorter in (0, piece // 2, piece - piece // 4, piece - 1) if 0 <= shorter < piece})
