"""A wrong example is said to be wrong: the model itself is run on it before anything else."""

import numpy as np
import pytest
import torch
from torch import nn

import torchstreamer as pts

X = torch.randn(1, 2, 40, generator=torch.Generator().manual_seed(0))


class Model(nn.Module):
    """Captured."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 3)

    def forward(self, x):
        return self.conv(x).relu()


class Sum(nn.Module):
    def forward(self, a, b):
        return a + b


def handled():
    """Taken by handlers."""
    return nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU())


# What the model itself says of the example stands in the message.
FAILING = {
    "channels": (torch.randn(1, 3, 40), "to have 2 channels, but got 3"),
    "double": (X.double(), r"torch.float64, on cpu \(its weights are torch.float32, on cpu\)"),
    "whole numbers": (X.long(), "torch.int64"),
    "complex": (X + 0j, "torch.complex64"),
    "one axis": (X[0, 0], r"input of size: \[40\]"),
    "four axes": (X[None], r"input of size: \[1, 1, 2, 40\]"),
    "too short": (X[..., :2], "Kernel size"),
    "one input too many": ((X, X), "TypeError: .*takes 2 positional arguments but 3 were given"),
}
WITHOUT_VALUES = {
    "no samples": (X[..., :0], r"shape \[1, 2, 0\]"),
    "no rows": (X[:0], r"shape \[0, 2, 40\]"),
    "no values": (X.to("meta"), "on meta came, which holds no values"),
    "sparse": (X.to_sparse(), "a sparse_coo tensor came"),
    "mkldnn": (X.to_mkldnn(), "a _mkldnn tensor came"),
    # Made in the test: torch imports a lot for its first one.
    "nested": (lambda: torch.nested.as_nested_tensor([X[0]], layout=torch.jagged), "a nested tensor came"),
}
NO_TENSORS = {
    "number": (3, "an object of type int came"),
    "NumPy": (np.zeros((1, 2, 40), np.float32), "an object of type ndarray came"),
    "list": ([[0.0, 1.0]], r"a list of \(list\) came"),
    "numbers": (list(range(9)), r"a list of \(int, int, int, int, int, int, …\) came"),
    "None inside": ((X, None), r"a tuple of \(Tensor, NoneType\) came"),
    "nothing inside": ((), r"a tuple of \(\) came"),
    "text": ("x", "an object of type str came"),
    "dict": ({"x": X}, "an object of type dict came"),
    "type": (torch.Tensor, "an object of type type|_TensorMeta came"),
}


@pytest.mark.parametrize("ask", [pts.create_stream, pts.is_streamable])
@pytest.mark.parametrize("make", [Model, handled])
@pytest.mark.parametrize("name", [*FAILING, *WITHOUT_VALUES, *NO_TENSORS])
def test_a_wrong_example_is_said_to_be_wrong(name, make, ask):
    table = FAILING if name in FAILING else WITHOUT_VALUES if name in WITHOUT_VALUES else NO_TENSORS
    example, words = table[name]
    example = example() if name == "nested" else example
    kind = TypeError if name in NO_TENSORS else pts.StreamInputError
    code = "example_fails: the model fails on this example, " if name in FAILING else "invalid_example: "
    with pytest.raises(kind, match=f"^{code}.*({words}).*; ") as caught:
        ask(make(), example=example)
    assert "export" not in str(caught.value) and len(str(caught.value)) < 700


def test_what_the_model_raised_is_the_cause():
    with pytest.raises(pts.StreamInputError) as caught:
        pts.create_stream(Sum(), example=(X, X[..., 1:]))
    assert caught.value.code == "example_fails" and isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(pts.StreamInputError, match="^example_fails: .*'b'"):
        pts.create_stream(Sum(), example=X)


@pytest.mark.parametrize("bad", [1.0, "2", None, True, (2, 2), [None], 3, ("2",)])
def test_a_wrong_axis_of_time_is_refused(bad):
    with pytest.raises(pts.StreamInputError, match="^invalid_time_dim: .*; .*; "):
        pts.create_stream(Model(), example=X, time_dim=bad)


@pytest.mark.parametrize("bad", [4.0, "4", 0, True, None])
def test_a_wrong_multiple_is_refused(bad):
    with pytest.raises(pts.StreamInputError, match="^invalid_length_multiple: .*; .*; "):
        pts.create_stream(Model(), example=X, length_multiple=bad)


def test_examples_that_are_odd_but_right():
    net = Model()
    spoilt = X.clone()
    spoilt[0, 1, 7:] = torch.nan
    for example in (spoilt, X * torch.nan, X.clone().requires_grad_(), [X], X.expand(3, 2, 40)):
        stream = pts.create_stream(net, example=example)
        with torch.no_grad():
            torch.testing.assert_close(torch.cat([stream(X[..., :9]), stream(X[..., 9:], final=True)], -1), net(X))
    assert spoilt.isnan().sum() == 33  # the caller's own


def test_nan_in_the_example_hides_no_difference():
    class Chance(nn.Module):
        def forward(self, x):
            return x * torch.rand(1)  # another value with every call

    for example in (X, X * torch.nan):
        with pytest.raises(pts.UnsupportedModuleError):
            pts.create_stream(Chance(), example=example)


def test_the_trial_on_the_example_changes_nothing():
    lazy = nn.Sequential(nn.LazyConv1d(3, 3))
    with pytest.raises(pts.UnsupportedModuleError, match="^lazy_module: .*'0'"):
        pts.create_stream(lazy, example=X)
    net = nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3))
    with pytest.raises(pts.UnsupportedModuleError, match="^training_mode: "):
        pts.create_stream(net, example=X)
    assert net[1].num_batches_tracked == 0
