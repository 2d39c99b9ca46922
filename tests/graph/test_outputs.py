"""What models answer: outputs by name, dataclasses, what is selected of them, and values inside that are tapped."""

import dataclasses
import io
from collections import OrderedDict
from typing import Any, Dict, List, Optional, Sequence

import pytest
import torch
from feeding import normal
from outputs_by_name import Encoder, EncoderLayer, EncoderOutput
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.graph.answers import Answer
from torchstreamer.graph.fields import leaf_names, opened

SIZES = (1, 2, 3, 5, 8, 13, 0, 21)


def run(stream: Any, x: Tensor, axes: Sequence[int], sizes: Sequence[int] = SIZES) -> List[Optional[Tensor]]:
    """Every output, joined."""
    pieces: List[List[Tensor]] = [[] for _ in axes]
    chunks = x.split([*sizes, x.shape[1] - sum(sizes)], 1)
    for i, chunk in enumerate(chunks):
        for parts, y in zip(pieces, stream.leaves([chunk], i == len(chunks) - 1), strict=True):
            parts += [] if y is None else [y]
    return [torch.cat(parts, axis) if parts else None for parts, axis in zip(pieces, axes, strict=True)]


def created(model: nn.Module, **options: Any) -> Any:
    return pts.create_stream(model.double(), example=normal(2, 60), time_dim=1, **options)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder().double()


def test_outputs_by_name(encoder: Encoder) -> None:
    encoder.with_loss = False
    try:
        stream, x = created(encoder), normal(3, 71)
        wanted = encoder(x)
        first, rest = stream(x[:, :40]), stream(x[:, 40:], final=True)
    finally:
        encoder.with_loss = True
    assert isinstance(first, EncoderOutput) and list(first) == ["last_hidden_state", "hidden_states"]
    found = [first.last_hidden_state, *first.hidden_states], [rest.last_hidden_state, *rest.hidden_states]
    for y, z, expected in zip(*found, [wanted.last_hidden_state, *wanted.hidden_states], strict=True):
        torch.testing.assert_close(torch.cat([y, z], 1), expected, rtol=1e-10, atol=1e-12)
    script = torch.jit.script(stream)
    kept = io.BytesIO()
    torch.jit.save(script, kept)
    kept.seek(0)
    again = torch.jit.load(kept)(x, final=True)
    torch.testing.assert_close(again.hidden_states[1], wanted.hidden_states[1])


SELECTIONS: Dict[str, Any] = {
    "a name": ("last_hidden_state", lambda y: [y.last_hidden_state]),
    "a path": ("hidden_states.2", lambda y: [y.hidden_states[2]]),
    "a number": (0, lambda y: [y.last_hidden_state]),
    "several": (["last_hidden_state", "hidden_states.-3"], lambda y: [y.last_hidden_state, y.hidden_states[-3]]),
    "by new names": ({"a": "hidden_states.1"}, lambda y: [y.hidden_states[1]]),
    "a function": (lambda y: (y.last_hidden_state.relu(), None), lambda y: [y.last_hidden_state.relu(), None]),
}


@pytest.mark.parametrize("select, expected", SELECTIONS.values(), ids=SELECTIONS)
def test_chosen(encoder: Encoder, select: Any, expected: Any) -> None:
    x = normal(2, 20)
    for y, z in zip(Answer(encoder, select).leaves(x), expected(encoder(x)), strict=True):
        assert z is None or torch.equal(y, z)


def test_selected(encoder: Encoder) -> None:
    stream, x = created(encoder, select=("hidden_states.1", "last_hidden_state")), normal(2, 77, seed=1)
    wanted = [encoder(x).hidden_states[1], encoder(x).last_hidden_state]
    for y, z in zip(run(stream, x, [1] * len(wanted)), wanted, strict=True):
        torch.testing.assert_close(y, z, rtol=1e-10, atol=1e-12)


def test_taps(encoder: Encoder) -> None:
    stream, x = created(encoder, select="last_hidden_state", taps=["layers.0", "layers.1.conv"]), normal(2, 77)
    y, taps = stream(x, final=True)
    wanted = encoder(x)
    assert list(taps) == ["layers.0", "layers.1.conv"] and taps["layers.1.conv"].shape == (2, 6, 39)
    torch.testing.assert_close(taps["layers.0"], wanted.hidden_states[1], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(y, wanted.last_hidden_state, rtol=1e-10, atol=1e-12)
    joined = run(stream, x, [1, 1, 2])  # time stands in another axis of the third
    torch.testing.assert_close(joined[2], taps["layers.1.conv"], rtol=1e-10, atol=1e-12)
    assert stream.output_length(77) == (39, {"layers.0": 77, "layers.1.conv": 39})
    torch.testing.assert_close(torch.jit.script(stream)(x, final=True)[1]["layers.0"], taps["layers.0"])
    assert "forward" not in vars(encoder) and "forward" not in vars(encoder.layers[0])


@dataclasses.dataclass
class Parts:
    """No pytree knows it."""

    low: Tensor
    high: Any
    rate: Optional[Tensor] = None
    count: int = dataclasses.field(default=2, init=False)


@dataclasses.dataclass(frozen=True)
class Pair:
    left: Tensor
    right: Tensor


class Halves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 2, 4, padding=2)

    def forward(self, x: Tensor) -> Any:
        low = self.conv(x.unsqueeze(1))
        y = Parts(low, {"pair": Pair(x, low[:, 0])})
        y.count = None  # type: ignore[assignment]
        return y


def test_dataclasses() -> None:
    model = Halves()
    stream, x = created(model), normal(2, 60)
    y, wanted = stream(x, final=True), model(x)
    assert type(y) is Parts and type(y.high["pair"]) is Pair and y.rate is None and y.count is None
    torch.testing.assert_close(y.low, wanted.low)
    torch.testing.assert_close(y.high["pair"].right, wanted.high["pair"].right)
    script = torch.jit.script(stream)(x, final=True)
    torch.testing.assert_close(script.high["pair"].left, x)
    kept = io.BytesIO()
    torch.save(stream, kept)
    kept.seek(0)
    assert type(torch.load(kept, weights_only=False)(x)) is Parts


def test_names_of_leaves() -> None:
    answer = opened(OrderedDict(a=Pair(1, (2, None)), b=[3]))  # type: ignore[arg-type]
    _, structure = torch.utils._pytree.tree_flatten(answer)
    assert list(leaf_names(structure)) == ["a.left", "a.right.0", "a.right.1", "b.0"]


REFUSED = {
    "a loss": (
        {},
        "time_mixing: .*'mean'.*; or leave out the outputs that need it, with select=\\['last_hidden_state'",
    ),
    "a number": ({"select": lambda y: {"y": y.last_hidden_state, "rate": 3}}, "constant_output: .*'rate' is no tensor"),
    "a weight": (
        {"select": lambda y: {"y": y.last_hidden_state, "w": torch.ones(3)}},
        "constant_output: .*'w' does not depend on time; choose the other outputs with select=",
    ),
    "no name": ({"select": "logits"}, "invalid_select: .*EncoderOutput with last_hidden_state, loss, hidden_states"),
    "no number": ({"select": "hidden_states.9"}, "invalid_select: .*'hidden_states' is a tuple of 4"),
    "no selection": ({"select": 1.5}, "invalid_select: "),
    "nothing": ({"select": lambda y: ()}, "no_output: "),
    "no module": ({"taps": ["layers.7.conv"]}, "unknown_taps: .*it has layers.0.conv, layers.1.conv"),
    "no list": ({"taps": "layers.0"}, "unknown_taps: "),
    "one module twice": ({"taps": ["layers.0", "layers.0"]}, "unknown_taps: .*two are one module"),
    "not called": ({"taps": ["layers"]}, "unknown_taps: the module 'layers' is not called"),
}


@pytest.mark.parametrize("options, message", REFUSED.values(), ids=REFUSED)
def test_refused(encoder: Encoder, options: Dict[str, Any], message: str) -> None:
    with pytest.raises(pts.StreamError, match=f"^{message}"):
        created(encoder, **options)
    assert "forward" not in vars(encoder)


def test_called_twice() -> None:
    layer = EncoderLayer(1)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x.unsqueeze(-1)))

    with pytest.raises(pts.StreamInputError, match="^unknown_taps: .*called more than once"):
        created(Twice(), taps=["layer"])


def test_reported(encoder: Encoder) -> None:
    x = normal(2, 60)
    assert not pts.is_streamable(encoder, example=x, time_dim=1)
    assert pts.is_streamable(encoder, example=x, time_dim=1, select="last_hidden_state")
    with pytest.raises(ValueError, match="^no_example: "):
        pts.create_stream(encoder, select="last_hidden_state")
