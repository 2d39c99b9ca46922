"""A model whose forward is a list of statements."""

import ast
import linecache
import math
import zlib
from typing import Any, Dict, List, Optional, Sequence, Set, Tuple

import torch
import torch.nn.functional as F
import user_code
from torch import Tensor, nn

import torchstreamer as pts

LONGEST = 240  # lengths at which statements are tried
MODULES = {"torch": torch, "F": F, "nn": nn, "pts": pts, "math": math, "user_code": user_code}


class RandomGraph(nn.Module):
    """A model whose forward is a list of statements.

    Args:
        members: Python source of the parameters, buffers and modules, by name
        lines: the statements; the input is ``x``, members are ``self.…``, and the last one returns
        seed: of the weights
        channels: of the input
        length_multiple: the lengths at which the model is defined are multiples of it
    """

    def __init__(
        self, members: Dict[str, str], lines: Sequence[str], seed: int = 0, channels: int = 2, length_multiple: int = 1
    ) -> None:
        super().__init__()
        self.sources = dict(members)
        self.lines = list(lines)
        self.seed = seed
        self.channels = channels
        self.length_multiple = length_multiple
        self.shortest = self.example_length = self.hop = length_multiple
        self.odd = False  # below the shortest length it gives something too, as crops of less than nothing do
        self.code: Any = None
        for name, source in members.items():
            setattr(self, name, new_member(name, source, seed))
        self.eval()
        text = "def forward(self, x):\n" + "".join(f"    {line}\n" for line in self.lines)
        # Known to linecache, so that stack traces show the statements.
        file = f"<graph {zlib.crc32(text.encode()):08x}>"
        linecache.cache[file] = (len(text), None, text.splitlines(True), file)
        scope: Dict[str, Any] = dict(MODULES)
        exec(compile(text, file, "exec"), scope)
        self.statements = scope["forward"]

    def forward(self, x: Tensor) -> Tensor:
        return self.statements(self, x)

    def signal(self, n: int, rows: int = 1, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(rows, self.channels, n, generator=generator, dtype=torch.float64)

    def describe(self) -> str:
        """The model as Python source."""
        lines = [f"# x: [B, {self.channels}, T] float64; works from T = {self.shortest} on"]
        lines += [f"# weights: RandomGraph.fill with seed {self.seed}; example: T = {self.example_length}"]
        if self.length_multiple > 1:
            lines += [f"# length_multiple = {self.length_multiple}"]
        lines += ["class Model(nn.Module):", "    def __init__(self):", "        super().__init__()"]
        lines += [f"        self.{name} = {source}" for name, source in self.sources.items()]
        lines += ["", "    def forward(self, x):", *(f"        {line}" for line in self.lines)]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return "RandomGraph\n" + self.describe()

    def without_dead_lines(self) -> "RandomGraph":
        """The same model without the statements and members that its output does not need."""
        needed: Set[str] = set()
        lines: List[str] = []
        for line in reversed(self.lines):
            written, read = names(line)
            if written is None or written & needed:
                needed |= read
                lines.insert(0, line)
        members = {name: source for name, source in self.sources.items() if f"self.{name}" in needed}
        return RandomGraph(members, lines, self.seed, self.channels, self.length_multiple)

    def measure(self, hop: int) -> bool:
        """Find the shortest length from which on all works, no value is empty and lengths go on in steps of ``hop``."""
        step = self.length_multiple
        shapes = {n: self.shapes(n) for n in range(step, LONGEST + 1, step)}
        last = max(shapes)
        growth = grown(shapes[last - hop], shapes[last])
        n = last - hop
        while n > 0 and growth is not None and grown(shapes[n], shapes[n + hop]) == growth:
            n -= step
        self.hop = hop
        self.shortest = n + step
        self.odd = any(self.works(m) for m in range(step, self.shortest, step))
        # Long enough that no axis is short by chance, which a capture would take for granted.
        long = (m for m in range(self.shortest, last - hop, step) if m >= 16 and self.long_enough(shapes[m], growth))
        self.example_length = next(long, 0)
        return growth is not None and self.example_length > 0

    def works(self, n: int) -> bool:
        try:
            return self.values(self.signal(n))[-1].numel() > 0
        except (RuntimeError, IndexError, ValueError):
            return False

    @staticmethod
    def long_enough(shape: Optional[List[int]], growth: Optional[List[int]]) -> bool:
        assert shape is not None and growth is not None
        return all(size >= 4 or grows == 0 for size, grows in zip(shape, growth, strict=True))

    def shapes(self, n: int) -> Optional[List[int]]:
        """Sizes of all that is assigned, for ``n`` samples; ``None`` where something raises or is empty."""
        try:
            values = self.values(self.signal(n))
        except (RuntimeError, IndexError, ValueError):
            return None
        sizes = [size for value in values for size in value.shape]
        return sizes if min(sizes) > 0 else None

    def values(self, x: Tensor) -> List[Tensor]:
        """The input and all that the statements assign."""
        if self.code is None:
            lines = [*self.lines[:-1], self.lines[-1].replace("return ", "y = ")]
            self.code = compile("\n".join(lines), "<lines>", "exec")
        scope: Dict[str, Any] = {"x": x}
        with torch.no_grad():
            exec(self.code, {**MODULES, "self": self}, scope)
        return [value for value in scope.values() if isinstance(value, Tensor)]


def grown(shape: Optional[List[int]], later: Optional[List[int]]) -> Optional[List[int]]:
    if shape is None or later is None:
        return None
    return [b - a for a, b in zip(shape, later, strict=True)]


def new_member(name: str, source: str, seed: int) -> Any:
    """A parameter, buffer or module from its source, with weights that depend on seed and name alone."""
    with torch.random.fork_rng(devices=[]):
        made = eval(source, dict(MODULES))
    generator = torch.Generator().manual_seed((seed * 1000003 + zlib.crc32(name.encode())) % 2**62)

    def fill(weight: Tensor) -> None:
        if weight.is_floating_point():
            fan = math.sqrt(max(weight[0].numel(), 1)) if weight.dim() > 1 else 2.0
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64) / fan)

    with torch.no_grad():
        if isinstance(made, nn.Module):
            made.double().eval()
            for weight in made.parameters():
                fill(weight)
            for module in made.modules():
                if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                    module.running_mean.normal_(generator=generator)
                    module.running_var.uniform_(0.5, 1.5, generator=generator)
        else:
            fill(made)
    return made


def names(line: str) -> Tuple[Optional[Set[str]], Set[str]]:
    """What a statement writes (``None``: it returns) and what it reads, members as ``self.…``."""
    statement = ast.parse("def f():\n " + line).body[0].body[0]
    read = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)} - {"self", *MODULES}
    for node in ast.walk(statement):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            read.add(f"self.{node.attr}")
    if isinstance(statement, ast.Return):
        return None, read
    if isinstance(statement, ast.Assign):
        written = {node.id for node in ast.walk(statement.targets[0]) if isinstance(node, ast.Name)}
        return written, read - written
    # In place: what is written is read too.
    if isinstance(statement, ast.AugAssign):
        target = statement.target
    else:
        target = statement.value
        while isinstance(target, ast.Call):  # v.mul_(…), v.add_(…).mul_(…) or F.relu(v, inplace=True)
            owner = target.func.value
            target = target.args[0] if isinstance(owner, ast.Name) and owner.id in MODULES else owner
    return {next(node.id for node in ast.walk(target) if isinstance(node, ast.Name))}, read
