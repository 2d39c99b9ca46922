"""Random models for hypothesis: directed graphs of operations on a signal, at several rates, that can be streamed.

A model is a list of statements, which `RandomGraph` puts into a forward of its own. They are drawn one after another,
and each is run at once on signals of every length up to 240: it stays only if it works from some length on, so two
branches are joined only where their lengths allow it. What does not lead to the output is taken out in the end.
"""

import math
import random
import warnings
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Dict, List, Optional, Sequence

import random_steps
import torch
from hypothesis import assume
from hypothesis import strategies as st
from random_model import LONGEST, MODULES, RandomGraph, new_member
from torch import Tensor, nn

LARGEST = 300.0  # values beyond it lose digits
MOST_UP, MOST_DOWN, LONGEST_HOP = 8, 24, 48


@dataclass
class Value:
    """A tensor that later statements may use. The layout is "bct", "btc" or "bcft"."""

    name: str
    layout: str
    channels: int
    bands: int = 1
    rate: Fraction = Fraction(1)
    up: int = 1
    down: int = 1
    hop: int = 1  # input samples after which its length goes on as before

    @property
    def length(self) -> str:
        return f"{self.name}.shape[{1 if self.layout == 'btc' else -1}]"

    def cut(self, part: str) -> str:
        """Source of a slice over time."""
        return f"{self.name}[:, {part}]" if self.layout == "btc" else f"{self.name}[..., {part}]"


class Builder:
    """Statements under construction, and their values at every length at which they work."""

    def __init__(self, seed: int, channels: int, multiple: int) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.multiple = multiple
        self.channels = channels
        self.members: Dict[str, str] = {}
        self.home = nn.Module()
        self.lines: List[str] = []
        self.count = 0
        self.pool = [Value("x", "bct", channels, hop=multiple)]
        generator = torch.Generator().manual_seed(seed)
        self.scopes: Dict[int, Dict[str, Any]] = {
            n: {"x": torch.randn(1, channels, n, generator=generator, dtype=torch.float64)}
            for n in range(multiple, LONGEST + 1, multiple)
        }

    # -- drawing

    def int(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def of(self, choices: Sequence[Any]) -> Any:
        return self.random.choice(choices)

    def rarely(self) -> bool:
        return self.random.random() < 0.2

    def flag(self) -> bool:
        return self.random.random() < 0.5

    def pick(self, *layouts: str) -> Optional[Value]:
        """A value of the pool, most often the newest."""
        values = [value for value in self.pool if not layouts or value.layout in layouts]
        if not values:
            return None
        back = self.of([0, 0, 0, 0, 0, 0, 1, 2, 3])
        return values[-1 - min(back, len(values) - 1)]

    def stride(self, value: Value) -> int:
        """A factor by which the value's rate may go down."""
        return self.of([s for s in (1, 1, 2, 3, 4) if self.fits(value, 1, s)])

    def factor(self, value: Value) -> int:
        """A factor by which the value's rate may go up."""
        return self.of([s for s in (1, 2, 3, 4) if self.fits(value, s, 1)])

    @staticmethod
    def fits(value: Value, up: int, down: int) -> bool:
        return value.up * up <= MOST_UP and value.down * down <= MOST_DOWN and hop_after(value, down) <= LONGEST_HOP

    # -- members

    def member(self, source: str) -> str:
        name = f"m{len(self.members)}"
        self.members[name] = source
        setattr(self.home, name, new_member(name, source, self.seed))
        return f"self.{name}"

    def parameter(self, *shape: int) -> str:
        return self.member(
            f"{self.of(['nn.Parameter', 'nn.Parameter', 'nn.Buffer'])}(torch.zeros{shape})".replace(",)", ")")
        )

    def scale(self, value: Value) -> str:
        """A parameter with an entry per channel."""
        return self.parameter(
            *{"bct": (value.channels, 1), "btc": (value.channels,)}.get(value.layout, (value.channels, 1, 1))
        )

    # -- statements

    def run(self, line: str, steady: bool = False) -> bool:
        """Append a statement, if it works from some length on and its values stay finite and small."""
        code = compile(line, "<line>", "exec")
        scope = {**MODULES, "self": self.home}
        scopes: Dict[int, Dict[str, Any]] = {}
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for n, values in self.scopes.items():
                local = dict(values)
                try:
                    exec(code, scope, local)
                except (RuntimeError, IndexError, ValueError):
                    assert not steady, line
                    continue
                new = [v for k, v in local.items() if isinstance(v, Tensor) and values.get(k) is not v]
                if all(v.numel() for v in new):
                    scopes[n] = local
                    if not steady and n % 29 == 0 and not all(float(v.abs().max()) < LARGEST for v in new):
                        return False
        # Only lengths above all that failed.
        failed = max((n for n in self.scopes if n not in scopes), default=0)
        if failed > LONGEST // 2:
            return False
        self.scopes = {n: values for n, values in scopes.items() if n > failed}
        self.lines.append(line)
        return True

    def let(self, source: str, letter: str = "v") -> Optional[str]:
        """Assign to a new name that is not in the pool."""
        name = f"{letter}{self.count}"
        self.count += 1
        return name if self.run(f"{name} = {source}") else None

    def emit(self, source: str, like: Value, up: int = 1, down: int = 1, **changes: Any) -> Optional[Value]:
        """Assign to a new value of the pool that is as ``like`` but for the changes."""
        if not self.fits(like, up, down):
            return None
        name = self.let(source)
        if name is None:
            return None
        value = replace(
            like,
            name=name,
            rate=like.rate * up / down,
            up=like.up * up,
            down=like.down * down,
            hop=hop_after(like, down),
            **changes,
        )
        shape = self.scopes[LONGEST // self.multiple * self.multiple][name].shape
        c, f = value.channels, value.bands
        expected = {"bct": (1, c, -1), "btc": (1, -1, c), "bcft": (1, c, f, -1)}[value.layout]
        assert len(shape) == len(expected), (source, shape, expected)
        assert all(e in (-1, s) for s, e in zip(shape, expected, strict=True)), (source, shape, expected)
        self.pool.append(value)
        return value

    def lengths(self, value: Value) -> List[int]:
        axis = 1 if value.layout == "btc" else -1
        return [values[value.name].shape[axis] for values in self.scopes.values()]

    def may_write(self, value: Value) -> bool:
        """Whether the value may be changed in place. Its views, or what it is a view of, are not used any more then."""
        shared = set()
        for values in self.scopes.values():
            tensor = values[value.name]
            if torch._debug_has_internal_overlap(tensor) != 0:
                return False
            place = tensor.untyped_storage().data_ptr()
            shared |= {
                other.name
                for other in self.pool
                if other is not value and values[other.name].untyped_storage().data_ptr() == place
            }
        self.pool = [other for other in self.pool if other.name not in shared]
        return True


def hop_after(value: Value, down: int) -> int:
    return value.hop * down // math.gcd(int(value.hop * value.rate), down)


@st.composite
def graphs(
    draw: Any, max_steps: int = 12, steps: Sequence[Any] = random_steps.STEPS, kind: Sequence[Any] = ()
) -> RandomGraph:
    """Random models ``[B, C, T] -> [B, C', T']`` that can be streamed.

    Args:
        max_steps: number of steps drawn at most; one that fits nowhere is left out
        steps: the steps to draw from
        kind: steps of which every model holds one

    Returns:
        a strategy of models in eval mode, float64, that work at all lengths from ``model.shortest`` on which are
        multiples of ``model.length_multiple``; ``model.example_length`` is one of them. It shrinks by leaving steps out
    """
    multiple = draw(st.sampled_from([1, 1, 1, 1, 1, 2, 3, 4, 6, 8]))
    builder = Builder(draw(st.integers(0, 2**31)), draw(st.sampled_from([2, 3, 4, 6])), multiple)
    # The arguments of a step come from a seed of its own, so that they stay when other steps are left out.
    step = st.tuples(st.sampled_from(steps), st.integers(0, 2**31))
    taken = draw(st.lists(step, min_size=min(5, max_steps), max_size=max_steps))
    if kind:
        taken.insert(draw(st.integers(0, len(taken))), draw(st.tuples(st.sampled_from(kind), st.integers(0, 2**31))))
    for take, seed in taken:
        builder.random.seed(builder.seed * 2**31 + seed)
        take(builder)
    builder.random.seed(builder.seed)
    made = not kind
    for _ in range(8):
        count = len(builder.lines)
        if not made:
            builder.of(kind)(builder)
            made = len(builder.lines) > count
    assume(made)
    out = random_steps.joined_ends(builder)
    assume(builder.lines)
    whole = RandomGraph(
        builder.members, [*builder.lines, f"return {out.name}"], builder.seed, builder.channels, multiple
    )
    model = whole.without_dead_lines()
    assume(len(model.lines) > 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assume(model.measure(out.hop))
    model.example_length += multiple * builder.int(0, max(1, 24 // multiple))
    return model
