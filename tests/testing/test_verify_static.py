"""The verifier holds static rows against the stream, and finds what is wrong with a static rule."""

from typing import Any, List, Optional, Tuple

import broken_rules as broken
import pytest
import torch
from broken_rules import ruled
from handlers_by_hand import (
    PaddedPart,
    PaddedStream,
    PyramidStream,
    StridedStream,
    TokensStream,
    padded,
    pyramid,
    strided,
    tokens,
)
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.testing import VerificationError, VerificationReport, memory, verify_stream

STRIDED, PADDED = strided(), padded()
CHECKS = ["lengths of a static step", "static rows from the first step on", "static rows of any age"]


@pytest.fixture(autouse=True)
def without_the_checks_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longest, and other tests are theirs."""
    monkeypatch.setattr(memory, "check_bounded", lambda *args: None)


def check(kind: Any, net: nn.Module, **options: Any) -> VerificationReport:
    options = {"dtypes": [torch.float64], "script": False, "gradients": False, "static": True, **options}
    return verify_stream(lambda: kind(net), (2, 2, 40), reference=net, **options)


def static_checks(report: VerificationReport) -> List[str]:
    return [check.name for check in report if check.rule == "static"]


# ---------------------------------------------------------------------- what is right


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("kind", "net"),
    [
        (PaddedStream, PADDED),  # of all the broken ones below
        (StridedStream, STRIDED),
        (ruled(PaddedPart), PADDED),
        (ruled(broken.patient), PADDED),
    ],
)
def test_right_rules_pass(kind: Any, net: nn.Module, seed: int) -> None:
    report = check(kind, net, seed=seed)
    assert static_checks(report) == CHECKS
    assert report.cases("static rows of any age") > 20


def test_whole_numbers() -> None:
    net = tokens()
    options = {"script": False, "gradients": False, "static": True, "dtypes": [torch.int64]}
    report = verify_stream(
        lambda: TokensStream(net),
        (2, 1, 20),
        reference=net,
        domain=lambda x: (3 * x.abs()).long().clamp(max=7),
        **options,
    )
    assert static_checks(report) == CHECKS


def test_lengths_that_are_multiples() -> None:
    net = pyramid()
    assert static_checks(check(PyramidStream, net, length_multiple=2)) == CHECKS


# ---------------------------------------------------------------------- what has no static form


class Unruled(StridedStream):
    """Its own ``forward``, so that the rule of its base does not hold for it."""

    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        return super().forward(x, final)


def test_without_a_rule_it_is_skipped_with_the_reason() -> None:
    report = check(Unruled, STRIDED, static=None)
    (skipped,) = [check for check in report.skipped if check.rule == "static"]
    assert skipped.name == "static rows" and "no_static_rule: Unruled" in skipped.skipped


def test_without_a_rule_it_fails_where_it_is_wanted() -> None:
    with pytest.raises(VerificationError, match="^static: there is no static form: no_static_rule: Unruled"):
        check(Unruled, STRIDED)


def test_it_may_be_left_out() -> None:
    report = check(ruled(broken.raises), PADDED, static=False)
    assert [check.skipped for check in report if check.rule == "static"] == ["static=False"]


def test_without_output_length_there_is_no_static_form() -> None:
    class Quiet(PaddedStream):
        def output_length(self, n: int, final: bool = True) -> int:
            return pts.BaseStream.output_length(self, n, final)

    report = check(Quiet, PADDED, static=None, output_length=False)
    assert "output_length=False" in [check.skipped for check in report if check.rule == "static"]
    with pytest.raises(VerificationError, match="no static form: output_length=False"):
        check(Quiet, PADDED, output_length=False)


# ---------------------------------------------------------------------- what is broken

BEHIND = "behind a value that comes 2 samples late"

# A part of the right rule, or a rule; and words of the message.
BROKEN: List[Tuple[Any, str]] = [
    (broken.StartForgotten, "output sample 0 of 1 is wrong, of 1 samples in steps of 1 in the row of one that went on"),
    (broken.StartForgottenWhileItRests, "in the row of one that went on, after 0 to 2 rests"),
    (broken.MaskForgotten, BEHIND),
    (broken.MaskMultiplied, BEHIND),
    (broken.RestsForgotten, "rested"),
    (broken.RowsMixed, "of 1 samples in steps of 1 in a new row"),
    (broken.WindowOneLate, "output sample 0 of 1 is wrong, of 1 samples"),
    (broken.NearlyRight, "1e-10 is allowed"),
    (broken.OtherDtype, "torch.float32 came out"),
    (broken.StateWrittenTo, "writes to the state"),
    (broken.StateOfItsOwn, "is wrong"),
    (broken.WeightShared, "shares the memory of a weight or state"),
    (broken.RaisesLate, "raised ZeroDivisionError: no"),
    (broken.lag_too_small, "is wrong"),
    (broken.lag_too_large, "is wrong"),
    (broken.lag_of_its_own, BEHIND),
    (broken.mask_of_the_first_layer, BEHIND),
    (broken.one_too_short, "output_length(1) of the StaticStream is 0, that of the stream 1"),
    (broken.long_signals_longer, "of the StaticStream is"),
    (broken.resets_the_stream, "changed the state of the stream"),
    (broken.raises, "raised TypeError: no"),
    (broken.raises_behind, "raised AssertionError: only in front"),
    (broken.every_sample, "ratio 1/2"),
    (broken.field_of_two, "raised RuntimeError: "),
]


@pytest.mark.sample(every=3)
@pytest.mark.parametrize(("rule", "words"), BROKEN, ids=[rule.__name__ for rule, _ in BROKEN])
def test_finds_a_broken_rule(rule: Any, words: str) -> None:
    kind = ruled(rule)
    net = STRIDED if issubclass(kind, StridedStream) else PADDED
    with pytest.raises(VerificationError) as raised:
        check(kind, net, static=None)
    assert raised.value.rule == "static", str(raised.value)
    assert words in str(raised.value)
