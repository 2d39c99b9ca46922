"""MODEL of a command line: a file of ours, or a factory; as something that streams."""

import importlib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, List, Optional

import torch
from torch import Tensor, nn

from ..core.registry import create_stream
from ..core.stream import BaseStream
from ..deploy.files import checked_suffix
from ..deploy.loading import load
from .failing import Code, Failure, blame
from .quantities import shape_of

__all__ = ["Model", "open_factory", "open_model"]

_MOST_CHANNELS = 1024  # that are tried


@dataclass
class Model:
    """What streams.

    Attributes:
        name: as it was typed
        kind: ``"TorchScript"``, ``"AOTInductor"``, ``"ONNX"`` or ``"module"``
        stream: takes chunks ``[B, C, T]``
        again: makes another like it
        rows: how many it takes; 0 for any
        channels: of its input; 0 for any
        dtype: of its input
        rate_hz: samples per second, if that is known
        net: the network, if it is a module
    """

    name: str
    kind: str
    stream: Any
    again: Callable[[], Any]
    rows: int
    channels: int
    dtype: torch.dtype
    rate_hz: Optional[int]
    net: Optional[nn.Module] = None

    def needed_rate(self) -> int:
        """Samples per second.

        Raises:
            Failure: nobody said
        """
        if self.rate_hz is None:
            raise Failure(
                Code.USAGE,
                f"unknown_rate: {self.name} does not say at how many samples per second it works; its rate was "
                "expected; give --rate, or export it with sampling_fs=",
            )
        return self.rate_hz

    def noise(self, samples: int) -> Tensor:
        """A signal ``[B, C, T]`` that it takes, the same each time."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.rows or 1, self.channels or 1, samples, generator=generator).mul_(0.1).to(self.dtype)


def open_model(name: str, rate: Optional[int] = None, example: Optional[str] = None) -> Model:
    """The model.

    Args:
        name: a file, or ``package.module:factory``
        rate: ``--rate``
        example: ``--example``, for a factory

    Raises:
        Failure: it cannot be loaded, is refused, or says another rate
    """
    suffix = checked_suffix(name)
    if suffix is None and re.fullmatch(r"[\w.]+:[\w.]+", name) and not os.path.exists(name):
        model = _of_factory(name, example)
    else:
        if example is not None:
            raise Failure(Code.USAGE, "--example came with a file, which needs none; leave it out")
        model = _of_file(name, suffix)
    if rate is not None and model.rate_hz not in (None, rate):
        raise Failure(
            Code.USAGE,
            f"wrong_rate: --rate {rate} came, and {name} says {model.rate_hz} Hz; one rate was expected; leave out "
            "--rate: sound of other rates is resampled",
        )
    model.rate_hz = model.rate_hz or rate
    return model


def open_factory(name: str) -> nn.Module:
    """The network of ``package.module:factory``, in its eval form.

    Raises:
        Failure: there is none
    """
    found = re.fullmatch(r"([\w.]+):([\w.]+)", name)
    if found is None:
        raise Failure(
            Code.USAGE, f"{name!r} came; package.module:factory was expected, as an exported file holds no network"
        )
    here = os.getcwd()
    if here not in sys.path:  # as with python -m
        sys.path.insert(0, here)
    with blame(Code.MODEL):
        made: Any = importlib.import_module(found[1])
        for part in found[2].split("."):
            made = getattr(made, part)
        if not isinstance(made, nn.Module) and callable(made):
            made = made()
    if not isinstance(made, nn.Module):
        raise Failure(
            Code.MODEL,
            f"invalid_factory: {name} gives a {type(made).__name__}; a torch.nn.Module was expected; name a module, or "
            "a function without arguments that makes one",
        )
    return made.eval()


def _of_factory(name: str, example: Optional[str]) -> Model:
    net = open_factory(name)
    with blame(Code.MODEL):
        first = next((value for value in [*net.parameters(), *net.buffers()] if value.is_floating_point()), None)
        dtype = torch.float32 if first is None else first.dtype
        given = None if example is None else torch.randn(shape_of(example)).to(dtype)

        def again() -> Any:
            return create_stream(net, example=given)

        stream = net if isinstance(net, BaseStream) else again()
        channels = _channels_of(stream, dtype) if given is None else given.shape[1]
    rate: Any = getattr(net, "sampling_fs", None)
    return Model(name, "module", stream, again, 0, channels, dtype, rate if type(rate) is int else None, net)


def _of_file(name: str, suffix: Optional[str]) -> Model:
    if suffix is None:
        raise Failure(
            Code.MODEL,
            f"unknown_model: {name} came; a .pt, .pt2, .onnx or .so file that was exported, or package.module:factory, "
            "was expected; export the network first",
        )
    with blame(Code.MODEL):
        stream = load(Path(name))
        if suffix == ".so":
            dtype = stream.weight.dtype
            return Model(name, "C++", stream, lambda: load(Path(name)), 0, stream.channels, dtype, stream.sampling_fs)
        if suffix != ".pt":
            dtype = getattr(torch, stream.dtype)
            kind = {".pt2": "AOTInductor", ".onnx": "ONNX"}[suffix]
            rate = stream.sampling_fs
            return Model(name, kind, stream, lambda: load(Path(name)), stream.batch, stream.channels, dtype, rate)
        weights = [value for value in [*stream.parameters(), *stream.buffers()] if value.is_floating_point()]
        dtype = weights[0].dtype if weights else torch.float32
        channels = _channels_of(stream, dtype)
    return Model(name, "TorchScript", stream, lambda: load(Path(name)), 0, channels, dtype, stream.sampling_fs)


def _channels_of(stream: Any, dtype: torch.dtype) -> int:
    # Streams refuse what does not fit before anything is written; one that takes any number takes two.
    taken: List[int] = []
    last: Optional[Exception] = None
    with torch.no_grad():
        for channels in range(1, _MOST_CHANNELS + 1):
            try:
                stream(torch.zeros(1, channels, stream.hop, dtype=dtype))
                taken.append(channels)
            except Exception as error:  # scripts raise their own
                last = last or error
            stream.reset()
            if len(taken) == 2:
                return 0
            if taken and channels > max(taken[0], 2):
                break
    if not taken:
        assert last is not None
        raise last
    return taken[0]
