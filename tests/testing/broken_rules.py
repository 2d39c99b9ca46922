"""Broken rules for the static step, which differ from the right ones in one place each."""

import copy
from typing import Any, Callable, Dict, List, Type

import torch
import torch.nn.functional as F
from handlers_by_hand import PaddedPart, PaddedStream, State, StridedStream, padded_rule
from torch import Tensor

from torchstreamer import deploy

# ---------------------------------------------------------------------- parts


class StartForgotten(PaddedPart):
    def begun(self, state: Tensor, rows: deploy.Rows) -> Tensor:
        return state


class MaskForgotten(PaddedPart):
    def masked(self, x: Tensor, rows: deploy.Rows) -> Tensor:
        return x


class MaskMultiplied(PaddedPart):
    """What is outside of the signal may be anything, and ``nan`` times 0 is ``nan``."""

    def masked(self, x: Tensor, rows: deploy.Rows) -> Tensor:
        return x * rows.inside(x.size(2), self.lag, self.key).unsqueeze(1)


class RestsForgotten(PaddedPart):
    def kept(self, given: Tensor, begun: Tensor, new: Tensor, rows: deploy.Rows) -> Tensor:
        return new


class StartForgottenWhileItRests(PaddedPart):
    def kept(self, given: Tensor, begun: Tensor, new: Tensor, rows: deploy.Rows) -> Tensor:
        return rows.keep(given, new)


class RowsMixed(PaddedPart):
    def convolved(self, window: Tensor) -> Tensor:
        return super().convolved(window.roll(1, 0))


class WindowOneLate(PaddedPart):
    def convolved(self, window: Tensor) -> Tensor:
        return super().convolved(F.pad(window[:, :, :-1], [1, 0]))


class NearlyRight(PaddedPart):
    def convolved(self, window: Tensor) -> Tensor:
        return super().convolved(window) + 1e-7


class OtherDtype(PaddedPart):
    def convolved(self, window: Tensor) -> Tensor:
        return super().convolved(window).float()


class StateWrittenTo(PaddedPart):
    def kept(self, given: Tensor, begun: Tensor, new: Tensor, rows: deploy.Rows) -> Tensor:
        return given.copy_(super().kept(given, begun, new, rows))


class StateOfItsOwn(PaddedPart):
    """Its state is no part of a row's, so that it does not move with it."""

    def __init__(self, stream: PaddedStream, lag: int, key: int) -> None:
        super().__init__(stream, lag, key)
        self.state = torch.empty(0)

    def empty(self, xs: List[Tensor]) -> List[Tensor]:
        return []

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: deploy.Rows) -> State:
        state = self.state if len(self.state) == len(xs[0]) else xs[0].new_zeros([len(xs[0]), 2, 2])
        y, (self.state,) = super().forward(xs, [state], rows)
        return y, []


class WeightShared(PaddedPart):
    def __deepcopy__(self, memo: Any) -> "WeightShared":
        made = copy.copy(self)
        made._parameters = dict(self._parameters)
        return made


class RaisesLate(PaddedPart):
    """The plan is made, and then it fails."""

    calls = 0

    def convolved(self, window: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 3:
            raise ZeroDivisionError("no")
        return super().convolved(window)


# ---------------------------------------------------------------------- rules


def lag_too_small(plan: deploy.Planner, stream: Any, edge: deploy.Edge) -> deploy.Edge:
    made = padded_rule(plan, stream, edge)
    return made.shifted(1, made.length)


def lag_too_large(plan: deploy.Planner, stream: Any, edge: deploy.Edge) -> deploy.Edge:
    made = padded_rule(plan, stream, edge)
    return made.shifted(-1, made.length)


def lag_of_its_own(plan: deploy.Planner, stream: Any, edge: deploy.Edge) -> deploy.Edge:
    part = PaddedPart(stream, edge.lag, plan.key(edge))
    return plan.add(part, [edge], 1, plan.through(edge, stream))


def mask_of_the_first_layer(plan: deploy.Planner, stream: Any, edge: deploy.Edge) -> deploy.Edge:
    part = PaddedPart(stream, 0, plan.key(edge))
    return plan.add(part, [edge], edge.lag + 1, plan.through(edge, stream))


def one_too_short(plan: deploy.Planner, stream: Any, edge: deploy.Edge) -> deploy.Edge:
    made = padded_rule(plan, stream, edge)
    return made.shifted(0, lambda n: max(n - 1, 0))


def long_signals_longer(plan: deploy.Planner, stream: Any, edge: deploy.Edge) -> deploy.Edge:
    made = padded_rule(plan, stream, edge)
    return made.shifted(0, lambda n: n + (n >= 50))


def resets_the_stream(plan: deploy.Planner, stream: Any, edge: deploy.Edge) -> deploy.Edge:
    stream.reset()
    return padded_rule(plan, stream, edge)


def raises(plan: deploy.Planner, stream: Any, edge: deploy.Edge) -> deploy.Edge:
    raise TypeError("no")


def raises_behind(plan: deploy.Planner, stream: Any, edge: deploy.Edge) -> deploy.Edge:
    assert edge.lag == 0, "only in front"
    return padded_rule(plan, stream, edge)


def every_sample(plan: deploy.Planner, stream: Any, edge: deploy.Edge) -> deploy.Edge:
    body = copy.deepcopy(stream.net)
    body.stride = (1,)
    return deploy.add_window(plan, edge, body, 3, 1, plan.through(edge, stream))


def field_of_two(plan: deploy.Planner, stream: Any, edge: deploy.Edge) -> deploy.Edge:
    return deploy.add_window(plan, edge, copy.deepcopy(stream.net), 2, 2, plan.through(edge, stream))


# ---------------------------------------------------------------------- right, though not as the base


def patient(plan: deploy.Planner, stream: Any, edge: deploy.Edge) -> deploy.Edge:
    """Later than it must be, and honest about it."""
    return plan.delayed(padded_rule(plan, stream, edge), 2)


_KINDS: Dict[Any, Type[Any]] = {}


def ruled(rule: Any) -> Callable[[Any], Any]:
    """A handler whose static rule, or whose part in the right rule, is this one."""
    if rule not in _KINDS:
        base = StridedStream if rule in (every_sample, field_of_two) else PaddedStream
        kind = _KINDS[rule] = type(f"Of_{rule.__name__}", (base,), {})

        def with_part(plan: deploy.Planner, stream: Any, edge: deploy.Edge) -> deploy.Edge:
            return padded_rule(plan, stream, edge, rule)

        deploy.static_rule(kind)(with_part if isinstance(rule, type) else rule)
    return _KINDS[rule]
