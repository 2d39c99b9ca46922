"""The ways to compute a step, of which `compile` keeps the fastest: each is made, compared and timed in turn."""

import time
from dataclasses import dataclass
from typing import List, NamedTuple, Optional, Sequence, Set, Tuple

from torch import fx

from ..core.telling import Telling
from ..errors import StreamError
from .backends import BACKENDS, KERNELS, Program, quietly
from .few_rows import few_rows_pay
from .steady import SteadyStep
from .trials import difference, seconds

__all__ = ["FORMS", "Candidate", "Search", "Way"]

# Forms of the step that each backend can run.
FORMS = {
    "aot": ("rows", "unfolded", "winograd", "channels"),
    "inductor": ("rows", "channels"),
    "onnx": ("channels",),
    "cudagraph": ("rows", "unfolded", "channels"),
    "eager": ("rows", "channels"),
    "stream": ("own",),
}

# A step of so many seconds costs what its kernels do.
_LONG = 1e-3

_NEVER = float("inf")
_clock = time.monotonic


@dataclass(frozen=True)
class Candidate:
    """One way to compute the step, tried on this machine.

    Attributes:
        backend: ``"aot"``, ``"inductor"``, ``"onnx"``, ``"cudagraph"``, ``"eager"``, or ``"stream"`` for the stream's
            own step
        form: ``"rows"``, convolutions as products of rows, ``"unfolded"``, one product each however long the chunk,
            ``"winograd"``, with fewer products by Winograd's minimal filtering, ``"channels"``, as torch's convolution,
            or ``"own"``
        seconds: time of a step, ``inf`` if it failed or was left out
        error: largest difference from the stream's own step, relative to the scale
        kernels: ``"few rows"``, products that ask for large weights ahead of their use; ``"tuned"``, the compiler
            tried them out; ``"packed"``, oneDNN's with weights laid out for them; ``"fused"``, on a GPU, made by
            Inductor of what stands between the products; or ""
        reason: why it failed, or was left out, or ""
    """

    backend: str
    form: str
    seconds: float
    error: float
    kernels: str = ""
    reason: str = ""

    def __str__(self) -> str:
        result = self.reason or f"{self.seconds * 1e6:.1f} µs, error {self.error:.1e}"
        return f"{Way(self.backend, self.form, self.kernels)}: {result}"


class Way(NamedTuple):
    """What to make a step with."""

    backend: str
    form: str
    kernels: str

    def __str__(self) -> str:
        return ", ".join(filter(None, self))


class Search:
    """Tries ways to compute a step.

    Args:
        tolerance: largest difference from the stream's own step
        autotune: whether the compilers try kernels out
        telling: is told every way, and what came of it
        time_limit_s: seconds from now on after which, once some way works, no other is begun

    Attributes:
        candidates: what was tried or left out
        program: the fastest, ``None`` for the stream's own step
    """

    def __init__(self, tolerance: float, autotune: bool, telling: Telling, time_limit_s: Optional[float]) -> None:
        self.tolerance = tolerance
        self.autotune = autotune
        self.telling = telling
        self.limit = _NEVER if time_limit_s is None else time_limit_s
        self.start = _clock()
        self.candidates: List[Candidate] = []
        self.program: Optional[Program] = None
        self._best = _NEVER
        self._form = ("", "")  # the one that is recorded, by backend and name
        self._graph: Optional[fx.GraphModule] = None
        self._codes: Set[Tuple[str, str]] = set()
        self._known: Set[Tuple[str, str]] = set()  # forms that are as others before
        self._few: Set[Tuple[str, str]] = set()  # forms whose products have few rows and large weights

    def run(self, steady: SteadyStep, backends: Sequence[str]) -> None:
        """Try all that these can do with a step, as far as the time goes; candidates are the fastest first then."""
        ways = [Way(name, form, kernels) for name in backends for form in FORMS[name] for kernels in KERNELS[name]]
        for i, way in enumerate(ways):
            over = self._best < _NEVER and _clock() - self.start >= self.limit
            if way.kernels == "few rows" and not over and way[:2] not in self._known:
                self._record(steady, way)  # which tells whether it is worth anything
            if not self._is_worth(way):
                continue
            if over:
                self._add(way, _NEVER, _NEVER, f"left out, as the {self.limit:g} s of time_limit_s were over")
                continue
            self.telling.expect(sum(map(self._is_worth, ways[i:])))
            self.telling.begin(str(way))
            self._record(steady, way)
            if way[:2] in self._known:
                self.telling.over(f"{way}: for this chunk the same as a form before")
            else:
                self._try(steady, way)
                self.telling.over(str(self.candidates[-1]))
        self.candidates.sort(key=lambda candidate: candidate.seconds)

    def _is_worth(self, way: Way) -> bool:
        """Whether a way promises anything, as far as is known by now."""
        if way[:2] in self._known:
            return False
        others = [one for one in self.candidates if one.backend != "stream"]
        long = any(_LONG < one.seconds < _NEVER for one in others)
        if way.backend == "inductor" and long and all(one.backend != "inductor" for one in others):
            return False  # its kernels are AOTInductor's: only what a call costs can be less
        # What can be packed, or tried out, is products. Packed ones pay in long steps only, and there always.
        products = "packed" in KERNELS[way.backend] and way.form != "channels"
        if way.kernels == "few rows":
            return way[:2] in self._few
        if way[:2] in self._few and not self.autotune and any(_same(one, way) and not one.reason for one in others):
            return False  # it has the better products
        if way.kernels in ("tuned", "fused"):
            return self.autotune and (products or way.kernels == "fused")
        return (way.kernels == "packed") == (products and long and not self.autotune)

    def _record(self, steady: SteadyStep, way: Way) -> None:
        if way[:2] == self._form:
            return
        self._form = way[:2]
        self._graph = None if way.backend == "stream" else steady.record(way.form)
        code = (way.backend, "" if self._graph is None else self._graph.code)
        if code in self._codes:  # the forms of a short chunk may be the same
            self._known.add(way[:2])
        self._codes.add(code)
        if self._graph is not None and "few rows" in KERNELS[way.backend] and few_rows_pay(self._graph):
            self._few.add(way[:2])

    def _add(self, way: Way, seconds: float, error: float, reason: str = "") -> None:
        self.candidates.append(Candidate(way.backend, way.form, seconds, error, way.kernels, reason))

    def _try(self, steady: SteadyStep, way: Way) -> None:
        graph, program, error = self._graph, None, 0.0
        if graph is not None:
            try:
                inputs = [steady.x, *steady.states]
                program = quietly(lambda: BACKENDS[way.backend](graph, inputs, way.kernels))
                error = difference(steady, program)
            except StreamError:
                raise
            except Exception as failure:  # a compiler that is missing, or does not know an operation
                text = (str(failure).strip().splitlines() or [type(failure).__name__])[0]
                return self._add(way, _NEVER, _NEVER, text[:200])
        if not error <= self.tolerance:
            return self._add(way, _NEVER, error, f"differs by {error:.1e} of the scale")
        took = seconds(steady, program)
        self._add(way, took, error)
        if took < self._best:
            self._best, self.program = took, program  # of the others nothing is kept


def _same(candidate: Candidate, way: Way) -> bool:
    return (candidate.backend, candidate.form) == way[:2]
