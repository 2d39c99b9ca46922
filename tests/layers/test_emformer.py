"""The Emformer against its definition, written as loops over segments and queries, and against torchaudio's."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import torchstreamer as pts
from torchstreamer.testing import verify_stream

for _folder in ("deploy", "audio"):
    sys.path.insert(0, str(Path(__file__).parents[1] / _folder))

from runner_calls import GRAPH, PACKAGE, SCRIPT  # noqa: E402
from torchaudio_reference import torchaudio  # noqa: E402

# Left context, right context, memory, segment.
SIZES = {
    "all": (4, 1, 2, 4),
    "segments alone": (0, 0, 0, 3),
    "right > segment": (5, 7, 1, 2),
    "memory alone": (0, 2, 3, 3),
}
sizes = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)


def emformer(size, layers=2, **options):
    torch.manual_seed(0)
    left, right, memory, segment = size
    net = pts.Emformer1d(
        8,
        2,
        16,
        layers,
        segment,
        left_context_length=left,
        right_context_length=right,
        max_memory_size=memory,
        **options,
    )
    for norm in net.modules():
        if isinstance(norm, torch.nn.LayerNorm):
            torch.nn.init.normal_(norm.weight)
            torch.nn.init.normal_(norm.bias)
    return net.eval()


def linear(module, x):
    return x @ module.weight.detach().numpy().T + module.bias.detach().numpy()


def normed(module, x):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + module.eps)
    return scaled * module.weight.detach().numpy() + module.bias.detach().numpy()


def attended(attention, query, keys):
    """One query over a list of keys, head by head."""
    size = len(query) // attention.heads
    q = linear(attention.emb_to_query, query)
    kv = linear(attention.emb_to_key_value, np.stack(keys))
    k, v = kv[:, : len(query)], kv[:, len(query) :]
    heads = []
    for at in range(0, len(query), size):
        scores = k[:, at : at + size] @ q[at : at + size] / math.sqrt(size)
        weights = np.exp(scores - scores.max())
        heads.append(weights @ v[:, at : at + size] / weights.sum())
    return linear(attention.out_proj, np.concatenate(heads))


def by_loops(net, x, size, tanh=False):
    """The definition, on frames ``[T, C]``."""
    left, right, memory, segment = size
    length = len(x)
    starts = range(0, length, segment)
    own = [x[start : start + segment] for start in starts]
    copies = [x[start + segment : start + segment + right] for start in starts]
    summaries = [frames.mean(0) for frames in own]
    for layer in net.emformer_layers:
        seen = [normed(layer.layer_norm_input, frames) for frames in own]
        ahead = [normed(layer.layer_norm_input, frames) for frames in copies]
        utterance = np.concatenate(seen)
        outputs, following = [], []
        for n, start in enumerate(starts):
            frames = [*ahead[n], *utterance[max(start - left, 0) : start + segment]]
            bank = summaries[max(n - memory, 0) : n]
            met = [attended(layer.attention, query, [*bank, *frames]) for query in [*seen[n], *ahead[n]]]
            outputs.append(np.stack(met))
            summary = attended(layer.attention, seen[n].mean(0), frames)
            following.append(np.tanh(summary) if tanh else summary.clip(-10, 10))
        for n in range(len(starts)):
            y = outputs[n] + np.concatenate([own[n], copies[n]])
            inner = np.maximum(linear(layer.pos_ff[1], normed(layer.pos_ff[0], y)), 0)
            y = normed(layer.layer_norm_output, linear(layer.pos_ff[4], inner) + y)
            own[n], copies[n] = y[: len(own[n])], y[len(own[n]) :]
        summaries = following
    return np.concatenate(own)


@sizes
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 13, 24])
def test_equals_its_definition(size, length):
    net = emformer(size).double()
    x = torch.randn(8, length, dtype=torch.float64)
    with torch.no_grad():
        y = net(x)
    np.testing.assert_allclose(y.T.numpy(), by_loops(net, x.T.numpy(), size), rtol=0, atol=1e-12)


def test_summaries_are_bounded_by_tanh():
    size = SIZES["all"]
    net = emformer(size, tanh_on_mem=True).double()
    x = torch.randn(8, 21, dtype=torch.float64)
    with torch.no_grad():
        np.testing.assert_allclose(net(x).T.numpy(), by_loops(net, x.T.numpy(), size, True), rtol=0, atol=1e-12)


@sizes
def test_equals_torchaudio_and_takes_its_weights(size):
    left, right, memory, segment = size
    theirs = (
        torchaudio("models.emformer")
        .Emformer(8, 2, 16, 2, segment, left_context_length=left, right_context_length=right, max_memory_size=memory)
        .eval()
    )
    net = emformer(size)
    net.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 8, 5 * segment + right)
    with torch.no_grad():
        expected, _ = theirs(x.mT, torch.tensor([5 * segment] * 2))
        torch.testing.assert_close(net(x)[..., : 5 * segment], expected.mT, rtol=0, atol=1e-5)


@pytest.mark.sample(rest=4)
@sizes
def test_keeps_the_contract(size):
    verify_stream(emformer(size), (2, 8, 29), graph=True, static=True, dtypes=[torch.float64, torch.float32])


@pytest.mark.sample(rest=9)
@pytest.mark.parametrize("suffix", [SCRIPT, PACKAGE, GRAPH])
def test_files(suffix, tmp_path):
    net = emformer(SIZES["all"])
    x = torch.randn(1, 8, 39)
    path = tmp_path / f"emformer{suffix}"
    options = {} if suffix == ".pt" else {"chunk": 8}
    runner = pts.load(pts.export(pts.create_stream(net), path, **options))
    with torch.no_grad():
        ys = [runner(piece) for piece in x.split(8, -1)] + [runner.flush()]
        y = torch.cat([y for y in ys if y is not None], -1)
        torch.testing.assert_close(y, net(x), rtol=0, atol=1e-5)


@sizes
def test_any_chunks_give_the_whole(size):
    net = emformer(size, layers=3).double()
    left, right, memory, segment = size
    x = torch.randn(3, 8, 71, dtype=torch.float64)
    stream = pts.create_stream(net)
    with torch.no_grad():
        whole = net(x)
        for chunk in (1, 2, 7, segment, 50, 71):
            came, ys = 0, []
            for piece in x.split(chunk, -1):
                ys.append(stream(piece))
                came += piece.shape[-1]
                assert sum(0 if y is None else y.shape[-1] for y in ys) == max((came - right) // segment * segment, 0)
            ys.append(stream.flush())
            y = torch.cat([y for y in ys if y is not None], -1)
            torch.testing.assert_close(y, whole, rtol=0, atol=1e-12)


def test_the_look_ahead_does_not_grow_with_the_layers():
    for layers in (1, 4):
        stream = pts.create_stream(emformer((4, 2, 2, 4), layers))
        assert stream.output_length(6, False) == 4 and stream.output_length(5, False) == 0 and stream.hop == 4


def test_state_does_not_grow():
    net = emformer(SIZES["all"])
    stream = pts.create_stream(net)
    sizes = set()
    with torch.no_grad():
        for turn in range(200):
            stream(torch.randn(1, 8, 8))
            if turn >= 10:
                sizes.add(stream.state_nbytes())
    assert len(sizes) == 1


def test_a_nan_stays_in_its_row_and_leaves_with_what_sees_it():
    net = emformer((4, 1, 0, 4), layers=1)
    x = torch.randn(2, 8, 40)
    x[1, :, 10] = torch.nan
    stream = pts.create_stream(net)
    with torch.no_grad():
        y = torch.cat([stream(x[..., :17]), stream(x[..., 17:], final=True)], -1)
        whole = net(x)
    assert y[0].isfinite().all()
    assert (
        torch.equal(y.isnan(), whole.isnan()) and whole[1, :, 16:].isfinite().all() and whole[1, :, 8:16].isnan().all()
    )


@pytest.mark.parametrize(
    "change", [{"segment_length": 0}, {"num_heads": 3}, {"activation": "tanh"}, {"input_dim": 8.0}]
)
def test_wrong_numbers_are_refused(change):
    given = {"input_dim": 8, "num_heads": 2, "ffn_dim": 4, "num_layers": 1, "segment_length": 4, **change}
    with pytest.raises(ValueError, match="^invalid_emformer: .*; .*; "):
        pts.Emformer1d(**given)
