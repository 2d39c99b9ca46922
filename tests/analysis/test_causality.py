"""Masks over chunks: who sees what it must not."""

import pytest
import torch
from torch import nn

from torchstreamer.analysis import check_causality


def attention(chunk, left, right):
    """Attention over the own chunk, `left` frames before it and `right` behind it."""

    def model(x):
        i = torch.arange(x.shape[1])
        begin = i // chunk * chunk
        low, high = begin - left, begin + chunk - 1 + right
        hidden = (i < low[:, None]) | (i > high[:, None])
        return torch.softmax((x @ x.transpose(1, 2)).masked_fill(hidden, -torch.inf), -1) @ x

    return model


SHAPE = (1, 24, 6)


@pytest.mark.parametrize(("chunk", "left", "right"), [(1, 3, 0), (4, 8, 0), (4, 4, 2), (6, 0, 0), (5, 7, 1)])
def test_masks_hold_exactly(chunk, left, right):
    model = attention(chunk, left, right)
    assert check_causality(model, chunk, left=left, right=right, seq_shape=SHAPE)
    assert check_causality(model, chunk, right=right + 1, seq_shape=SHAPE)
    if right:
        tight = check_causality(model, chunk, left=left, right=right - 1, seq_shape=SHAPE)
        assert not tight
        assert all(v.seen == (v.allowed[1] + 1,) for v in tight.violations)
    if left:
        tight = check_causality(model, chunk, left=left - 1, right=right, seq_shape=SHAPE)
        assert not tight
        assert all(v.seen == (v.allowed[0] - 1,) for v in tight.violations)


def test_one_layer_without_a_mask_is_told_in_words():
    conv = nn.Conv1d(4, 4, 5, padding=2)
    report = check_causality(conv, 4, left=1, seq_shape=(1, 4, 12), time_dim=2)
    assert [v.output for v in report.violations] == [2, 3, 4, 6, 7, 8]
    told = str(report).splitlines()
    assert told[0] == "6 of 12 output frames see what they must not, in chunks of 4:"
    assert told[1] == (
        "  output frame 2 (chunk 0, may see frames 0 to 3) sees frame 4, up to 1 beyond the last one that it may see"
    )
    assert told[3] == (
        "  output frame 4 (chunk 1, may see frames 3 to 7) sees frame 2, up to 1 before the first one that it may see"
    )


def test_against_the_definition():
    torch.manual_seed(0)
    for _ in range(50):
        ins, outs, chunk = (int(torch.randint(1, top, ())) for top in (20, 20, 8))
        left, right = (int(torch.randint(0, 4, ())) for _ in range(2))
        matrix = torch.rand(ins, outs) < 0.4
        report = check_causality(matrix, chunk, left=left, right=right)
        found = {(v.output, frame) for v in report.violations for frame in v.seen}
        expected = set()
        for o in range(outs):
            begin = o * ins // outs // chunk * chunk
            for i in range(ins):
                if matrix[i, o] and not begin - left <= i < begin + chunk + right:
                    expected.add((o, i))
        assert found == expected
        assert bool(report) == (not expected)


def test_subsampled_outputs_stand_where_they_begin():
    net = nn.Conv1d(4, 4, 4, stride=4)
    assert check_causality(net, 8, left=0, seq_shape=(1, 4, 32), time_dim=2)
    assert not check_causality(nn.Conv1d(4, 4, 6, stride=4, padding=1), 8, left=0, seq_shape=(1, 4, 32), time_dim=2)


def test_it_prints():
    assert str(check_causality(torch.eye(5, dtype=torch.bool), 1)) == (
        "all 5 output frames see only what they may, in chunks of 1"
    )
    many = str(check_causality(torch.ones(30, 30, dtype=torch.bool), 1, left=0))
    assert many.splitlines()[-1].strip() == "… and 20 more"
    assert "sees frames 1 to 29, up to 29 beyond" in many
    assert "frames 0, 2 to 29" not in many and "sees frames 2 to 29" in many


@pytest.mark.parametrize(
    ("model", "chunk", "options", "code"),
    [
        (torch.eye(3, dtype=torch.bool), 0, {}, "invalid_chunk"),
        (torch.eye(3, dtype=torch.bool), 1, {"left": -1}, "invalid_left"),
        (torch.eye(3), 1, {}, "invalid_dependencies"),
        (torch.ones(3, dtype=torch.bool), 1, {}, "invalid_dependencies"),
        (nn.ReLU(), 1, {}, "no_seq_shape"),
        (nn.ReLU(), 1, {"seq_shape": SHAPE, "bounds": True}, "invalid_option"),
        (lambda x: (x, x), 1, {"seq_shape": SHAPE}, "several_outputs"),
    ],
)
def test_refusals(model, chunk, options, code):
    with pytest.raises(ValueError, match=f"^{code}: "):
        check_causality(model, chunk, **options)
