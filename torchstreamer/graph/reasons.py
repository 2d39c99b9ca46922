"""Why operations cannot be streamed when they work along time, and what to do instead."""

from typing import Dict, Tuple

__all__ = ["REASONS", "reason_for"]

Reason = Tuple[str, str]

_WHOLE = "every output depends on the whole signal"
_FRAMES = "bound its context, or register a handler for the module"
_MEAN: Reason = (
    "it averages over time, so every output depends on the whole signal",
    "use AvgPool1d with a fixed kernel, or a cumulative mean (torch.cumsum over time)",
)
_NORM: Reason = (
    "it normalises by statistics of the whole signal",
    "use BatchNorm1d, LayerNorm over the channels of each sample, or a cumulative norm (pts.CumulativeGroupNorm1d, or "
    "torch.cumsum over time)",
)
_REVERSED: Reason = (
    "it reverses time: the first output needs the end of the signal",
    "leave it outside the stream",
)
_SORT: Reason = (f"it sorts or searches along time: {_WHOLE}", "use MaxPool1d with a fixed kernel")
_FOURIER: Reason = (
    f"it transforms all of time: {_WHOLE}",
    "use torch.stft with center=False, or frames (Tensor.unfold)",
)
_RANDOM: Reason = (
    "it draws random numbers for the whole signal",
    "give the noise to the model as another input, or call eval() if it is dropout",
)

REASONS: Dict[str, Reason] = {
    "select": (
        "it takes single samples of the signal by their position",
        "leave it outside the stream; for a repeated first or last sample use F.pad(mode='replicate')",
    ),
    "slice": (
        "how much it crops on the left depends on the length of the signal",
        "crop a constant amount, or give length_multiple= if the lengths are multiples of one number",
    ),
    "length": (
        "it makes a tensor from the length of the whole signal",
        "make it from the samples, for instance with torch.zeros_like, or take it from a fixed size",
    ),
    "arange": (
        "it uses positions in another way than sample by sample",
        "use torch.arange(length) in additions, products and other operations on single samples",
    ),
    "rand": _RANDOM,
    "chance": (
        "in training mode it drops what is no signal: weights, static values, or scores of an attention",
        "set its share to 0, or leave training= out, which streams the eval form of the network in eval mode",
    ),
    "cat": (
        "it puts signals one after the other: the second begins where the whole of the first has ended",
        "join them along another axis",
    ),
    "roll": ("it moves the end of the signal to its start", "use F.pad and a crop"),
    "circular": ("circular padding puts the end of the signal before its start", "use another padding mode"),
    "mean": _MEAN,
    "sum": (f"it sums over time: {_WHOLE}", "use torch.cumsum, or AvgPool1d with a fixed kernel"),
    "repeat": (
        "it lays copies of the whole signal one after the other",
        "use torch.repeat_interleave to repeat every sample",
    ),
    "fft_rfft": _FOURIER,
    "fft_fft": _FOURIER,
    "_fft_r2c": _FOURIER,
    "_fft_c2c": _FOURIER,
    "adaptive_avg_pool1d": _MEAN,
    "adaptive_avg_pool2d": _MEAN,
    "var": _NORM,
    "std": _NORM,
    "var_mean": _NORM,
    "std_mean": _NORM,
    "norm": _NORM,
    "linalg_vector_norm": _NORM,
    "group_norm": _NORM,
    "instance_norm": _NORM,
    "layer_norm": _NORM,
    "rms_norm": _NORM,
    "native_layer_norm": _NORM,
    "native_group_norm": _NORM,
    "_native_batch_norm_legit_functional": (
        "in training mode it normalises by the statistics of the batch",
        "use nn.BatchNorm1d, of which a stream with training='frozen' takes the running statistics, or training=False",
    ),
    "batch_norm": ("in training mode it normalises by the statistics of the batch", "call eval() first"),
    "softmax": (f"it normalises over time: {_WHOLE}", "use softmax over another axis"),
    "log_softmax": (f"it normalises over time: {_WHOLE}", "use log_softmax over another axis"),
    "_softmax": (f"it normalises over time: {_WHOLE}", "use softmax over another axis"),
    "flip": _REVERSED,
    "sort": _SORT,
    "argsort": _SORT,
    "topk": _SORT,
    "median": _SORT,
    "max": _SORT,
    "min": _SORT,
    "amax": _SORT,
    "amin": _SORT,
    "argmax": _SORT,
    "argmin": _SORT,
    "adaptive_max_pool1d": _SORT,
    "adaptive_max_pool2d": _SORT,
    "linear": (
        "it multiplies along time, so it is made for one length",
        "use Conv1d with kernel_size=1 for the channels, or give time_dim= if time is another axis",
    ),
    "scaled_dot_product_attention": (f"attention over time: {_WHOLE}", _FRAMES),
    "matmul": (f"it relates every sample to every other: {_WHOLE}", _FRAMES),
    "bmm": (f"it relates every sample to every other: {_WHOLE}", _FRAMES),
    "stft": ("its frames do not follow a constant step", "use center=False, or pad before"),
    "istft": ("time is not the axis of its frames, which is the last one", "transpose first"),
}
for _name in ("rand", "randn", "rand_like", "randn_like", "bernoulli", "dropout", "normal", "native_dropout", "rrelu"):
    REASONS[_name] = _RANDOM

_OTHER: Reason = (
    "it mixes samples along time in a way that has no stream",
    "apply it to other axes than time, or register a handler for the module",
)


def reason_for(name: str) -> Reason:
    """Why an operation that works along time cannot be streamed, and what to do."""
    return REASONS.get(name, _OTHER)
