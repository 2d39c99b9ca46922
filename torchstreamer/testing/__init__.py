"""Verification of streams, built-in ones and your own.

from torchstreamer.testing import verify_stream

report = verify_stream(net, (2, 4, 100))    # rows, channels, a length at which the network works
print(report)
"""

from .chunkings import (
    Chunking,
    all_at_once,
    all_chunkings,
    chunkings,
    even_chunks,
    prime_chunks,
    random_chunks,
    split_signal,
    total_length,
    with_pauses,
)
from .report import Check, VerificationError, VerificationReport
from .verify import verify_stream

__all__ = [
    "Check",
    "Chunking",
    "VerificationError",
    "VerificationReport",
    "all_at_once",
    "all_chunkings",
    "chunkings",
    "even_chunks",
    "prime_chunks",
    "random_chunks",
    "split_signal",
    "total_length",
    "verify_stream",
    "with_pauses",
]
