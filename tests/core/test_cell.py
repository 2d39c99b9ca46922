"""`Cell`: any tensors, rows first, as a stream's memory."""

import copy
import io
from typing import List, Optional

import pytest
import torch
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.core.memory import Memory
from torchstreamer.testing import verify_stream


class Alternating(nn.Module):
    """Every sample times its position, and the largest so far added: two memories in one."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + torch.arange(x.size(-1), dtype=x.dtype) % 5) + x.cummax(-1).values


class AlternatingStream(pts.BaseStream):
    """By hand, in the rank of the chunks: a clock for each row, and a sample."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.cell = pts.Cell(["clock", "largest"])

    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        if not self.cell.started():
            clock = torch.zeros(x.shape[:-2], dtype=torch.int64)
            self.cell.set([clock, x[..., :1]])
        clock, largest = self.cell.get()
        position = clock[..., None, None] + torch.arange(x.size(-1))
        high = torch.maximum(x.cummax(-1)[0], largest)
        self.cell.set([clock + x.size(-1), high[..., -1:]])
        return x * (1 + position.to(x.dtype) % 5) + high

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        return n


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_handler_in_the_rank_of_its_chunks() -> None:
    report = verify_stream(
        lambda: AlternatingStream(Alternating()), normal(2, 3, 30), reference=Alternating(), single=True
    )
    assert report.cases("stack and unstack") > 0


def test_entries_have_names_and_rows_first() -> None:
    stream = AlternatingStream(Alternating())
    x = normal(3, 2, 12)
    stream(x[..., :7])
    state = stream.get_state()
    assert state["cell.clock"].tolist() == [7, 7, 7] and state["cell.largest"].shape == (3, 2, 1)
    assert stream.state_nbytes() == 3 * 8 + 3 * 2 * 8
    # Rows of different age in one batch: the clock is data.
    other = AlternatingStream(Alternating())
    other(x[:1, :, :4])
    both = AlternatingStream(Alternating())
    both.set_state(pts.stack_states([other.get_state(), pts.unstack_state(state)[2]]))
    y = both(torch.stack([x[0, :, 4:9], x[2, :, 7:]]), final=True)
    whole = Alternating()(x)
    torch.testing.assert_close(y, torch.stack([whole[0, :, 4:9], whole[2, :, 7:]]))


def test_an_unbatched_state_is_one_row() -> None:
    stream, x = AlternatingStream(Alternating()), normal(2, 9)
    stream(x[:, :4])
    state = stream.get_state()
    assert state["cell.clock"].shape == (1,) and state["cell.largest"].shape == (1, 2, 1)
    batched = AlternatingStream(Alternating())
    batched.set_state({**pts.stack_states([state]), "@entries": state["@entries"]})
    torch.testing.assert_close(batched(x[None, :, 4:])[0], stream(x[:, 4:]))


def test_tensors_are_copies_and_go_to_nobody() -> None:
    cell, base = pts.Cell(), torch.zeros(2, 3, 4)
    cell.set([base[:, :, 1], base[:1].expand(2, 3, 4)])
    base.fill_(7)
    assert all(bool((tensor == 0).all()) for tensor in cell.get())
    assert [tensor.untyped_storage().nbytes() for tensor in cell.tensors()] == [24, 96]
    twin = copy.deepcopy(cell)
    twin.set([tensor + 1 for tensor in twin.get()])
    assert float(cell.get()[0].max()) == 0


def test_gradients_pass_through_and_are_cut() -> None:
    cell, x = pts.Cell(), torch.ones(1, 2, requires_grad=True)
    cell.set([2 * x])
    cell.get()[0].sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[2, 2]]
    assert not copy.deepcopy(cell).get()[0].requires_grad
    cell._detach()
    assert not cell.get()[0].requires_grad


def test_what_inference_mode_made_can_be_trained_on() -> None:
    cell, weight = pts.Cell(), torch.ones(2, 2, requires_grad=True)
    with torch.inference_mode():
        cell.set([torch.ones(1, 2)])
    (cell.get()[0] @ weight).sum().backward()
    assert weight.grad is not None


BAD: List[List[Tensor]] = [
    [],
    [torch.zeros(2, 3)],
    [torch.zeros(2, 4), torch.zeros(2)],
    [torch.zeros(3, 3), torch.zeros(3)],
    [torch.zeros(2, 3), torch.zeros(2), torch.zeros(2)],
]


@pytest.mark.parametrize("script", [False, True])
@pytest.mark.parametrize("tensors", BAD)
def test_shapes_stay_through_a_signal(tensors: List[Tensor], script: bool) -> None:
    cell = pts.Cell()
    cell.set([torch.zeros(2, 3), torch.zeros(2)])
    if script:
        with pytest.raises(torch.jit.Error, match="invalid_memory"):
            Scripted.made().push(tensors)
    else:
        with pytest.raises(pts.StreamError, match=r"invalid_memory: .* came|invalid_memory: a Cell got"):
            cell.set(tensors)
    assert [list(tensor.shape) for tensor in cell.get()] == [[2, 3], [2]]


@pytest.mark.parametrize("tensors", [[torch.tensor(1.0)], [torch.zeros(2), torch.zeros(3)], [torch.zeros(2)] * 3])
def test_tensors_without_rows_of_their_own(tensors: List[Tensor]) -> None:
    with pytest.raises(pts.StreamError, match="invalid_memory"):
        pts.Cell(["one", "two"]).set(tensors)


class Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = pts.Cell()

    @torch.jit.export
    def push(self, tensors: List[Tensor]) -> None:
        self.cell.keep(tensors)

    @torch.jit.export
    def rows(self) -> List[Tensor]:
        return self.cell.rows()

    def forward(self) -> int:
        return self.cell._nbytes()

    @staticmethod
    def made() -> nn.Module:
        made = torch.jit.script(Scripted())
        made.push([torch.zeros(2, 3), torch.zeros(2)])
        return made


@pytest.mark.parametrize("script", [False, True])
def test_moves_in_the_middle_of_a_signal(script: bool) -> None:
    module = torch.jit.script(Scripted()) if script else Scripted()
    module.push([torch.tensor([3, 4]), torch.ones(2, 3)])
    module.double()
    assert [tensor.dtype for tensor in module.rows()] == [torch.int64, torch.float64]
    # What comes next may have another dtype, as under autocast: it is not brought back.
    module.push([torch.tensor([5, 6]), torch.ones(2, 3, dtype=torch.float16)])
    assert [tensor.dtype for tensor in module.rows()] == [torch.int64, torch.float16]
    assert module() == 16 + 12
    module.to("meta")
    assert all(tensor.is_meta for tensor in module.rows())


def test_scripts_are_saved_with_what_they_hold() -> None:
    file = io.BytesIO()
    torch.jit.save(Scripted.made(), file)
    file.seek(0)
    loaded = torch.jit.load(file)
    assert [list(tensor.shape) for tensor in loaded.rows()] == [[2, 3], [2]]
    assert torch.jit.script(Scripted())() == 0


def test_every_memory_says_what_it_is() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ring, self.counter, self.cell = pts.RingBuffer(2), pts.Counter(3), pts.Cell()

    odd = Odd()
    assert all(isinstance(module, Memory) for module in odd.children())
    odd.ring.append(normal(1, 2, 5))
    odd.counter.value = 1
    odd.cell.set([torch.ones(1, 4), torch.zeros(1)])
    twin = Odd()
    for memory, other in zip(odd.children(), twin.children(), strict=True):
        other.put(memory.phase(), iter(memory.tensors()))
        assert other.phase() == memory.phase()
        for mine, theirs in zip(memory.tensors(), other.tensors(), strict=True):
            assert torch.equal(mine, theirs)
    assert str(twin.cell) == "Cell()" and str(pts.Cell(["h", "c"])) == "Cell(h, c)"
