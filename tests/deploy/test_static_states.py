"""The state of a static step: saved, moved, copied; and the step as a function of it."""

import copy
import io
from typing import Any, List, Tuple

import pytest
import torch
from static_calls import Gated, call, flags, normal, nothing, small_net, states_equal, static_of, whole
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer import deploy
from torchstreamer.deploy.export import FunctionalStep
from torchstreamer.testing.live_rows import LiveRows

# ---------------------------------------------------------------------- states


def test_rows_move_through_a_file(net: nn.Module) -> None:
    here, there = static_of(net, batch=3), static_of(net, batch=2)
    x = normal(2, 16)
    other = normal(2, 4, seed=1)
    pieces = [call(here, (other, True, False), (other, True, False), (x[:, :4], True, False))[2]]
    pieces.append(call(here, (other, False, False), (other, True, False), (x[:, 4:8], False, False))[2])
    file = io.BytesIO()
    torch.save(here.get_state([2, 0]), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert all(value.shape[0] == 2 for value in state.values())
    there.set_state(torch.tensor([1, 0]), state)
    assert states_equal(there.get_state([1]), here.get_state([2]))
    pieces.append(call(there, (nothing(there), False, False), (x[:, 8:12], False, False))[1])
    pieces.append(call(there, (other, True, False), (x[:, 12:], False, True))[1])
    for _ in range(there.flush_steps):
        pieces.append(call(there, (nothing(there), False, False), (nothing(there), False, False))[1])
    torch.testing.assert_close(torch.cat(pieces, -1), whole(net, x), rtol=0, atol=1e-12)


def test_states_are_copies(net: nn.Module) -> None:
    static = static_of(net)
    x = normal(2, 2, 8)
    call(static, *((row[:, :4], True, False) for row in x))
    state = static.get_state()
    kept = {name: value.clone() for name, value in state.items()}
    call(static, *((row[:, 4:], False, False) for row in x))
    assert states_equal(state, kept)
    static.set_state(None, state)
    for value in state.values():
        value.fill_(3)
    assert states_equal(static.get_state(), kept)
    assert not any("row" in name or "ring" in name for name in static.state_dict())


def test_reset_frees_rows(net: nn.Module) -> None:
    static = static_of(net)
    fresh = static.get_state()
    call(static, *((row, True, False) for row in normal(2, 2, 4)))
    before = static.get_state([1])
    static.reset([0])
    assert states_equal(static.get_state([0]), {name: value[:1] for name, value in fresh.items()})
    assert states_equal(static.get_state([1]), before)
    static.reset([])
    assert states_equal(static.get_state([1]), before)
    static.reset()
    assert states_equal(static.get_state(), fresh) and states_equal(static.init_state(), fresh)


@pytest.mark.parametrize("rows", [[2], [-1], [0, 7], [True, False], torch.tensor([False, True]), [0.0]])
def test_rows_that_do_not_exist(net: nn.Module, rows: Any) -> None:
    static = static_of(net)
    call(static, *((row, True, False) for row in normal(2, 2, 4)))
    before = static.get_state()
    for use in (static.reset, static.get_state, lambda rows: static.set_state(rows, static.get_state([0]))):
        with pytest.raises(pts.StreamInputError, match="invalid_rows"):
            use(rows)
    assert states_equal(static.get_state(), before)


def test_states_that_do_not_fit(net: nn.Module) -> None:
    static = static_of(net)
    call(static, *((row, True, False) for row in normal(2, 2, 4)))
    before = static.get_state()
    ring = next(name for name in before if name.startswith("ring"))
    good = static.get_state([0])
    for bad in (
        {name: value for name, value in good.items() if name != ring},
        {**good, "more": torch.zeros(1)},
        static.get_state(),  # of two rows
        {**good, ring: good[ring].float()},
        {**good, ring: good[ring][..., :-1]},
        static_of(nn.Conv1d(2, 3, 9).double()).get_state([0]),
    ):
        with pytest.raises(pts.StreamInputError, match="invalid_state"):
            static.set_state([1], bad)
    assert states_equal(static.get_state(), before)


def test_a_deep_copy_goes_on_by_itself(net: nn.Module) -> None:
    static = static_of(net, batch=1)
    x = normal(2, 8)
    begun = call(static, (x[:, :4], True, False))
    twin = copy.deepcopy(static)
    for one in (static, twin):
        pieces = begun + call(one, (x[:, 4:], False, True))
        for _ in range(one.flush_steps):
            pieces += call(one, (nothing(one), False, False))
        torch.testing.assert_close(torch.cat(pieces, -1), whole(net, x), rtol=0, atol=1e-12)


# ---------------------------------------------------------------------- the step as a function


def test_the_functional_step_leaves_its_state_alone(net: nn.Module) -> None:
    static = static_of(net)
    x = normal(2, 2, 12)
    lengths, off = torch.tensor([4, 4]), flags(0, 0)
    state = static.init_state()
    pieces: List[Tensor] = []
    for k in range(3 + static.flush_steps):
        kept = {name: value.clone() for name, value in state.items()}
        chunk = x[..., 4 * k : 4 * k + 4] if k < 3 else torch.full([2, 2, 4], float("nan"), dtype=torch.float64)
        first, last = (flags(1, 1) if k == 0 else off), (flags(1, 1) if k == 2 else off)
        following, y, start, stop = static.step(state, chunk, lengths, first, last)
        assert states_equal(state, kept) and list(following) == list(state)
        again, twice, _, _ = static.step(state, chunk, lengths, first, last)
        assert states_equal(again, following) and torch.equal(
            y[:, :, start[0] : stop[0]], twice[:, :, start[0] : stop[0]]
        )
        pieces.append(y[:, :, start[0] : stop[0]])
        state = following
    torch.testing.assert_close(torch.cat(pieces, -1), net(x).detach(), rtol=0, atol=1e-12)
    assert states_equal(static.get_state(), static.init_state())  # its own state is another


@pytest.mark.parametrize("make", [small_net, Gated])
def test_the_functional_step_exports(make: Any) -> None:
    net = make().double()
    static = static_of(net, 4, 2, validate=False)
    step = FunctionalStep(static)
    program = torch.export.export(step, step.example(), strict=False).module()
    x = normal(2, 2, 10)
    pieces: List[List[Tensor]] = [[], []]
    states = list(static.init_state().values())
    for k in range(3 + static.flush_steps):
        chunk = torch.zeros(2, 2, 4, dtype=torch.float64)
        piece = x[..., 4 * k : 4 * k + 4]
        chunk[..., : piece.shape[-1]] = piece
        given = chunk, torch.full([2], piece.shape[-1]), flags(k == 0, k == 0), flags(k == 2, k == 2)
        y, start, stop, *states = program(*given, *states)
        for b in range(2):
            pieces[b].append(y[b, :, start[b] : stop[b]])
    y = torch.stack([torch.cat(row, -1) for row in pieces])
    torch.testing.assert_close(y, net(x).detach(), rtol=0, atol=1e-12)


class Twice(nn.Module):
    """Two running sums in one."""

    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(-1) + (2 * x).cumsum(-1)


@pts.register_streamer(Twice)
class TwiceStream(pts.RecurrentStream):
    """The sums of `Twice`."""

    def __init__(self, net: Twice) -> None:
        super().__init__(2, 2, ["one", "two"])

    def initial(self, x: Tensor) -> List[Tensor]:
        return [torch.zeros_like(x[:, :, 0]), torch.zeros_like(x[:, :, 0])]

    def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        one, two = x.cumsum(2) + state[0].unsqueeze(2), (2 * x).cumsum(2) + state[1].unsqueeze(2)
        return one + two, [one[:, :, -1], two[:, :, -1]]


class TwoStates(deploy.Part):
    """A part with two states of one's own, of unlike rank and dtype: a sum, and how many samples have come."""

    def empty(self, xs: List[Tensor]) -> List[Tensor]:
        return [xs[0].new_zeros(xs[0].shape[:2]), torch.zeros(len(xs[0]), dtype=torch.int64)]

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Any) -> Tuple[Tensor, List[Tensor]]:
        total, count = (rows.restart(state, 0) for state in states)
        y = xs[0].cumsum(2) + total.unsqueeze(2)
        kept = [rows.keep(total, y[:, :, -1]), rows.keep(count, count + xs[0].size(2))]
        return y + 0 * count.view(-1, 1, 1), kept


class Once(nn.Module):
    """A running sum, with a rule of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(-1)


@pts.register_streamer(Once)
class OnceStream(TwiceStream):
    """The sum of `Once`."""

    def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        y = x.cumsum(2) + state[0].unsqueeze(2)
        return y, [y[:, :, -1], state[1]]


@deploy.static_rule(OnceStream)
def _two_states(plan: Any, stream: OnceStream, edge: Any) -> Any:
    return plan.add(TwoStates(), [edge], edge.lag)


@pytest.mark.parametrize("net", [Twice(), Once()])
def test_parts_with_several_states(net: nn.Module) -> None:
    stream = pts.create_stream(net)
    live = LiveRows(stream, net, 3, (4, 3)).run(80)
    live.compare(10)
    static = live.statics[0]
    state = static.get_state([2, 0])
    assert [name for name in state if name.startswith("ring")] == ["ring.0.0", "ring.0.1"]
    assert all(value.shape[0] == 2 for value in state.values())
    static.set_state([0, 2], state)
    with pytest.raises(pts.StreamInputError, match="^invalid_state: 'ring.0.1' "):
        static.set_state([0, 2], {**state, "ring.0.1": state["ring.0.1"].to(torch.float16)})
