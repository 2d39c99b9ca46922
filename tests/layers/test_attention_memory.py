"""The memory of attention, against the whole signal under the mask of its pattern."""

import random
from typing import Any, List, Optional

import pytest
import torch
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.core.context import Pattern
from torchstreamer.layers.attention_memory import AttentionMemory, Faced

PATTERNS = {
    "window": pts.Context.window(6).pattern(),
    "band": pts.Context(5, 3).pattern(),
    "own key": pts.Context(0).pattern(),
    "ahead": pts.Context(0, 4).pattern(),
    "chunks": pts.Context(8, 0, 4).pattern(),
    "chunks with a right context": pts.Context(6, 3, 4).pattern(),
    "right beyond left": pts.Context(3, 7, 5).pattern(),
    "far back": pts.Context(70, 0, 3).pattern(),
    "every other": Pattern((-3,), (0,), ((False, True, False, True),)),
    "uneven": Pattern((-4, -4, -4, -3, -3, -2), (0, 1, 1, 4, 4, 6)),
    "strictly before": Pattern((-5,), (-1,)),
    "sinks": Pattern((-4,), (0,), None, 3),
    "sinks and chunks": Pattern((-4,) * 3, (4,) * 3, None, 5),
    "all": Pattern(
        (-3, -2), (2, 2), ((True, False, True, False, True, True), (False, True, True, True, False, True)), 2
    ),
}


class Remembers(nn.Module):
    def __init__(self, pattern: Pattern, clocked: bool = False) -> None:
        super().__init__()
        self.memory = AttentionMemory(pattern, clocked)

    def forward(self, q: Optional[Tensor], k: Optional[Tensor], final: bool) -> Optional[Faced]:
        return self.memory.take(q, k, final)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Optional[Tensor]) -> Tensor:
    scores = q.mT @ k
    if mask is not None:
        scores = scores.masked_fill(~mask, -1e30)
    weights = scores.softmax(-1)
    if mask is not None:
        weights = weights.masked_fill(~mask, 0)
    return weights @ v.mT


def faced_whole(pattern: Pattern, memory: Any, length: int, sizes: List[int], clocked: bool = False) -> None:
    q, k, v = torch.randn(3, 2, 4, length, dtype=torch.float64)
    whole = attend(q, k, v, pattern.mask(length))
    at = done = 0
    while at < length:
        t = min(random.choice(sizes), length - at)
        at += t
        new = slice(at - t, at)
        faced = memory(q[..., new], torch.cat([k, v], 1)[..., new], at == length)
        m = 0 if faced is None else faced.q.size(2)
        assert done + m == (length if at == length else pattern.settled(at)), (at, done, m)
        if faced is None:
            continue
        keys, values = faced.k.split(4, 1)
        torch.testing.assert_close(attend(faced.q, keys, values, faced.mask), whole[:, done : done + m])
        if clocked:
            assert torch.equal(faced.i, torch.arange(done, done + m).expand(2, -1))
            there = faced.j >= 0
            position = faced.j.clamp(min=0).unsqueeze(1)
            assert torch.equal(torch.where(there.unsqueeze(1), k[:, :1].gather(2, position), 0.0), keys[:, :1])
        done += m


@pytest.mark.parametrize("name", list(PATTERNS))
def test_queries_see_what_the_pattern_says(name):
    pattern = PATTERNS[name]
    random.seed(0)
    torch.manual_seed(0)
    with torch.no_grad():
        for length in (1, 2, 3, 7, 40, 131):
            for sizes in ([1], [50], [1, 2, 3, 7, 11, 29]) if length != 131 else ([31], [1, 2, 3, 7, 11, 29]):
                for clocked in (False, True):
                    # Slots that young sinks have not filled have the positions that they will have.
                    faced_whole(pattern, Remembers(pattern, clocked), length, sizes, clocked and not pattern.prefix)


@pytest.mark.parametrize("name", ["band", "chunks with a right context", "all"])
def test_so_does_a_script(name):
    pattern = PATTERNS[name]
    random.seed(0)
    torch.manual_seed(0)
    for length in (7, 131):
        faced_whole(pattern, torch.jit.script(Remembers(pattern, True)), length, [1, 3, 11])
