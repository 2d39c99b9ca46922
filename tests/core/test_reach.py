"""The geometry of layers, against counting."""

import math

import torch
from hypothesis import example, given
from hypothesis import strategies as st

import torchstreamer as pts
from torchstreamer.analysis import receptive_field
from torchstreamer.core.reach import ALWAYS, Reach

REACHES = st.builds(
    lambda p, q, first, width, end, shortest: Reach(p, q, first, first + width, end, shortest),
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(-12, 12),
    st.integers(0, 15),
    st.integers(-6, 6),
    st.integers(1, 9),
)


def oldest(reach: Reach, output: int) -> int:
    return math.floor((reach.q * output + reach.first) / reach.p)


def newest(reach: Reach, output: int) -> int:
    return math.floor((reach.q * output + reach.last) / reach.p)


def settled(reach: Reach, n: int) -> int:
    """Outputs of which all inputs, of n, have come; counted."""
    count = 0
    while n > 0 and newest(reach, count) < n:
        count += 1
    return count


@given(REACHES, st.integers(0, 60))
@example(Reach.window(1, 3), 0)
@example(Reach.window(2, 5, left=4), 1)
@example(Reach.frames(1, 4, 2, 1), 3)
def test_outputs_are_settled_when_their_newest_input_has_come(reach, n):
    assert reach.settled(n) == settled(reach, n)


@given(REACHES, st.integers(0, 60))
def test_the_end_acts_as_if_more_had_come(reach, n):
    # `end` p-ths of an input: counted on a signal p times as long, of which every output reads its last place.
    count = 0
    while n >= reach.shortest and reach.q * count + reach.last < n * reach.p + reach.end:
        count += 1
    assert reach.length(n) == count


@given(REACHES)
def test_lines_are_the_lengths(reach):
    early, late = reach.lines()
    for n in range(80):
        assert late(n) == reach.length(n)
        assert early(n) == min(reach.settled(n), reach.length(n))


@given(REACHES, st.integers(1, 3))
def test_rates(reach, turns):
    hop, (up, down) = reach.hop, reach.ratio
    assert math.gcd(up, down) == 1 and hop * up % down == 0
    far = 1000 * reach.q + turns * hop
    assert reach.settled(far + hop) - reach.settled(far) == hop * up // down
    for h in range(1, hop):  # no smaller one is a period
        assert any((reach.settled(n + h) - reach.settled(n)) * down != h * up for n in range(far, far + 50))


@given(REACHES, REACHES, st.integers(0, 40))
def test_one_after_the_other(inner, outer, n):
    found = outer.after(inner)
    if outer.p > 1 and inner.q > 1:
        assert found is None
    if found is None:
        return
    assert found.length(n) == outer.length(inner.length(n))
    for output in range(20):
        assert oldest(found, output) == oldest(inner, oldest(outer, output))
        assert newest(found, output) == newest(inner, newest(outer, output))


@given(REACHES, st.integers(0, 20), st.integers(1, 4))
def test_a_static_step_has_what_its_outputs_read_and_not_a_step_later(reach, lag, periods):
    m, count = reach.q * periods, reach.p * periods
    out = reach.lag(lag)
    held = reach.held(lag, out)
    for k in (0, 1, 5):
        outputs = range(k * count - out, (k + 1) * count - out)
        assert newest(reach, outputs[-1]) <= (k + 1) * m - lag - 1
        assert oldest(reach, outputs[0]) == k * m - lag - held
    # With one output of lag less, the last one would need what has not come; or the first of all would be missed.
    assert out == 0 or newest(reach, count - out) > m - lag - 1


@given(REACHES, st.integers(1, 12))
def test_taps_are_the_inputs_that_are_read(reach, m):
    found = [set() for _ in range(m)]
    for tap in reach.taps(m):
        for i, place in enumerate(tap.tolist()):
            found[i].add(place)
    for i in range(m):
        read = range(oldest(reach, i), newest(reach, i) + 1)
        assert {place for place in found[i] if place >= 0} == {place for place in read if place >= 0}


def test_spacing_leaves_out_what_lies_between_taps():
    taps = list(Reach.window(7, 2, left=1, spacing=3).taps(2))
    assert [tap.tolist() for tap in taps] == [[-1, 1], [2, 4], [5, 7]]


def test_padding_keeps_the_spacing():
    window = Reach.window(7, 2, spacing=3)
    assert window.padded(Reach.shift(2, 4, shortest=5)) == Reach.window(7, 2, 2, 4, 3, 5)


@given(REACHES)
def test_phases_are_relative_to_where_outputs_stand(reach):
    for i, (back, ahead) in enumerate(reach.phases()):
        place = i * reach.hop // reach.ratio[0]
        assert (place - back, place + ahead) == (oldest(reach, i), newest(reach, i))


def test_a_recurrence_looks_back_without_bound():
    reach = Reach.recurrence()
    assert not reach.bounded and reach.first == ALWAYS
    assert [reach.settled(n) for n in range(4)] == [0, 1, 2, 3]
    assert reach.phases() == [(math.inf, 0)]
    after = Reach.window(3).after(reach)
    assert after is not None and not after.bounded


def test_a_handler_that_states_its_reach_needs_no_more():
    class EveryOther(pts.BaseStream):
        def __init__(self):
            super().__init__(pts.Reach.window(3, 2))
            self.ring = pts.RingBuffer()

        def forward(self, x: torch.Tensor, final: bool = False):
            window = self.ring.append(x)
            count = max((window.size(-1) - 1) // 2, 0)
            self.ring.drop(2 * count)
            return window.unfold(-1, 3, 2).sum(-1) if count > 0 else None

    stream = EveryOther()
    assert (stream.hop, stream.ratio) == (2, (1, 2))
    assert [stream.output_length(n, final) for n in (2, 3, 4, 5) for final in (False, True)] == [0, 0, 1, 1, 1, 1, 2, 2]
    scripted = torch.jit.script(stream)
    assert scripted.output_length(7, True) == 3
    assert receptive_field(stream).phases == ((0, 2),)
    x = torch.randn(1, 2, 11)
    pieces = [piece for piece in (stream(x[..., :4]), stream(x[..., 4:]), stream.flush()) if piece is not None]
    torch.testing.assert_close(torch.cat(pieces, -1), x.unfold(-1, 3, 2).sum(-1))


@given(REACHES)
def test_depth_and_span_count_what_is_read(reach):
    counts = [newest(reach, i) - oldest(reach, i) + 1 for i in range(reach.p)]
    if min(counts) > 0:
        assert max(counts) <= reach.depth <= max(counts) + 1
    if reach.p == 1:
        assert reach.span(4) == newest(reach, 3) - oldest(reach, 0) + 1


@given(st.integers(1, 9), st.integers(1, 5))
def test_the_depth_of_frames_is_how_many_overlap(field, stride):
    reach = Reach.frames(field, stride)
    assert reach.depth == max(newest(reach, i) - oldest(reach, i) + 1 for i in range(4 * stride))
