"""Contexts: their masks against the definitions that models publish, key by key."""

import itertools
import pickle

import pytest
import torch

import torchstreamer as pts
from torchstreamer.core.context import Pattern


def by_hand(length, sees):
    rows = [[bool(sees(i, j)) for j in range(length)] for i in range(length)]
    return torch.tensor(rows, dtype=torch.bool).reshape(length, length)


@pytest.mark.parametrize("left", [0, 1, 5, None])
@pytest.mark.parametrize("right", [0, 2, 7])
@pytest.mark.parametrize("chunk", [1, 3, 4])
def test_masks_are_as_defined(left, right, chunk):
    context = pts.Context(left, right, chunk)
    for length in (0, 1, 2, 7, 13):
        begin = [i // chunk * chunk for i in range(length)]
        back = length if left is None else left
        expected = by_hand(length, lambda i, j, b=begin, n=back: b[i] - n <= j <= b[i] + chunk - 1 + right)
        assert torch.equal(context.mask(length), expected)
        assert torch.equal(context.mask(length, masked=True), ~expected)
        if left is not None:
            assert torch.equal(context.pattern().mask(length), expected)


def test_conventions_of_others():
    assert pts.Context.window(4) == pts.Context(left=3)
    # moshi: 0 <= i - j < context
    assert torch.equal(pts.Context.window(4).mask(12), by_hand(12, lambda i, j: 0 <= i - j < 4))
    # NeMo's three styles
    regular = pts.Context.nemo([5, 2])
    assert torch.equal(regular.mask(12), by_hand(12, lambda i, j: i - 5 <= j <= i + 2))
    chunked = pts.Context.nemo([6, 2], "chunked_limited")
    assert torch.equal(chunked.mask(14), by_hand(14, lambda i, j: 0 <= i // 3 - j // 3 <= 6 // 3))
    ahead = pts.Context.nemo([5, 4, 3], "chunked_limited_with_rc")
    assert torch.equal(ahead.mask(17), by_hand(17, lambda i, j: i // 4 * 4 - 5 <= j <= i // 4 * 4 + 3 + 3))
    # WeNet and SpeechBrain: so many chunks before its own, or all
    assert torch.equal(pts.Context.chunks(4, 2).mask(17), by_hand(17, lambda i, j: 0 <= i // 4 - j // 4 <= 2))
    assert pts.Context.chunks(4, -1) == pts.Context(None, 0, 4)
    assert torch.equal(pts.chunk_mask(17, 4), by_hand(17, lambda i, j: j // 4 <= i // 4))
    assert torch.equal(pts.band_mask(9, 2, 1), by_hand(9, lambda i, j: -1 <= i - j <= 2))
    assert torch.equal(pts.band_mask(9, 2, 1, masked=True), ~pts.band_mask(9, 2, 1))


def test_all_keys_of_nemo_are_ten_thousand_chunks():
    assert pts.Context.nemo([-1, 3], "chunked_limited", max_length=40_000).left is None
    assert pts.Context.nemo([-1, 3], "chunked_limited", max_length=40_001).left == 40_000
    assert pts.Context.nemo([-1, 0]) == pts.Context(None)


@pytest.mark.parametrize(
    "make",
    [
        lambda: pts.Context(-1),
        lambda: pts.Context(2.5),
        lambda: pts.Context(3, right=-1),
        lambda: pts.Context(3, chunk=0),
        lambda: pts.Context(3, max_length=0),
        lambda: pts.Context.window(0),
        lambda: pts.Context.nemo([4, -1]),
        lambda: pts.Context.nemo([5, 2], "chunked_limited"),
        lambda: pts.Context.nemo([4, 2, 1]),
        lambda: pts.Context.nemo([4, 2], "chunked_limited_with_rc"),
        lambda: pts.Context.nemo([4, 2], "full"),
        lambda: pts.ContextSampler(chunk=(4, 2)),
        lambda: pts.ContextSampler(full=1.5),
    ],
)
def test_wrong_numbers_are_refused(make):
    with pytest.raises(ValueError, match=r"^invalid_context: .* came.*expected.*; "):
        make()


def test_it_is_a_value():
    context = pts.Context(6, 3, 4)
    assert context == pts.Context(left=6, right=3, chunk=4) and len({context, pts.Context(6, 3, 4)}) == 1
    assert (
        repr(context) == "Context(left=6, right=3, chunk=4)"
        and eval(repr(context), {"Context": pts.Context}) == context
    )
    assert pickle.loads(pickle.dumps(context)) == context
    assert (context.hop, context.lookahead) == (4, 6)
    assert not pts.Context(None).bounded and pts.Context(None, max_length=9).bounded
    with pytest.raises(ValueError, match="unbounded_context"):
        pts.Context(None).pattern()


@pytest.mark.parametrize(
    "context", [pts.Context(3, 2), pts.Context(4, 3, 4), pts.Context(0, 0, 5), pts.Context(2, 9, 2)]
)
def test_queries_are_settled_when_all_that_they_see_is_there(context):
    for n in range(40):
        mask = context.mask(60)
        settled = next(i for i in itertools.count() if i == 60 or mask[i].nonzero().max() >= n)
        assert context.output_length(n, final=False) == settled == context.pattern().settled(n)
        assert context.output_length(n) == n


def test_patterns_that_fall_are_none():
    with pytest.raises(ValueError, match="invalid_pattern"):
        Pattern((0, -2), (0, 1))
    with pytest.raises(ValueError, match="invalid_pattern"):
        Pattern((0, 0), (3, 1))


def test_sampler_draws_and_resumes():
    sampler = pts.ContextSampler(chunk=(2, 6), left_chunks=(0, 3), full=0.3, right=(0, 1), seed=1)
    drawn = [sampler(50) for _ in range(200)]
    whole = [context for context in drawn if context.left is None]
    assert 30 < len(whole) < 90 and all(context.mask(50).all() for context in whole)
    others = [context for context in drawn if context.left is not None]
    assert {context.chunk for context in others} == {2, 3, 4, 5, 6}
    assert {context.left // context.chunk for context in others} == {0, 1, 2, 3}
    assert {context.right for context in others} == {0, 1}
    assert pts.ContextSampler((2, 6), (0, 3), 0.3, right=(0, 1), seed=1)(50) == drawn[0]
    state = sampler.state_dict()
    ahead = [sampler(50) for _ in range(9)]
    sampler.load_state_dict(state)
    assert [sampler(50) for _ in range(9)] == ahead
