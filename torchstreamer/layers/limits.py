"""Up to which sizes which kernels pay, as measured."""

import time
from typing import Dict

import torch

__all__ = [
    "BATCH_VALUES",
    "CACHED_WEIGHTS",
    "DEPTHWISE_PRODUCTS",
    "GEMM_COLUMNS",
    "GPU_COLUMNS",
    "GPU_HALF_COLUMNS",
    "MOST_TAPS",
    "TAP_CHANNELS",
    "TAP_COLUMNS",
    "UNROLLED_SAMPLES",
    "recurrent_samples",
    "taps_pay",
]

# Up to so many columns (rows times samples) one product on unfolded rows beats torch's convolution, which takes the
# rows of a batch one by one. Measured on stacks of 8, 64 and 256 channels, plain and dilated, batch 1, 4 and 16.
GEMM_COLUMNS = 256

# Where `taps_pay` says that products are quick, one on unfolded rows beats torch's convolution for more columns still,
# if they are of several rows, each of few: up to so many columns times taps. Measured on 64 channels, 3 taps, batch 8
# to 32, chunks of 16 to 128.
BATCH_VALUES = 4 << 10

# Windows of more taps are not unfolded: their values would be too many.
MOST_TAPS = 64

# The same as GEMM_COLUMNS on a GPU, for values of 2 bytes and for wider ones: cuDNN takes up to ten times as long for
# fewer columns, and less for more. Measured on an H200 without TF32, 32 to 512 channels, kernels of 3 to 11, batch 1 to
# 1024.
GPU_HALF_COLUMNS = 8192
GPU_COLUMNS = 16384

# Beyond GEMM_COLUMNS, on a CPU, a product per tap beats torch's convolution if a row of the batch has so many columns
# and the convolution so many channels, where `taps_pay` says so. Measured on 4 to 512 channels, kernels of 1 to 16,
# dilation 1 to 64, chunks of 64 to 8192.
TAP_COLUMNS = 256
TAP_CHANNELS = 32

# A depthwise convolution is no matrix product: all its products (columns times channels times taps) pass through
# memory, which pays up to so many.
DEPTHWISE_PRODUCTS = 100_000

# Weights of so many values stay in a cache from step to step. More are read from memory, and Winograd's, up to 2.3
# times as many, pay for that where they serve four times as many columns as there are channels. Measured in HiFi-GAN.
CACHED_WEIGHTS = 1 << 17

# A recorded step of a recurrence holds as many cells as samples; for more, compilers take too long.
UNROLLED_SAMPLES = 64


def recurrent_samples(long_memory: bool, hidden: int) -> int:
    """Up to so many samples of a chunk the cells of a recurrence beat torch's operator of the whole sequence.

    That of LSTMs lays out its weights anew at every call on a CPU, which takes as long as 14 steps of large ones.
    Measured with 32 and 256 channels, batch 1 and 16.

    Args:
        long_memory: whether it is an LSTM
        hidden: size of its state
    """
    return min(4 + hidden // 24, 14) if long_memory else 4


_TAPS_PAY: Dict[int, bool] = {}


def taps_pay() -> bool:
    """Whether on this machine products per tap beat torch's convolution of long chunks in float32.

    Which of torch's two libraries, that of products or that of convolutions, knows the processor better, only a try
    tells: they differ by up to a factor of two either way. Measured once for each number of threads, in some
    milliseconds.
    """
    threads = torch.get_num_threads()
    if threads not in _TAPS_PAY:
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            _TAPS_PAY[threads] = _try_taps(64, 3, 2048)
    return _TAPS_PAY[threads]


def _try_taps(channels: int, kernel: int, count: int) -> bool:
    weight = torch.full([channels, channels, kernel], 0.5, dtype=torch.float32, device="cpu")
    x = torch.full([1, channels, count + kernel - 1], 0.5, dtype=torch.float32, device="cpu")
    rows, matrix = x[0].t().contiguous(), weight[:, :, 0].t().contiguous()
    y = x.new_empty([count, channels])

    def products() -> None:
        torch.mm(rows[:count], matrix, out=y)
        for tap in range(1, kernel):
            y.addmm_(rows[tap : tap + count], matrix)

    def convolution() -> None:
        torch.nn.functional.conv1d(x, weight)

    times = []
    for run in (products, convolution):
        spans = []
        for _ in range(6):  # the first of them sets things up
            begin = time.perf_counter()
            run()
            spans.append(time.perf_counter() - begin)
        times.append(min(spans))
    return times[0] <= times[1]
