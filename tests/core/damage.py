"""Random damage to saved states: each is refused and the stream goes on, or it is one that a signal could have given.

    python tests/core/damage.py COUNT SEED

Names, shapes, dtypes and whole numbers of states are changed at random, over streams, scripts and static steps of
several networks. A damaged state must raise `StreamInputError`, after which the stream goes on exactly. One that is
accepted must have the names, shapes, dtypes and whole numbers of the state it was made of, but for the number of rows;
then the stream must go on like one that was given the undamaged state, with as many samples, of the same dtype.
"""

import functools
import random
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn

import torchstreamer as pts

State = Dict[str, Any]


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        return x[..., 3:] + torch.tanh(self.conv(x))[..., 3:] + torch.arange(x.shape[-1] - 3)


def networks() -> Dict[str, Callable[[], Any]]:
    """Makers of streams, by name; all take two channels."""
    torch.manual_seed(0)
    conv, strided = nn.Conv1d(2, 3, 5, padding=2), nn.Conv1d(2, 2, 2, stride=5)
    deep = nn.Sequential(
        nn.Conv1d(2, 4, 3, padding=1), pts.Residual1d(nn.Conv1d(4, 4, 5)), nn.ConvTranspose1d(4, 2, 4, 2, 1)
    )
    pool = nn.Sequential(nn.MaxPool1d(3, 2, 1), nn.ReflectionPad1d(3), nn.AvgPool1d(2))
    up = nn.Sequential(nn.Upsample(scale_factor=1.5, mode="linear"), nn.Conv1d(2, 2, 4))
    branches = pts.Parallel1d(nn.Conv1d(2, 2, 3), nn.Conv1d(2, 2, 7, padding=3), merge="cat")
    skip, example = Skip().eval(), torch.randn(1, 2, 30)
    made: Dict[str, Callable[[], Any]] = {}
    for name, net in dict(conv=conv, strided=strided, deep=deep, pool=pool, up=up, branches=branches).items():
        made[name] = lambda net=net: pts.create_stream(net.eval())
    made["graph"] = lambda: pts.create_stream(skip, example=example)
    scripts: Dict[str, Any] = {}

    def script(name: str) -> Any:
        # Each is made once, and only where it is asked for.
        scripts[name] = scripts.get(name) or torch.jit.script(made[name]())
        scripts[name].reset()
        return scripts[name]

    for name in ("deep", "graph"):
        made[f"{name}, scripted"] = functools.partial(script, name)
    return made


class Stream:
    """A stream, or a script of one."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.stream = make()

    def feed(self, n: int, seed: int) -> Optional[Tensor]:
        return self.stream(_signal(n, seed))

    def rest(self) -> List[Optional[Tensor]]:
        x = _signal(23, 99)
        return [self.stream(x[..., :2]), self.stream(x[..., 2:13]), self.stream(x[..., 13:], True)]

    def get_state(self) -> State:
        return self.stream.get_state()

    def set_state(self, state: State) -> None:
        self.stream.set_state(state)


class Static:
    """A static step of one row."""

    def __init__(self, static: pts.StaticStream) -> None:
        self.static = static
        static.reset()

    def _step(self, x: Tensor, first: bool, last: bool) -> Optional[Tensor]:
        flags = [torch.tensor([flag]) for flag in (first, last)]
        y, start, stop = self.static(x, torch.tensor([4]), *flags)
        return y[..., int(start) : int(stop)].clone()

    def feed(self, n: int, seed: int) -> Optional[Tensor]:
        for i in range(n % 4 + 1):
            self._step(_signal(4, seed + i), i == 0, False)
        return None

    def rest(self) -> List[Optional[Tensor]]:
        ys = [self._step(_signal(4, 99), False, False), self._step(_signal(4, 98), False, True)]
        return ys + [self._step(_signal(4, 97), False, False) for _ in range(self.static.flush_steps)]

    def get_state(self) -> State:
        return self.static.get_state()

    def set_state(self, state: State) -> None:
        self.static.set_state(None, state)


def _signal(n: int, seed: int) -> Tensor:
    return torch.randn(1, 2, n, generator=torch.Generator().manual_seed(seed))


def damaged(state: State, draw: random.Random) -> Tuple[State, str]:
    """A state with one to three changes, and what they are."""
    made = {key: value.clone() for key, value in state.items()}
    told: List[str] = []
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        if not made:
            break
        key = draw.choice(sorted(made))
        value = made[key]
        if not isinstance(value, Tensor) or value.is_meta or value.is_sparse:
            continue  # damaged enough
        kind = draw.choice(["shape", "shape", "dtype", "number", "number", "name", "value"])
        if kind == "name":
            change = draw.choice(["lose", "rename", "add", "swap"])
            if change == "swap":
                other = draw.choice(sorted(made))
                made[key], made[other] = made[other], value
            else:
                if change != "add":
                    del made[key]
                if change != "lose":
                    made[draw.choice([key + "x", key[1:], "@" + key, "x." + key])] = value
            told.append(f"{change} {key}")
        elif kind == "dtype":
            dtype = draw.choice([torch.float64, torch.float16, torch.int64, torch.int32, torch.bool, torch.complex64])
            made[key] = value.to(dtype)
            told.append(f"{key} as {dtype}")
        elif kind == "value":
            made[key] = draw.choice([value.tolist(), None, value.numpy(), 3, "x", _sparse(value), value.to("meta")])
            told.append(f"{key} a {type(made[key]).__name__}")
        elif value.dim() == 0 or kind == "number":
            steps = [-1, 1, 2, 5, -(1 << 40), 1 << 32, 1 << 62, (1 << 31) - 1, -7]
            if not value.is_floating_point():
                made[key] = value + draw.choice(steps)
                told.append(f"{key} another number")
        else:
            axis = draw.randrange(value.dim())
            n = value.shape[axis]
            index = [list(range(n - 1)), list(range(1, n)), list(range(n)) * 2, list(range(n)) * 3, []]
            if draw.random() < 0.7:
                made[key] = value.index_select(axis, torch.tensor(draw.choice(index), dtype=torch.int64))
            else:
                made[key] = draw.choice([value[None], value.flatten(), value.transpose(0, -1), value.new_empty(0)])
            told.append(f"{key} as {list(made[key].shape)}")
    return made, ", ".join(told)


def _sparse(value: Tensor) -> Tensor:
    return value.to_sparse() if value.dim() > 0 and value.numel() > 0 else value.to("meta")


def _numbers(state: State) -> Any:
    # What a state must share with the one it was made of: all but values of samples, and clocks.
    return {
        key: (value.dtype, tuple(value.shape), int(value) if value.dim() == 0 else None)
        for key, value in state.items()
        if not key.endswith("@unbatched")
    }


def _sizes(ys: List[Optional[Tensor]]) -> Any:
    return [None if y is None else (y.dtype, tuple(y.shape)) for y in ys]


def _same(ys: List[Optional[Tensor]], others: List[Optional[Tensor]]) -> bool:
    return _sizes(ys) == _sizes(others) and all(y is None or torch.equal(y, z) for y, z in zip(ys, others, strict=True))


def run(count: int, seed: int, progress: bool = False) -> Dict[str, int]:
    """Damage states so many times; what came of them, by kind.

    Raises:
        AssertionError: a damaged state did harm; the message says which
    """
    draw, found, began = random.Random(seed), {"refused": 0, "accepted": 0}, time.monotonic()
    made = networks()
    subjects: Dict[str, Callable[[], Any]] = {name: lambda make=make: Stream(make) for name, make in made.items()}
    static = pts.StaticStream(made["deep"](), chunk=4)
    subjects["static"] = lambda: Static(static)
    torch.set_grad_enabled(False)
    try:
        told = time.monotonic()
        for i in range(count):
            name = draw.choice(sorted(subjects))
            n = draw.choice([1, 2, 3, 5, 8, 13, 40])
            source, subject = subjects[name](), None
            source.feed(n, 1)
            good = source.get_state()
            bad, what = damaged(good, draw)
            what = f"{name} after {n} samples, {what} (mutation {i} of seed {seed})"
            undamaged = source.rest()
            subject = subjects[name]()
            subject.feed(7, 2)
            before = subject.get_state()
            own = subject.rest()
            subject.set_state(before)
            try:
                subject.set_state(bad)
            except Exception as error:
                scripted = name.endswith("scripted")
                # What is no tensor never reaches a script: TorchScript refuses the call.
                typed = scripted and any(not isinstance(value, Tensor) for value in bad.values())
                ours = isinstance(error, pts.StreamInputError) or (scripted and "StreamInputError: " in str(error))
                assert ours or typed, f"{what}: {type(error).__name__}: {error}"
                found["refused"] += 1
                assert _same(subject.rest(), own), f"{what}: refused, but the stream goes on differently"
            else:
                found["accepted"] += 1
                if name == "static":
                    assert {key: v.shape for key, v in bad.items()} == {key: v.shape for key, v in good.items()}, what
                    ys = subject.rest()
                else:
                    assert _numbers(bad) == _numbers(good), f"{what}: accepted"
                    ys = subject.rest()
                    assert _sizes(ys) == _sizes(undamaged), f"{what}: accepted, then wrong"
                assert all(y is None or y.dtype == torch.float32 for y in ys), what
            if progress and time.monotonic() - told > 2:
                told = time.monotonic()
                print(f"{told - began:6.1f} s: {i + 1} of {count}, {found}", flush=True)
    finally:
        torch.set_grad_enabled(True)
    return found


if __name__ == "__main__":
    print(run(int(sys.argv[1]), int(sys.argv[2]), progress=True))
