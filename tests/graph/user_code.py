"""What networks call beside layers, as authors write it: lengths made with floats and tensors, checks, detours."""

import contextlib
import math
import warnings

import torch
import torch.nn.functional as F


def valid_length(length, depth, kernel, stride, least=False, resample=1):
    length = math.ceil(length * resample)
    for _ in range(depth):
        length = math.ceil((length - kernel) / stride) + 1
        if least:
            length = max(length, 1)
    for _ in range(depth):
        length = (length - 1) * stride + kernel
    length = int(math.ceil(length / resample))
    return int(length)


def extra_padding(x, kernel, stride, total=0):
    length = x.shape[-1]
    frames = (length - kernel + total) / stride + 1
    return (math.ceil(frames) - 1) * stride + (kernel - total) - length


def extra_padding_of_tensors(x, kernel, stride, total):
    """With tensors, as transformers' EnCodec has them in buffers."""
    length = x.shape[-1]
    frames = (length - kernel + total) / stride + 1
    frames = torch.ceil(frames).to(torch.int64) - 1
    return frames * stride + kernel - total - length


def pad1d(x, paddings, mode="constant", value=0.0):
    length = x.shape[-1]
    left, right = paddings
    if mode != "reflect":
        return F.pad(x, paddings, mode, value)
    most = max(left, right)
    extra = 0
    if length <= most:
        extra = most - length + 1
        x = F.pad(x, (0, extra))
    padded = F.pad(x, paddings, mode, value)
    return padded[..., : padded.shape[-1] - extra]


def checked(x):
    assert torch.isfinite(x).all(), "not finite"
    torch._assert(not torch.isnan(x).any(), "nan")
    if x.abs().max() > 1e30 or not bool(x.min() > -1e30):
        raise ValueError("too large")
    if x.abs().max().item() > 1e20:
        warnings.warn("large", stacklevel=2)
    return x


def quiet(x):
    with torch.no_grad():
        return x * 0.5


def refuse_loud(x):
    assert x.abs().max() < 1


def assert_caught(x):
    try:
        refuse_loud(x)
    except AssertionError:
        x = x / 10
    return x


def raise_caught(x):
    try:
        if x.abs().max() > 1:
            raise ValueError("too loud")
    except ValueError:
        x = x / 10
    return x


def assert_suppressed(x):
    with contextlib.suppress(AssertionError):
        refuse_loud(x)
        return x
    return x / 10


def assert_left_by_a_handler(x):
    try:
        refuse_loud(x)
    except AssertionError:
        if x.shape[1] == 1:
            return x / 10
        raise
    return x


def assert_left_at_the_end(x):
    y = x / 10
    try:
        refuse_loud(x)
        y = x
    finally:
        return y  # noqa: B012  (swallows what was raised)


def assert_raised_again(x):
    try:
        assert x.abs().max() < 100
    except AssertionError as error:
        raise ValueError("too loud") from error
    return x
