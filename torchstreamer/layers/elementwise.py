"""Streams of modules that treat every sample alone. TorchScript compiles this file."""

import copy
from typing import Optional

import torch
from torch import Tensor, nn
from torch.jit import is_scripting

from ..core.describe import describe
from ..core.example import first_line
from ..core.fast_attributes import entry
from ..core.frozen import in_training
from ..core.reach import Reach
from ..core.stream import BaseStream
from ..errors import PointwiseError, StreamError, StreamInputError, UnsupportedModuleError

__all__ = [
    "DROPOUT",
    "MODES",
    "ActivationStream",
    "Elementwise1dStream",
    "IdentityStream",
    "PReLUStream",
    "PointwiseStream",
    "refuse_training",
]


DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)

# Modules that compute something else in training mode.
MODES = (*DROPOUT, nn.modules.batchnorm._BatchNorm, nn.RReLU)


def refuse_training(net: nn.Module) -> None:
    """Refuse a network with modules that compute something else in training mode, and are in it.

    Raises:
        UnsupportedModuleError: with the module
    """
    for module in net.modules():
        if isinstance(module, MODES) and in_training(module) and getattr(module, "p", 1.0) > 0:
            raise UnsupportedModuleError(
                "training_mode",
                module,
                "in training mode it depends on the whole batch, or on chance",
                "call eval() first",
            ).within(net)


class IdentityStream(BaseStream):
    """Stream of a module that changes nothing: `torch.nn.Identity`, and dropout in eval mode."""

    def __init__(self) -> None:
        super().__init__(Reach())
        self.aliasing = 1
        self.keeps_dtype = True

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        return x

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        return channels


class PointwiseStream(BaseStream):
    """Stream of a module that is known to treat every sample alone.

    Args:
        net: the module; it must not write to its input
        in_channels: channels that it takes, -1 for any
        groups: number that must divide the channels
        halves: whether it gives half as many channels as it takes
        fresh: whether its output never shares memory with its input
    """

    fresh = True
    net = entry("_modules")

    def __init__(
        self, net: nn.Module, in_channels: int = -1, groups: int = 1, halves: bool = False, fresh: bool = True
    ) -> None:
        super().__init__(Reach())
        self.net = net
        self.in_channels = in_channels
        self.groups = groups
        self.halves = halves
        self.aliasing = 0 if fresh else 1
        self.fresh = self.fresh and fresh
        self.keeps_dtype = True

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if x is None:
            return None
        return self.net(x)

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        if channels == -1:
            return -1
        if (self.in_channels >= 0 and channels != self.in_channels) or channels % self.groups != 0:
            expected = f"{self.in_channels}" if self.in_channels >= 0 else f"a multiple of {self.groups}"
            raise StreamInputError(
                f"invalid_chunk: {channels} channels came; {expected} were expected by a pointwise layer; check the "
                "axes, a chunk is [B, C, T] or [C, T]"
            )
        return channels // 2 if self.halves else channels


class ActivationStream(PointwiseStream):
    """Stream of an activation that can work in place, as it does on memory that nobody else sees.

    Args:
        net: the module, without parameters; it has an attribute ``inplace``
    """

    __constants__ = ["owner"]

    fresh = True
    over = entry("_modules")

    def __init__(self, net: nn.Module) -> None:
        super().__init__(_with_inplace(net, False))
        self.over = _with_inplace(net, True)
        self.owner = False

    def own_input(self) -> None:
        """Chunks come in memory that nobody else sees."""
        self.owner = True

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if x is None:
            return None
        if self.owner and not torch.is_grad_enabled():
            return self.over.forward(x)
        return self.net.forward(x)

    def __repr__(self) -> str:
        return f"ActivationStream({self.net!r})"


def _with_inplace(net: nn.Module, inplace: bool) -> nn.Module:
    twin = copy.copy(net)
    twin.inplace = inplace  # type: ignore[assignment]
    return twin


class PReLUStream(PointwiseStream):
    """Stream of a `torch.nn.PReLU`."""

    def __init__(self, net: nn.PReLU) -> None:
        super().__init__(net, net.num_parameters if net.num_parameters > 1 else -1)

    def anchor(self) -> Optional[Tensor]:
        """The slope says dtype and device."""
        return self.net.weight


class Elementwise1dStream(BaseStream):
    """Stream of any module that treats every sample alone, checked.

    The module is tried on made-up samples before the first chunk of its first signal: it must keep their number, and
    give for two halves what it gives for the whole. `create_stream` tries it when the stream is made, and where that is
    not possible, as no number of channels fits, the stream prints as "not verified".

    Args:
        net: a module that is pointwise along time, for instance a custom activation

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: ``[B, C', T]`` or ``[C', T]``

    Raises:
        PointwiseError: the module is not pointwise along time (``not_pointwise``), or changed the number of samples
            (``invalid_elementwise_output``); from the first chunk on

    Example:
        >>> import torch, torchstreamer as pts
        >>> class Snake(torch.nn.Module):
        ...     def forward(self, x):
        ...         return x + torch.sin(x) ** 2
        >>> x = torch.randn(2, 6)
        >>> stream = pts.Elementwise1dStream(Snake())
        >>> torch.testing.assert_close(stream(x, final=True), Snake()(x))
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__(Reach())
        refuse_training(net)
        self.net = net
        # Such a module inside must stay as it is; `train()` of the network would change it.
        self.eval_only = not net.training and any(isinstance(module, MODES) for module in net.modules())
        self.aliasing = 0
        self.checked = False
        self.doubt = ""  # what was not verified when the stream was made

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if x is None:
            return None
        if self.eval_only and self.net.training:
            raise StreamError(
                "training_mode: a module with normalisation or dropout inside was put into training mode after its "
                "stream was made; the eval form was expected; call eval() and reset()"
            )
        if not self.checked:
            if is_scripting():
                self._check(x)
            else:
                self._check_first(x)
            self.checked = True
        # Whether the module works in place is not known.
        y = self.net(x.clone())
        _require_length(y, x.size(2))
        return y

    def extra_repr(self) -> str:
        return self.doubt

    @torch.jit.unused
    def try_out(self, x: Tensor) -> None:
        """Try the module on made-up samples with rows, channels, dtype and device of a chunk.

        Raises:
            PointwiseError: it is not pointwise
        """
        devices = [x.device] if x.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            self._check(x)

    @torch.jit.unused
    def _check_first(self, x: Tensor) -> None:
        try:
            self.try_out(x)
        except (StreamError, Warning):
            raise
        # What modules raise for inputs that do not suit them.
        except (RuntimeError, ValueError, TypeError, LookupError, AssertionError) as error:
            raise StreamInputError(
                f"invalid_chunk: {type(self.net).__name__}, which was taken as pointwise, fails on chunks like the one "
                f"that came, {describe(x)}: {first_line(error)}; a chunk that it takes was expected; check its shape "
                "and dtype; if the module is not pointwise, or turns its axes, create_stream(model, example=x)"
            ) from error

    def _check(self, x: Tensor) -> None:
        self._probe(x, 16)
        if x.size(0) * x.size(1) <= 1024:
            self._probe(x, 601)  # longer than most windows

    def _probe(self, x: Tensor, n: int) -> None:
        with torch.no_grad():
            probe = _probe_samples(x, n)
            half = n // 2
            whole = self.net(probe.clone())
            _require_length(whole, n)
            one = self.net(probe.narrow(2, 0, half).clone())
            two = self.net(probe.narrow(2, half, n - half).clone())
            same = one.size(-1) == half and two.size(-1) == n - half
            if same:
                halves = torch.cat([one, two], -1)
                tolerance = 1e-10 if x.dtype == torch.float64 else 1e-5
                if x.dtype == torch.float16 or x.dtype == torch.bfloat16:
                    tolerance = 2e-2
                same = halves.shape == whole.shape and torch.allclose(
                    halves, whole, rtol=tolerance, atol=tolerance, equal_nan=True
                )
            if not same:
                raise PointwiseError(
                    "not_pointwise: the module gives other values for two halves of a signal than for the whole; a "
                    "module that treats every sample alone was expected; create_stream(model, example=x) captures "
                    "others, or register a handler for its type with register_streamer"
                )


def _require_length(y: Tensor, n: int) -> None:
    if not is_scripting():
        if not isinstance(y, Tensor):
            raise PointwiseError(
                f"invalid_elementwise_output: the module gave a {type(y).__name__}; a tensor with as many samples as "
                "came was expected; create_stream(model, example=x) captures other models, or register a handler for "
                "its type with register_streamer"
            )
    if y.dim() < 2 or y.size(-1) != n:
        raise PointwiseError(
            f"invalid_elementwise_output: for {n} samples the module gave an output of shape {list(y.size())}; as many "
            "samples were expected, time last; create_stream(model, example=x) captures other models, or register a "
            "handler for its type with register_streamer"
        )


def _probe_samples(x: Tensor, n: int) -> Tensor:
    # Scattered values without a random generator, which a script could not fork: between -2 and 2, or 0 and 1.
    rows = max(x.size(0), 1)
    count = rows * x.size(1) * n
    wave = torch.sin(torch.arange(count, device=x.device, dtype=torch.float64) * 12.9898 + 0.5) * 43758.5453
    noise = (wave - torch.floor(wave)).view(rows, x.size(1), n)
    if x.is_floating_point() or x.is_complex():
        return (noise * 4 - 2).to(x.dtype)
    return (noise * 2).to(x.dtype)
