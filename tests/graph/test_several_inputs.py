"""Models of several inputs and outputs, as users write them: streamed as on the whole."""

from fractions import Fraction

import pytest
import torch
from feeding import T, real, tokens
from small_models import SIGNAL, case, check
from torch import nn


def of_two(m, x, y):
    h = m.conv(x) + y
    return {"sum": h, "parts": [x * y, (h, torch.cat([x, y], 1))]}


def of_two_unequal(m, x, y):
    return m.deep(x) + m.conv(y), y


def gated(m, x, speaker):
    return m.conv(x) * torch.sigmoid(m.project(speaker)).unsqueeze(-1)


def conditioned(m, x, slow):
    return m.conv(x) + m.upsample(m.slow(slow))


def repeated_condition(m, x, slow):
    return m.conv(x) * slow.repeat_interleave(4, dim=-1)


def optional_output(m, x):
    return m.conv(x), None


def nested(m, x):
    return {"b": (x + 1, [x * 2]), "a": m.conv(x)}


def in_place_on_pairs(m, x, y):
    z = m.conv(x)
    z += y
    return z[..., : z.shape[-1] // 2 * 2].reshape(z.shape[0], 4, -1, 2).mean(-1)


STREAMED = {
    "two inputs": case(of_two, SIGNAL, SIGNAL, conv=nn.Conv1d(4, 4, 5, padding=2)),
    "two inputs, unequal branches": case(
        of_two_unequal,
        SIGNAL,
        real(2, 3, T),
        conv=nn.Conv1d(3, 4, 1),
        deep=nn.Sequential(nn.Conv1d(4, 4, 5, padding=2), nn.Tanh(), nn.Conv1d(4, 4, 5, padding=2)),
    ),
    "two inputs and tokens": case(
        lambda m, x, y, ids: m.conv(x) + y * m.embedding(ids).mT,
        SIGNAL,
        SIGNAL,
        tokens(5, 2, T),
        conv=nn.Conv1d(4, 4, 3, padding=1),
        embedding=nn.Embedding(5, 4),
    ),
    "static input": case(gated, SIGNAL, real(2, 3), conv=nn.Conv1d(4, 4, 3, padding=1), project=nn.Linear(3, 4)),
    "static input first": case(
        lambda m, speaker, x: gated(m, x, speaker),
        real(2, 3),
        SIGNAL,
        conv=nn.Conv1d(4, 4, 3, padding=1),
        project=nn.Linear(3, 4),
    ),
    "input at a lower rate": case(
        conditioned,
        SIGNAL,
        real(2, 3, T, rate=Fraction(1, 4)),
        multiple=4,
        conv=nn.Conv1d(4, 4, 3, padding=1),
        slow=nn.Conv1d(3, 4, 3, padding=1),
        upsample=nn.ConvTranspose1d(4, 4, 4, stride=4),
    ),
    "input at a lower rate, repeated": case(
        repeated_condition, SIGNAL, real(2, 4, T, rate=Fraction(1, 4)), multiple=4, conv=nn.Conv1d(4, 4, 3, padding=1)
    ),
    "input at a higher rate": case(
        lambda m, x, fast: m.conv(x) + m.down(fast),
        SIGNAL,
        real(2, 3, T, rate=Fraction(4)),
        conv=nn.Conv1d(4, 4, 3, padding=1),
        down=nn.Conv1d(3, 4, 4, stride=4),
    ),
    "two inputs that never meet": case(lambda m, x, y: (m.conv(x), 2 * y), SIGNAL, SIGNAL, conv=nn.Conv1d(4, 4, 3)),
    "two inputs that never meet, of two rates": case(
        lambda m, x, slow: (m.conv(x), 2 * slow),
        SIGNAL,
        real(2, 3, T, rate=Fraction(1, 4)),
        multiple=4,
        conv=nn.Conv1d(4, 4, 3, padding=1),
    ),
    "output without a value": case(optional_output, conv=nn.Conv1d(4, 4, 3)),
    "conditions on lengths, in place": case(in_place_on_pairs, SIGNAL, SIGNAL, conv=nn.Conv1d(4, 4, 3, padding=1)),
    "nested outputs": case(nested, conv=nn.Conv1d(4, 4, 3)),
    "outputs of several rates": case(
        lambda m, x: (m.down(x), m.up(x), x),
        down=nn.Conv1d(4, 4, 4, stride=3),
        up=nn.ConvTranspose1d(4, 4, 4, stride=2),
    ),
}


@pytest.mark.parametrize("name", STREAMED)
def test_streamed_as_on_the_whole(name):
    check(STREAMED[name])
