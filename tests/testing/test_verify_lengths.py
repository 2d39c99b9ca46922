"""The verifier of streams whose signals have lengths of a multiple, that are captured, or that take whole numbers."""

from typing import Any, Callable, List, Optional, Tuple

import pytest
import torch
from broken_lengths import (
    EarlyBetweenMultiples,
    EndsAnywhere,
    EndsAnywhereWhenScripted,
    EndsAnywhereWithoutAChunk,
    FailsInTheStep,
    ForgetsTheSignal,
    HopTooShort,
    LengthOfAnyEnd,
    LengthOfAnyEndWhenScripted,
    LosesTheChunk,
    OtherCode,
    OtherError,
    RemembersTheRefusal,
    WaitsForTheMultiple,
)
from handlers_by_hand import (
    Pyramid,
    PyramidStream,
    StridedStream,
    Tokens,
    TokensStream,
    pyramid,
    renamed,
    strided,
    tokens,
)
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.testing import VerificationError, VerificationReport, making, total_length, verify_stream

PYRAMID = pyramid()


def check(kind: Callable[[Any], pts.BaseStream], **options: Any) -> VerificationReport:
    options = {"length_multiple": 2, "dtypes": [torch.float64], "reference": PYRAMID, **options}
    return verify_stream(lambda: kind(PYRAMID), (2, 2, 39), **options)


@pytest.mark.slow
def test_passes_a_stream_whose_signals_have_even_lengths() -> None:
    report = check(PyramidStream)
    assert report.skipped == ()
    assert report.cases("chunkings, float64") > 80
    for name in ("", ", scripted", ", saved and loaded"):
        assert report.cases("lengths that are no multiple" + name) > 100


class Fives(StridedStream):
    """Right, and takes whole signals of 5, 10, 15 … samples only."""

    checked_run = renamed(pts.BaseStream._run, "checked_run")

    def __init__(self, net: nn.Conv1d) -> None:
        super().__init__(net)
        self.hop = 10
        self.length_multiple = 5
        self.came = pts.Counter()

    def _run(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        self._ensure_sound()
        n = self.came.value + (x.size(-1) if isinstance(x, Tensor) and x.dim() > 1 else 0)
        if final and n % 5 != 0:
            raise pts.StreamInputError(f"length_multiple: {n} samples came, modulo 5; none were expected; go on first")
        return self.checked_run(x, final)

    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        self.came.value = (self.came.value + x.size(-1)) % 5
        return super().forward(x, final)

    def output_length(self, n: int, final: bool = True) -> int:
        if final and n % 5 != 0:
            raise pts.StreamInputError(f"length_multiple: {n} came; a multiple of 5 was expected; go on first")
        return super().output_length(n, False)


def test_passes_multiples_that_are_not_in_the_network() -> None:
    net = strided()

    def reference(x: Tensor) -> Tensor:
        assert x.shape[-1] % 5 == 0
        return net(x)

    verify_stream(lambda: Fives(net), (2, 2, 38), reference=reference, length_multiple=5, script=False, seed=1)


def test_other_streams_have_no_such_check() -> None:
    report = verify_stream(nn.AvgPool1d(2), (1, 2, 8), dtypes=[torch.float64], script=False)
    assert not any("multiple" in check.name for check in report)


@pytest.mark.parametrize("multiple", [1, 4])
def test_the_multiple_must_be_that_of_the_stream(multiple: int) -> None:
    with pytest.raises(ValueError, match="invalid_length_multiple: .* is 2"):
        verify_stream(lambda: PyramidStream(PYRAMID), (2, 2, 40), reference=PYRAMID, length_multiple=multiple)
    with pytest.raises(ValueError, match="invalid_length_multiple: length_multiple=0 came"):
        verify_stream(PYRAMID, (2, 2, 40), length_multiple=0)


# Handler, the rule that it breaks, words of the message.
BROKEN: List[Tuple[Callable[..., pts.BaseStream], str, str]] = [
    (EndsAnywhere, "safe", "was accepted; StreamInputError with the code length_multiple"),
    (EndsAnywhereWithoutAChunk, "safe", "flush() after 1 samples, where lengths are multiples of 2, was accepted"),
    (EndsAnywhereWhenScripted, "scriptable", "was accepted"),
    (LosesTheChunk, "safe", "was refused, but changed the state"),
    (ForgetsTheSignal, "safe", "was refused, but changed the state"),
    (FailsInTheStep, "safe", "was refused, and then get_state() raised failed_stream"),
    (RemembersTheRefusal, "safe", "after ends that were refused the stream goes on differently"),
    (OtherCode, "safe", "raised odd_length"),
    (OtherError, "safe", "raised IndexError: odd; StreamInputError"),
    (LengthOfAnyEnd, "prompt", "output_length(1, True), where lengths are multiples of 2, was accepted"),
    (LengthOfAnyEndWhenScripted, "scriptable", "prompt: output_length(1, True)"),
    (WaitsForTheMultiple, "prompt", "late: after 3 samples output_length(3, False) is 1"),
    (EarlyBetweenMultiples, "prompt", "late: after 1 samples 0 were out"),
    (HopTooShort, "prompt", "hop 1: the state does not repeat its shape: 'odd'"),
]


@pytest.mark.sample(every=3)
@pytest.mark.parametrize(("kind", "rule", "words"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_names_what_a_broken_handler_breaks(kind: Callable[..., pts.BaseStream], rule: str, words: str) -> None:
    with pytest.raises(VerificationError) as raised:
        check(kind, script=rule == "scriptable")
    assert raised.value.rule == rule, str(raised.value)
    assert words in str(raised.value)


@pytest.mark.slow
def test_what_waits_for_the_multiple_passes_as_a_container() -> None:
    check(WaitsForTheMultiple, graph=True, script=False)


def test_failures_come_with_the_smallest_chunking_of_an_even_length() -> None:
    class FromTheTenthOn(PyramidStream):
        """Wrong when a chunk of 10 samples or more follows another chunk."""

        def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
            wrong = self.ring.started() and x is not None and x.size(-1) >= 10
            y = super().step(x, final)
            return y + 1 if wrong and y is not None else y

    with pytest.raises(VerificationError) as raised:
        check(FromTheTenthOn, script=False)
    chunking = raised.value.chunking
    assert chunking is not None and len(chunking) == 2 and total_length(chunking) == 12, raised.value


# ---------------------------------------------------------------------- captured networks


class Captures:
    """Stands in for ``create_stream`` with an example, and counts."""

    def __init__(self, kind: Callable[[Any], pts.BaseStream]) -> None:
        self.kind = kind
        self.examples: List[Optional[Tensor]] = []
        self.multiples: List[int] = []

    def __call__(self, net: Any, example: Optional[Tensor] = None, length_multiple: int = 1) -> pts.BaseStream:
        self.examples.append(example)
        self.multiples.append(length_multiple)
        return self.kind(net)


@pytest.mark.slow
def test_captured_networks_are_captured_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    captures = Captures(PyramidStream)
    monkeypatch.setattr(making, "create_stream", captures)
    report = verify_stream(PYRAMID, (2, 2, 39), graph=True, length_multiple=2, domain=torch.abs)
    assert [check.name for check in report.skipped] == ["output_length is the largest"]
    assert report.cases("live weights") == 1 and report.cases("gradients") > 5
    assert [example.dtype for example in captures.examples if example is not None] == [
        torch.float64,
        torch.float64,
        torch.float32,
        torch.bfloat16,
    ]
    for example in captures.examples:
        assert example is not None and example.shape == (2, 2, 40) and (example >= 0).all()
    assert set(captures.multiples) == {2}


@pytest.mark.slow
def test_without_capture_only_the_multiple_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    captures = Captures(PyramidStream)
    monkeypatch.setattr(making, "create_stream", captures)
    verify_stream(PYRAMID, (2, 2, 8), length_multiple=2, dtypes=[torch.float64], script=False)
    assert set(captures.examples) == {None} and set(captures.multiples) == {2}


def test_copies_share_weights_and_nothing_else() -> None:
    net = pyramid()
    make = making.capturing(lambda: PyramidStream(net), net)
    one, two = make(), make()
    assert one is not two and one.ring is not two.ring
    assert one.conv.weight is two.conv.weight is net.conv.weight


class StaleCopies(PyramidStream):
    """Holds a copy of the network."""

    def __init__(self, net: Pyramid) -> None:
        super().__init__(net)
        self.conv = nn.Conv1d(2, 2, 3).double()
        self.conv.load_state_dict(net.conv.state_dict())


@pytest.mark.slow
def test_captured_streams_must_see_live_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "create_stream", Captures(StaleCopies))
    options = {"graph": True, "length_multiple": 2, "dtypes": [torch.float64], "script": False}
    with pytest.raises(VerificationError) as raised:
        verify_stream(PYRAMID, (2, 2, 40), gradients=False, **options)
    assert raised.value.rule == "live"
    with pytest.raises(VerificationError) as raised:
        verify_stream(PYRAMID, (2, 2, 40), **options)
    assert raised.value.rule == "trainable" and "weight 0" in str(raised.value)


# ---------------------------------------------------------------------- whole numbers


def in_range(x: Tensor) -> Tensor:
    return (3 * x.abs()).long().clamp(max=7)


@pytest.mark.slow
def test_passes_streams_of_whole_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "create_stream", Captures(TokensStream))
    net = tokens()
    report = verify_stream(net, torch.zeros(2, 1, 20, dtype=torch.int64), domain=in_range)
    assert report.cases("chunkings, int64") > 100 and report.cases("gradients") > 5
    assert [check.name for check in report.skipped] == ["cut gradients"]
    verify_stream(lambda: TokensStream(net), (2, 1, 20), reference=net, dtypes=[torch.int64], domain=in_range)


class WrongToken(TokensStream):
    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        y = super().step(x, final)
        return None if y is None else y * (1 + 1e-8)


class KeepsTheTokens(TokensStream):
    """Its ring holds a view of the caller's chunk."""

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        y = super().step(x, final)
        if x is not None and 0 < self.ring.held <= x.size(2):
            self.ring.data = x.transpose(1, 2).narrow(1, x.size(2) - self.ring.held, self.ring.held)
            self.ring.free = -1
        return y


class FrozenTokens(TokensStream):
    def __init__(self, net: Tokens) -> None:
        super().__init__(net)
        self.emb = nn.Embedding.from_pretrained(net.emb.weight.detach().clone())


@pytest.mark.parametrize(
    ("kind", "rule", "words"),
    [
        (WrongToken, "exact", "1e-10 is allowed"),
        (KeepsTheTokens, "isolated", "overwrites each chunk"),
        (FrozenTokens, "trainable", "the gradient of weight 0"),
    ],
)
def test_names_what_streams_of_whole_numbers_break(kind: Any, rule: str, words: str) -> None:
    net = tokens()
    with pytest.raises(VerificationError) as raised:
        verify_stream(lambda: kind(net), (2, 1, 20), reference=net, dtypes=[torch.int64], domain=in_range, script=False)
    assert raised.value.rule == rule, str(raised.value)
    assert words in str(raised.value)
