"""How StreamTensors are made, what they refuse, and that they go where tensors go."""

import copy
import io
import pickle
from collections import namedtuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import torchstreamer as pts
from torchstreamer.ragged.pointwise import POINTWISE


def pair(**named):
    torch.manual_seed(0)
    named = {"ids": ["a", "b"], "first": [True, False], "last": [False, True], **named}
    return pts.stream_tensor([torch.randn(3, 5), torch.randn(3, 2)], **named)


def same(x, y):
    assert type(x) is type(y) is pts.StreamTensor
    assert (x.ids, x.first, x.last, x.lengths, x.start) == (y.ids, y.first, y.last, y.lengths, y.start)
    assert (x.batch_axis, x.time_axis) == (y.batch_axis, y.time_axis)
    torch.testing.assert_close(x.tensor(), y.tensor())


# --------------------------------------------------------------------------- made


def test_rows_are_padded_with_zeros():
    a, b = torch.randn(3, 5), torch.randn(3, 2)
    x = pts.stream_tensor([a, b], ids=["a", "b"], first=[True, False], last=True)
    assert x.shape == (2, 3, 5) and (x.batch_axis, x.time_axis) == (0, 2)
    assert (x.lengths, x.start, x.first, x.last) == ((5, 2), (0, None), (True, False), (True, True))
    assert torch.equal(x.tensor()[0], a) and torch.equal(x.tensor()[1, :, :2], b) and not x.tensor()[1, :, 2:].any()
    assert [row.ids for row in x.unbatch()] == [("a",), ("b",)]
    assert torch.equal(x.unbatch()[1].tensor(), b)
    assert (x.batch_dim, x.stream_dim, x.sos, x.eos) == (x.batch_axis, x.time_axis, x.first, x.last)
    with pytest.raises(AttributeError):
        x.sos = x.eos
    assert pts.as_stream_tensor(x) is x is pts.stream_tensor(x)


@pytest.mark.parametrize(
    ("rows", "named", "shape", "axes"),
    [
        ([torch.zeros(4), torch.zeros(2)], {}, (2, 4), (0, 1)),
        ([torch.zeros(4, 3), torch.zeros(2, 3)], {"time_dim": 1}, (2, 4, 3), (0, 1)),
        ([torch.zeros(4, 3), torch.zeros(2, 3)], {"time_dim": 0, "batch_dim": 1}, (4, 2, 3), (1, 0)),
        ([torch.zeros(2, 3, 4), torch.zeros(2, 3, 0)], {}, (2, 2, 3, 4), (0, 3)),
        (torch.zeros(2, 3, 4), {"lengths": [4, 0]}, (2, 3, 4), (0, 2)),
        (torch.zeros(4, 2), {"batch_dim": 1, "time_dim": 0}, (4, 2), (1, 0)),
    ],
)
def test_rows_of_any_shape(rows, named, shape, axes):
    x = pts.stream_tensor(rows, ids=torch.tensor([7, 9]), **named)
    assert x.shape == shape and (x.batch_axis, x.time_axis) == axes and x.ids == (7, 9)


@pytest.mark.parametrize(
    ("code", "rows", "named"),
    [
        ("invalid_pieces", [torch.zeros(1, 2)], {}),
        ("invalid_pieces", [], {"ids": []}),
        ("invalid_pieces", [1.0], {"ids": ["a"]}),
        ("invalid_pieces", [torch.zeros(1, 2)], {"ids": ["a", "b"]}),
        ("invalid_pieces", [torch.zeros(1, 2), torch.zeros(2, 2)], {"ids": ["a", "b"]}),
        ("invalid_pieces", [torch.zeros(1, 2), torch.zeros(1, 2).double()], {"ids": ["a", "b"]}),
        ("invalid_pieces", [torch.zeros(1, 2)], {"ids": ["a"], "first": [True, False]}),
        ("invalid_pieces", [torch.zeros(1, 2)], {"ids": ["a"], "start": [0, 1]}),
        ("invalid_pieces", [torch.zeros(1, 2)], {"ids": ["a"], "time_dim": 0}),
        ("invalid_pieces", torch.zeros(1, 1, 2), {"ids": ["a"], "lengths": [3]}),
        ("doubled_ids", [torch.zeros(1, 2)] * 2, {"ids": ["a", "a"]}),
    ],
)
def test_bad_rows_are_refused(code, rows, named):
    with pytest.raises(pts.StreamInputError) as caught:
        pts.stream_tensor(rows, **named)
    assert caught.value.code == code


def test_it_is_not_called_itself():
    with pytest.raises(pts.StreamInputError, match="pts.stream_tensor"):
        pts.StreamTensor(torch.zeros(1))


def test_a_batch_of_a_loader_knows_its_rows():
    streams = [torch.arange(5.0)[None], torch.arange(8.0)[None], torch.arange(1.0)[None]]
    chunked = [list(stream.split(3, -1)) for stream in streams]
    loader = pts.StreamDataLoader(pts.StreamDataset(chunked, iter, batch_size=2))
    collected = pts.StreamCollector()
    for batch in loader:
        x = batch.stream_tensor()
        assert type(x) is pts.StreamTensor and len(x.ids) == int(batch.valid.sum()) and -1 not in x.ids
        collected.update(x)
    assert all(torch.equal(collected.pop(number), stream) for number, stream in enumerate(streams))


def test_a_batch_of_several_parts():
    Pair = namedtuple("Pair", "sound label")
    chunks = [[Pair(torch.zeros(1, 3), "x"), Pair(torch.zeros(1, 2), "y")]] * 2
    dataset = pts.StreamDataset(chunks, iter, batch_size=2, time_dim=(-1, None))
    x = next(iter(pts.StreamDataLoader(dataset))).stream_tensor()
    assert type(x.sound) is pts.StreamTensor and x.label == ["x", "x"] and x.sound.first == (True, True)


def test_empty_rows_are_dropped():
    x = pair()[..., 2:]
    kept = x.drop_empty()
    assert (x.lengths, kept.lengths, kept.ids, kept.shape[0]) == ((3, 0), (3,), ("a",), 1)
    with pytest.raises(pts.StreamInputError, match="invalid_pieces"):
        x[0].drop_empty()


def test_it_shows_its_rows():
    text = repr(pair(start=[None, 7]))
    assert text.startswith(
        "StreamTensor(shape=[2, 3, 5], axes=(0, 2), rows: 'a' 5 samples first; 'b' 7:9 last\ntensor("
    )


# --------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("code", "operation"),
    [
        ("rows_differ", lambda x: x + x[[1, 0]]),
        ("rows_differ", lambda x: x[..., 1:] + x[..., :-1]),
        ("rows_differ", lambda x: torch.add(input=x, other=x.with_data(x.tensor())[..., :4])),
        ("rows_differ", lambda x: x + x.transpose(0, 1)),
        ("rows_differ", lambda x: x + x.select(1, 0)),
        ("rows_differ", lambda x: torch.cat([x, x[[1, 0]]], 1)),
        ("rows_differ", lambda x: torch.stack([x, x[[1, 0]]])),
        ("rows_differ", lambda x: torch.cat([x, x], -1)),
        ("rows_differ", lambda x: torch.cat([x[..., 1:], x[..., :1]], -1)),
        ("rows_differ", lambda x: x.__setitem__(slice(0, 1), x[1:])),
        ("rows_broadcast", lambda x: x[:1] + torch.zeros(4, 1, 1)),
        ("rows_broadcast", lambda x: x[..., :1] * torch.zeros(9)),
        ("rows_broadcast", lambda x: torch.where(torch.ones(4, 1, 1) > 0, x[:1], 0.0)),
        ("rows_lost", lambda x: x.transpose_(1, 2).squeeze_(1).resize_(3)),
        ("rows_lost", lambda x: x.scatter_(2, torch.zeros(2, 3, 1, dtype=torch.long), 1.0)),
        ("rows_lost", lambda x: torch.sum(x, 2, out=x)),
        ("rows_lost", lambda x: torch.flip(x, [2]).data is None or torch.cumsum(x, 0, out=x)),
        ("rows_lost", lambda x: setattr(x, "data", torch.zeros(1))),
        ("invalid_pieces", lambda x: x.with_data(torch.zeros(2, 3, 4))),
        ("doubled_ids", lambda x: pts.collate([x, x])),
        ("invalid_pieces", lambda x: pts.collate([x, x[0]])),
    ],
)
def test_what_would_be_wrong_is_refused(code, operation):
    x = pair()
    before = copy.deepcopy(x)
    with pytest.raises(pts.StreamInputError) as caught:
        operation(x)
    assert caught.value.code == code
    if "rows_lost" != code:
        same(x, before)


def test_wrong_calls_raise_what_torch_raises():
    x = pair()
    for call in (lambda x: x.permute(0, 1), lambda x: x.sum(7), lambda x: x.narrow(2, 4, 4), lambda x: x.split(2, 5),
                 lambda x: x.view(7), lambda x: x[9], lambda x: torch.gather(x), lambda x: x.flip("a")):  # fmt: skip
        with pytest.raises((RuntimeError, IndexError, TypeError)) as plainly:
            call(x.tensor())
        with pytest.raises(plainly.type):
            call(x)


# --------------------------------------------------------------------------- in place, and written to


def test_what_is_done_in_place_keeps_its_rows():
    x = pair()
    y = x.clone()
    assert y.add_(1) is y and y.mul_(x + 1) is y
    y += 1
    y[0] = 0.0
    y[1:] = x[1:]
    assert y.transpose_(1, 2) is y and (y.batch_axis, y.time_axis) == (0, 1)
    assert (y.ids, y.lengths) == (x.ids, x.lengths)
    plain = torch.zeros(2, 3, 5)
    assert plain.add_(x) is plain and type(plain) is Tensor
    assert torch.add(x, 1, out=plain) is plain and torch.equal(plain, x.tensor() + 1)
    other = torch.zeros_like(x[[1, 0]])
    assert torch.add(x, 1, out=other) is other and other.ids == x.ids


def test_row_data_are_shared_and_never_changed():
    x = pair()
    y = torch.relu(x) + 1
    assert y._layout is x._layout
    with pytest.raises(AttributeError):
        x.ids = ()
    with pytest.raises(AttributeError):
        x._layout.rows.other = 1
    with pytest.raises(AttributeError):
        x._layout.rows.lengths = ()


def test_gradients_are_those_of_the_plain_tensor():
    plain = torch.randn(2, 3, 5, requires_grad=True)
    x = pts.stream_tensor(plain, ids=["a", "b"], lengths=[5, 2])
    (x[..., 1:].tanh() * 2).mean().backward()
    expected = plain.detach().clone().requires_grad_()
    valid = torch.arange(1, 5) < torch.tensor([5, 2])[:, None]
    (expected[..., 1:].tanh() * 2).movedim(1, -1)[valid].mean().backward()
    torch.testing.assert_close(plain.grad, expected.grad)
    leaf = pair().requires_grad_()
    leaf.sum().backward()
    assert type(leaf.grad) is Tensor and leaf.grad[1, 0].tolist() == [1, 1, 0, 0, 0]


# --------------------------------------------------------------------------- through torch


def _saved(x):
    file = io.BytesIO()
    torch.save({"x": x}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)["x"]


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)), _saved],
    ids=["copy", "deep", "pickle", "save"],
)
def test_copies_keep_everything(copied):
    for x in (pair(), pair()[..., 1:3], pair().permute(2, 0, 1), pair()[1], pair().requires_grad_(), pair().half()):
        y = copied(x)
        same(y, x)
        assert y.requires_grad == x.requires_grad and y.is_leaf
        assert (y.tensor().data_ptr() == x.tensor().data_ptr()) == (copied is copy.copy)


class Pieces(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        piece = pts.stream_tensor([torch.full((1, index + 1), float(index))], ids=[index], first=True)
        return {"x": piece, "number": index}


def test_loaders_with_workers():
    single = list(DataLoader(Pieces(), batch_size=None, num_workers=1))
    assert [each["x"].lengths for each in single] == [(1,), (2,), (3,), (4,)]
    first, second = DataLoader(Pieces(), batch_size=2, collate_fn=pts.collate)
    assert first["x"].ids == (0, 1) and second["x"].lengths == (3, 4) and second["number"].tolist() == [2, 3]
    assert torch.equal(second["x"].tensor()[0, 0], torch.tensor([2.0, 2, 2, 0]))
    rows = pts.collate([piece for each in single for piece in each["x"].unbatch()])
    assert rows.ids == (0, 1, 2, 3) and rows.shape == (4, 1, 4)


def test_modules_keep_rows_where_they_can():
    x = pair()
    assert nn.GELU()(x).ids == nn.Dropout().eval()(x).ids == nn.BatchNorm1d(3).eval()(x).ids == x.ids
    y = nn.LayerNorm(3)(nn.Linear(3, 3)(x.transpose(1, 2)))
    assert (y.ids, y.lengths, y.time_axis) == (x.ids, x.lengths, 1)
    tokens = pts.stream_tensor([torch.tensor([1, 2]), torch.tensor([0])], ids=["a", "b"])
    assert nn.Embedding(4, 6)(tokens).lengths == (2, 1)
    assert type(nn.Conv1d(3, 3, 2)(x)) is Tensor
    assert type(nn.LSTM(3, 2, batch_first=True)(x.transpose(1, 2))[0]) is Tensor
    assert type(x.numpy()).__name__ == "ndarray" and x.tolist() == x.tensor().tolist() and len(x) == 2


def test_scripted_modules_take_it_as_a_plain_tensor():
    x = pair()
    net = nn.Sequential(nn.Linear(5, 5), nn.ReLU())
    y = torch.jit.script(net)(x)
    assert type(y) is Tensor and torch.equal(y, net(x.tensor()))


@pytest.mark.slow
def test_compiled_steps_take_the_plain_tensor():
    x = pair()
    step = torch.compile(lambda t: torch.relu(t) + 1, backend="aot_eager")
    same(x.with_data(step(x.tensor())), torch.relu(x) + 1)


def test_the_table_names_what_torch_calls_pointwise():
    names = set()
    for name in dir(torch.ops.aten):
        packet = getattr(torch.ops.aten, name)
        if name.startswith("_") or not hasattr(packet, "overloads"):
            continue
        if any(torch.Tag.pointwise in getattr(packet, each).tags for each in packet.overloads()):
            names.add(name.removeprefix("special_").removesuffix("_"))
    backward = {name for name in names if name.endswith("_backward")}
    assert len(names) > 150
    # Of max and min, one form is a reduction; equal gives a bool.
    assert names - backward - POINTWISE <= {"max", "min", "equal"}
