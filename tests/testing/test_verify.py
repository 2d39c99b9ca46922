"""The verifier passes what is right, and names the rule that a broken handler breaks."""

from typing import Any, Callable, List, Optional, Tuple

import pytest
import torch
from broken_manners import (
    AcceptsAnything,
    Cumulative,
    GoesOnAfterErrors,
    KeepsTheChunk,
    OutputInTheState,
    OutputReused,
    RejectsLate,
    RingOnTheChunk,
    SharedRing,
    TouchesTheChunk,
    WritesToTheChunk,
)
from broken_outputs import (
    ContiguousOnly,
    EmptySignalCounts,
    EmptyTensor,
    FlushForgotten,
    GradientsOnly,
    HalfReset,
    HeldBack,
    HeldBackInSecret,
    LeftPaddingEachChunk,
    LongerThanSaid,
    NoneAtTheEnd,
    NotReset,
    OtherDtype,
    SinglePrecision,
    SmallBatches,
    TailLost,
    TooEarly,
    Unbatched,
    WrongHop,
    WrongHopUnsaid,
    WrongRatio,
    WrongSkip,
    WrongValues,
)
from broken_states import (
    AcceptsForeignStates,
    BytesUncounted,
    CannotBePickled,
    CannotBeScripted,
    CopyIsItself,
    DetachedState,
    Diary,
    GoesOnWhenScripted,
    InStateDict,
    LengthWhenScripted,
    LiveState,
    NeverDetached,
    NoGradients,
    OtherWhenScripted,
    RingNeverDropped,
    RowsLast,
    SpareRoom,
    StaleWeight,
    StateInAList,
    StateNotCopied,
    WritesInPlace,
)
from handlers_by_hand import PaddedStream, StridedStream, padded, strided
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.testing import VerificationError, VerificationReport, total_length, verify_stream

STRIDED = strided()
PADDED = padded()


def check(make: Callable[[], pts.BaseStream], reference: Any, **options: Any) -> VerificationReport:
    return verify_stream(make, (2, 2, 40), reference=reference, dtypes=[torch.float64], **options)


# ---------------------------------------------------------------------- what is right


class Quiet(StridedStream):
    def output_length(self, n: int, final: bool = True) -> int:
        return pts.BaseStream.output_length(self, n, final)


RIGHT = {
    "conv": nn.Conv1d(2, 3, 4, stride=3, padding=2, padding_mode="reflect"),
    "transposed": nn.ConvTranspose1d(2, 3, 4, stride=2, padding=1, output_padding=1),
    "pool": nn.AvgPool1d(4, 3, 2, ceil_mode=True, count_include_pad=False),
    "crop": nn.ZeroPad1d((-2, -3)),
    "activation": nn.ReLU(inplace=True),
    "container": nn.Sequential(
        nn.Conv1d(2, 2, 4, 4), pts.Residual1d(nn.Conv1d(2, 2, 3)), nn.ConvTranspose1d(2, 2, 8, 4)
    ),
}


@pytest.mark.sample("conv", rest=2)
@pytest.mark.parametrize("name", RIGHT)
def test_passes_built_in_streams(name: str) -> None:
    net = RIGHT[name].eval()
    before = [weight.clone() for weight in net.parameters()]
    state = torch.get_rng_state()
    report = verify_stream(net, (2, 2, 40))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(
        torch.equal(weight, old) and weight.grad is None for weight, old in zip(net.parameters(), before, strict=True)
    )
    for rule in (
        "exact",
        "prompt",
        "final",
        "isolated",
        "safe",
        "bounded",
        "state",
        "scriptable",
        "trainable",
        "static",
    ):
        assert any(check.rule == rule and check.cases > 0 for check in report), rule
    assert report.cases("chunkings, float64") > 100 and report.cases("chunkings, bfloat16") > 20
    assert report.cases("memory in the steady state, scripted") == 10_000


@pytest.mark.parametrize(("kind", "net"), [(StridedStream, STRIDED), (PaddedStream, PADDED)])
def test_passes_handlers_written_by_hand(kind: Callable[[nn.Module], pts.BaseStream], net: nn.Module) -> None:
    report = check(lambda: kind(net), net, static=True)
    assert report.skipped == ()
    assert "stack and unstack" in str(report)


def test_handlers_without_output_length_skip_promptness_only_when_told() -> None:
    with pytest.raises(pts.StreamError, match="no_output_length"):
        check(lambda: Quiet(STRIDED), STRIDED, script=False)
    report = check(lambda: Quiet(STRIDED), STRIDED, script=False, output_length=False)
    assert [check.name for check in report.skipped] == ["output_length", "static rows", "scripting"]


def test_containers_may_answer_later_than_single_handlers() -> None:
    late = nn.Sequential(nn.AvgPool1d(3, 1, 1), nn.ZeroPad1d((0, -1))).eval()
    verify_stream(late, (1, 2, 20), dtypes=[torch.float64], script=False)


def test_bad_arguments() -> None:
    with pytest.raises(TypeError, match="got a stream"):
        verify_stream(pts.create_stream(STRIDED), (1, 2, 9))
    with pytest.raises(TypeError, match="reference="):
        verify_stream(lambda: StridedStream(STRIDED), (1, 2, 9))
    with pytest.raises(ValueError, match=r"invalid_example: shape \(2, 9\)"):
        verify_stream(STRIDED, (2, 9))
    with pytest.raises(ValueError, match="gives nothing for"):
        verify_stream(STRIDED, (1, 2, 2))
    with pytest.raises(ValueError, match=r"domain=torch\.abs"):
        verify_stream(nn.LPPool1d(1.5, 3), (1, 2, 9))
    with pytest.raises(pts.UnsupportedModuleError):
        verify_stream(nn.GroupNorm(1, 2), (1, 2, 9))


# ---------------------------------------------------------------------- what is broken


# Handler, network, the rule that it breaks, words of the message, and whether it needs the script to be seen.
Row = Tuple[Callable[..., pts.BaseStream], Any, str, str]
BROKEN: List[Row] = [
    (WrongValues, STRIDED, "exact", "output sample 0 of 1 is wrong"),
    (SinglePrecision, STRIDED, "exact", "1e-10 is allowed"),
    (OtherDtype, STRIDED, "exact", "torch.float32"),
    (WrongSkip, STRIDED, "final", "0 samples came out of 3; the reference gives 1"),
    (Unbatched, STRIDED, "exact", "[C, T]"),
    (SmallBatches, STRIDED, "exact", "1 rows"),
    (ContiguousOnly, STRIDED, "exact", "transposed chunks"),
    (GradientsOnly, STRIDED, "exact", "gradients on"),
    (HeldBack, STRIDED, "prompt", "no continuation changes output 0"),
    (HeldBackInSecret, STRIDED, "prompt", "late"),
    (TooEarly, PADDED, "exact", "is wrong"),
    (LeftPaddingEachChunk, PADDED, "exact", "is wrong"),
    (TailLost, PADDED, "final", "the reference gives 1"),
    (NoneAtTheEnd, PADDED, "final", "the reference gives 1"),
    (FlushForgotten, PADDED, "final", "the reference gives 1"),
    (NotReset, PADDED, "final", "did not reset"),
    (HalfReset, STRIDED, "final", "did not reset"),
    (EmptyTensor, STRIDED, "none", "a tensor of length 0"),
    (LongerThanSaid, STRIDED, "prompt", "output_length(8, True) is 4"),
    (EmptySignalCounts, PADDED, "prompt", ""),
    (WrongHop, STRIDED, "prompt", "hop 3"),
    (WrongRatio, STRIDED, "prompt", "ratio 1/1"),
    (WrongHopUnsaid, STRIDED, "prompt", "does not repeat its shape: 'odd'"),
    (KeepsTheChunk, STRIDED, "isolated", "the stream keeps the caller's memory"),
    (RingOnTheChunk, STRIDED, "isolated", "overwrites each chunk"),
    (WritesToTheChunk, lambda x: STRIDED(2 * x), "isolated", "changed the caller's chunk"),
    (TouchesTheChunk, STRIDED, "isolated", "wrote to the caller's chunk"),
    (SharedRing, STRIDED, "isolated", "fed in turns"),
    (lambda net: OutputInTheState(), lambda x: x.cumsum(-1), "isolated", "shares memory with the state"),
    (lambda net: OutputReused(), lambda x: x.cumsum(-1), "isolated", "changed after it was given"),
    (AcceptsAnything, STRIDED, "safe", "StreamInputError was expected"),
    (GoesOnAfterErrors, STRIDED, "safe", "StreamStateError"),
    (RejectsLate, STRIDED, "safe", "was rejected, but changed the state"),
    (RingNeverDropped, STRIDED, "bounded", "the state grows"),
    (Diary, STRIDED, "bounded", "more and more outside of its memories"),
    (SpareRoom, STRIDED, "bounded", "are allocated"),
    (BytesUncounted, STRIDED, "bounded", "state_nbytes() is 0"),
    (StateInAList, STRIDED, "state", "goes on differently"),
    (LiveState, STRIDED, "state", "reached the stream"),
    (StateNotCopied, STRIDED, "state", "see each other"),
    (AcceptsForeignStates, STRIDED, "state", "an unknown entry was accepted"),
    (InStateDict, STRIDED, "state", "state_dict() changes with the signal: ring.data"),
    (RowsLast, STRIDED, "state", "its 2 rows must come first"),
    (CopyIsItself, STRIDED, "state", "deepcopy"),
    (CannotBePickled, STRIDED, "state", "pickling"),
    (NoGradients, STRIDED, "trainable", "no gradients"),
    (DetachedState, STRIDED, "trainable", "the gradient of the input differs"),
    (NeverDetached, STRIDED, "trainable", "detach_state() does not cut"),
    (WritesInPlace, STRIDED, "trainable", "the backward pass raised"),
    (StaleWeight, PADDED, "live", "does not see changed weights"),
    (OtherWhenScripted, STRIDED, "scriptable", "is wrong"),
    (CannotBeScripted, STRIDED, "scriptable", "torch.jit.script raised"),
    (GoesOnWhenScripted, STRIDED, "scriptable", "failed_stream"),
    (LengthWhenScripted, STRIDED, "scriptable", "output_length(9, True)"),
]


def name_of(row: Row) -> str:
    name = row[0].__name__
    return row[3] if name == "<lambda>" else name


@pytest.mark.sample(every=3)
@pytest.mark.parametrize("row", BROKEN, ids=name_of)
def test_names_what_a_broken_handler_breaks(row: Row) -> None:
    kind, reference, rule, words = row
    with pytest.raises(VerificationError) as raised:
        check(lambda: kind(reference), reference, script=rule == "scriptable") if isinstance(
            reference, nn.Module
        ) else check(lambda: kind(STRIDED), reference, script=False)
    assert raised.value.rule == rule, str(raised.value)
    assert words in str(raised.value)
    assert str(raised.value).startswith(rule + ": ")


def test_right_running_sum_passes() -> None:
    check(lambda: Cumulative(), lambda x: x.cumsum(-1), script=False)


def test_nan_tells_what_ordinary_values_do_not() -> None:
    # The last tap is 0, so giving a sample early is wrong for nan only.
    net = padded()
    with torch.no_grad():
        net.weight[..., -1] = 0
    with pytest.raises(VerificationError, match=r"^prompt: early: .*\(nan\)"):
        check(lambda: TooEarly(net), net, script=False)


def test_failures_come_with_the_smallest_chunking() -> None:
    class FromTheTenthOn(StridedStream):
        """Wrong when a chunk of 10 samples or more follows another chunk."""

        def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
            wrong = self.ring.started() and x.size(-1) >= 10
            y = super().forward(x, final)
            return y + 1 if wrong and y is not None else y

    with pytest.raises(VerificationError) as raised:
        check(lambda: FromTheTenthOn(STRIDED), STRIDED, script=False)
    chunking = raised.value.chunking
    assert chunking is not None and total_length(chunking) == 11 and sorted(chunking) == [1, 10], raised.value
    assert "smallest failing chunking of 11 samples: (1, 10)" in str(raised.value)


def test_same_seed_same_report() -> None:
    net = nn.AvgPool1d(3)
    one, two = (verify_stream(net, (1, 2, 12), dtypes=[torch.float64], script=False, seed=3) for _ in range(2))
    assert str(one) == str(two)


class WrongInHalf(nn.Module):
    """A convolution whose kernel for bfloat16 is wrong, as torch's is on some processors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y.flip(1) if x.dtype == torch.bfloat16 else y


class WrongInHalfStream(pts.BaseStream):
    """What a right kernel gives."""

    def __init__(self, net: WrongInHalf) -> None:
        super().__init__(pts.Reach.window(3))
        self.stream = pts.create_stream(net.conv)

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        return self.stream.step(x, final)

    def anchor(self) -> Optional[Tensor]:
        return self.stream.anchor()


def test_dtypes_in_which_torch_itself_is_wrong_are_skipped() -> None:
    pts.register_streamer(WrongInHalf, WrongInHalfStream)
    report = verify_stream(WrongInHalf(), (2, 2, 30), dtypes=[torch.float32, torch.bfloat16], script=False)
    assert [check.skipped for check in report.skipped if check.name == "chunkings, bfloat16"] != []
    assert report.cases("chunkings, bfloat16") == 0 and report.cases("chunkings, float32") > 0


class MaskOfALoop(nn.Module):
    """Attention [B, C, T] whose mask is no part of what is captured."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(2, 6)

    def forward(self, x: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        q, k, v = self.qkv(x.mT).chunk(3, -1)
        return nn.functional.scaled_dot_product_attention(q, k, v, mask).mT

    def whole(self, x: Tensor) -> Tensor:
        return self(x, pts.Context(2).mask(x.shape[-1]))


@pytest.mark.parametrize(
    "captured", [pytest.param(True, marks=pytest.mark.long), pytest.param(False, marks=pytest.mark.slow)]
)
def test_a_context(captured: bool) -> None:
    net = MaskOfALoop() if captured else nn.Sequential(nn.MultiheadAttention(2, 1, batch_first=True))
    report = verify_stream(
        net.eval(),
        (2, 2, 12),
        reference=net.whole if captured else None,
        graph=captured,
        context=pts.Context(2),
        dtypes=[torch.float64, torch.bfloat16],
        script=False,
    )
    assert report.cases("chunkings, bfloat16") > 0 and report.cases("live weights") > 0


def test_a_wrong_context() -> None:
    net = nn.MultiheadAttention(2, 1, batch_first=True).eval()
    right = pts.SelfAttention1d(net, pts.Context(2))
    with pytest.raises(VerificationError, match="exact: "):
        verify_stream(net, (2, 2, 12), context=pts.Context(3), reference=right, dtypes=[torch.float32])
    with pytest.raises(TypeError, match="context without a reference"):
        verify_stream(MaskOfALoop().eval(), (2, 2, 12), context=pts.Context(2), graph=True)
    with pytest.raises(TypeError, match="a factory and a context"):
        verify_stream(lambda: pts.create_stream(net), (2, 2, 12), context=pts.Context(2), reference=right)
