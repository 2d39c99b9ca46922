"""Handlers of users: ranks, names, keywords, empty outputs."""

from typing import Optional

import torch
from torch import Tensor, nn

import torchstreamer as pts


def joined(*pieces):
    return torch.cat([piece for piece in pieces if piece is not None], -1)


class Wrapped(pts.BaseStream):
    """A handler that feeds its child in another rank, as the published example does."""

    def __init__(self, net):
        super().__init__()
        self.child = pts.create_stream(net)

    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        y = self.child(x.unsqueeze(0), final)
        return None if y is None else y.squeeze(0)


def test_a_child_in_another_rank_goes_on_from_a_state():
    """state is data."""
    net = nn.Conv1d(2, 2, 3)
    one, other = Wrapped(net), Wrapped(net)
    x = torch.randn(2, 20)
    first = one(x[:, :10])
    other.set_state(one.get_state())
    torch.testing.assert_close(joined(first, other(x[:, 10:])), net(x))


class Named(pts.BaseStream):
    def __init__(self):
        super().__init__()
        self.signal, self.entries, self.layout = pts.Counter(5), pts.Counter(5), pts.Counter(5)
        self.unbatched, self.data = pts.Counter(1), pts.RingBuffer()

    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        self.data.append(x)
        return x


def test_a_handler_may_call_its_parts_what_it_likes():
    stream = Named()
    stream(torch.ones(1, 3))
    state = stream.get_state()
    stream.set_state(state)
    assert stream(torch.ones(1, 3)).shape == (1, 3)


class Keyworded(pts.BaseStream):
    def forward(self, x: Tensor, final: bool = False, *, gain: float = 2.0) -> Optional[Tensor]:
        return gain * x


class Emptying(pts.BaseStream):
    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        return x[..., :0]


class Fussy(pts.BaseStream):
    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        assert x.shape[-1] > 0
        return x


class Mark(nn.Module):
    pass


class Sign(nn.Module):
    pass


def test_handlers_get_keywords_and_no_empty_chunks(monkeypatch):
    from torchstreamer.core import registry

    monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    assert torch.equal(Keyworded()(torch.ones(1, 2)), torch.full((1, 2), 2.0))
    pts.register_streamer(Mark, lambda net: Emptying())
    pts.register_streamer(Sign, lambda net: Fussy())
    assert pts.create_stream(nn.Sequential(Mark(), Sign()))(torch.ones(1, 2)) is None
