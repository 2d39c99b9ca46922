"""Which kernels convolutions take, by the length of the chunk and by the machine."""

import pytest
import torch
from torch import nn

import torchstreamer as pts
from torchstreamer.layers import conv, limits


@pytest.mark.parametrize("script", [False, True])
@pytest.mark.parametrize(
    "dtype, pay, taken", [(torch.float32, True, True), (torch.float32, False, False), (torch.float64, False, True)]
)
def test_products_per_tap_where_they_pay(script, dtype, pay, taken, monkeypatch):
    monkeypatch.setattr(conv, "taps_pay", lambda: pay)
    torch.manual_seed(0)
    net = nn.Conv1d(32, 32, 3, padding=1, dilation=2).to(dtype)
    stream = pts.create_stream(net)
    stream = torch.jit.script(stream) if script else stream
    x = torch.randn(2, 32, 900, dtype=dtype)
    with torch.inference_mode():
        for _ in range(3):  # scripts settle
            pieces = [stream(chunk) for chunk in x.split(300, -1)] + [stream.flush()]
        expected = net(x)
        with torch.profiler.profile(acc_events=True) as profile:
            stream(x)
    y = torch.cat([piece for piece in pieces if piece is not None], -1)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-10 if dtype == torch.float64 else 1e-5)
    counts = {event.key: event.count for event in profile.key_averages()}
    # Per row one product with the bias, and two that are added.
    assert (counts.get("aten::addmm_", 0), counts.get("aten::conv1d", 0)) == ((4, 0) if taken else (0, 1))


@pytest.mark.parametrize("script", [False, True])
@pytest.mark.parametrize("pay", [False, True])
def test_one_product_for_a_batch_of_short_chunks_where_products_pay(script, pay, monkeypatch):
    monkeypatch.setattr(conv, "taps_pay", lambda: pay)
    torch.manual_seed(0)
    net = nn.Conv1d(32, 32, 3, padding=1, dilation=2)
    stream = pts.create_stream(net)
    stream = torch.jit.script(stream) if script else stream
    x = torch.randn(12, 32, 160)
    with torch.inference_mode():
        for _ in range(3):
            pieces = [stream(chunk) for chunk in x.split(40, -1)] + [stream.flush()]
        stream(x[..., :40])
        with torch.profiler.profile(acc_events=True) as profile:
            stream(x[..., 40:80])
        torch.testing.assert_close(torch.cat(pieces, -1), net(x), rtol=0, atol=1e-5)
    counts = {event.key: event.count for event in profile.key_averages()}
    assert counts.get("aten::conv1d", 0) == (0 if pay else 1)


def test_the_machine_is_tried_once_for_each_number_of_threads(monkeypatch):
    tried = []
    monkeypatch.setattr(limits, "_TAPS_PAY", {})
    monkeypatch.setattr(limits, "_try_taps", lambda *sizes: tried.append(sizes) or True)
    assert pts.create_stream(nn.Conv1d(31, 8, 3)).tap_columns > 1 << 40 and not tried  # too few channels
    for _ in range(3):
        assert pts.create_stream(nn.Conv1d(32, 8, 3)).tap_columns == limits.TAP_COLUMNS
    assert len(tried) == 1
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    limits.taps_pay()
    assert len(tried) == 2


def test_the_trial_leaves_no_trace():
    before = torch.get_rng_state()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        assert limits._try_taps(8, 3, 64) in (True, False)
    assert torch.equal(torch.get_rng_state(), before)
