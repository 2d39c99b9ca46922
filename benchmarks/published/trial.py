"""One published model: built, streamed in several chunkings and lengths, compared with itself on the whole signal."""

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

import torchstreamer as pts

from .imports import reach
from .listing import Model, Package

__all__ = ["load", "try_model", "warm_up"]

# Relative to the largest value; of models that compute in float32 whatever comes, no more can be asked for.
TOLERANCE, SINGLE = 1e-9, 2e-5
# Calls that one chunking may take; the rest of the signal comes in one piece.
CALLS = 160

# What the setup of a package left, which is run once.
_set_up: dict[Package, dict[str, Any]] = {}


def leaves(value: Any) -> list[Tensor | None]:
    """Tensors of an output, whatever structure they come in."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in leaves(item)]
    if dataclasses.is_dataclass(value):
        return [leaf for field in dataclasses.fields(value) for leaf in leaves(getattr(value, field.name))]
    return [None]


def reference(model: Any, select: int | tuple[int, ...] | None) -> Callable[..., list[Tensor]]:
    """The model on a whole signal, which it may write into: the tensors of the outputs that are selected."""

    def run(*xs: Any) -> list[Tensor]:
        answer = model(*(x.clone() if isinstance(x, Tensor) else x for x in xs))
        if isinstance(select, int):
            answer = answer[select]
        elif select is not None:
            answer = [answer[k] for k in select]
        return [leaf for leaf in leaves(answer) if leaf is not None]

    return run


class Signals:
    """Inputs of any length with the values of an example, moved about along time."""

    def __init__(self, example: Any, time_dim: Any) -> None:
        self.several = isinstance(example, tuple)
        self.example: tuple[Any, ...] = example if self.several else (example,)
        dims = time_dim if isinstance(time_dim, tuple) else (time_dim,) * len(self.example)
        self.dims = [d if d is None or d >= 0 else d + x.dim() for d, x in zip(dims, self.example, strict=True)]
        first = next(i for i, d in enumerate(self.dims) if d is not None)
        self.base = self.example[first].shape[self.dims[first]]

    def of(self, n: int) -> tuple[Any, ...]:
        """All inputs of a signal with ``n`` samples in the first that has a time axis."""
        whole = []
        for x, dim in zip(self.example, self.dims, strict=True):
            if dim is None:
                whole.append(x)
            else:
                index = torch.randint(x.shape[dim], (n * x.shape[dim] // self.base,))
                whole.append(x.index_select(dim, index))
        return tuple(whole)

    def pieces(self, whole: tuple[Any, ...], n: int, sizes: list[int]) -> Iterator[tuple[Any, ...]]:
        """The same in chunks of so many samples."""
        start = 0
        for size in sizes:
            chunk = []
            for x, dim in zip(whole, self.dims, strict=True):
                if dim is None:
                    chunk.append(x if start == 0 else None)
                else:
                    begin, end = (at * x.shape[dim] // n for at in (start, start + size))
                    chunk.append(x.narrow(dim, begin, end - begin) if end > begin else None)
            start += size
            yield tuple(chunk)

    def filled(self, whole: tuple[Any, ...], n: int, start: int, size: int, chunk: int) -> list[Any]:
        """A piece of so many samples, filled up to a chunk by nothing; static inputs as they are."""
        pieces = []
        for x, dim in zip(whole, self.dims, strict=True):
            if dim is not None:
                begin, end, due = (at * x.shape[dim] // n for at in (start, start + size, chunk))
                rest = list(x.shape)
                rest[dim] = due - (end - begin)
                x = torch.cat([x.narrow(dim, begin, end - begin), x.new_zeros(rest)], dim)
            pieces.append(x)
        return pieces


def chunkings(n: int, hop: int, all_of_them: bool) -> Iterator[list[int]]:
    """Sizes of chunks: random ones; for all of them also one sample each, whole hops, all at once."""
    generator, sizes = torch.Generator().manual_seed(n), []
    largest = max(3 * hop, 20, 8 * n // CALLS)
    while sum(sizes) < n:
        sizes.append(min(n - sum(sizes), int(torch.randint(1, largest, [1], generator=generator))))
    yield sizes
    if all_of_them:
        for size in (1, hop):
            count = min(n // size, CALLS)
            yield [size] * count + ([n - size * count] if n > size * count else [])
        yield [n]


def streamed(stream: Any, signals: Signals, whole: tuple[Any, ...], n: int, sizes: list[int]) -> list[list[Tensor]]:
    """What comes out, piece by piece, of each leaf of the output."""
    collected: list[list[Tensor]] = []
    plain = not signals.several
    for chunk in signals.pieces(whole, n, sizes):
        answer = leaves(stream(chunk[0]) if plain else stream(*chunk))
        collected.append(answer)  # type: ignore[arg-type]
    collected.append(leaves(stream.flush()))  # type: ignore[arg-type]
    count = max(len(piece) for piece in collected)
    return [[piece[k] for piece in collected if len(piece) == count and piece[k] is not None] for k in range(count)]


def difference(pieces: list[Tensor], expected: Tensor) -> float:
    """The largest difference relative to the largest value; infinite where the shapes are not those of the whole."""
    if not pieces:
        return 0.0 if expected.numel() == 0 else float("inf")
    for axis in reversed(range(expected.dim())):
        if sum(piece.shape[axis] for piece in pieces) != expected.shape[axis] or pieces[0].dim() != expected.dim():
            continue
        with contextlib.suppress(RuntimeError):
            joined = torch.cat(pieces, axis)
            if joined.shape == expected.shape:
                if joined.dtype in (torch.bool, torch.int64, torch.int32):
                    return float((joined != expected).float().mean())
                scale = float(expected.abs().max().clamp(min=1e-30))
                return float((joined - expected).abs().max()) / scale
    return float("inf")


def compare(
    whole_model: Callable[..., list[Tensor]], stream: Any, signals: Signals, entry: Model, quick: bool
) -> dict[str, Any]:
    """The worst difference over lengths and chunkings."""
    least = max(entry.minimum or signals.base // 2, entry.step)
    tried = [signals.base, least // entry.step * entry.step, signals.base + entry.step, signals.base + 3 * entry.step]
    if quick:
        tried = [signals.base, signals.base + entry.step]
    hop = stream.hop if isinstance(stream.hop, int) else 1
    worst, lengths = 0.0, 0
    begin = time.process_time()
    for n in dict.fromkeys(tried):
        whole = signals.of(n)
        try:
            expected = whole_model(*whole)
        except Exception:
            continue  # the model itself takes no such length
        lengths += 1
        for sizes in chunkings(n, min(hop, n), n == signals.base and not quick):
            stream.reset()
            found = streamed(stream, signals, whole, n, sizes)
            if len(found) != len(expected):
                return {"difference": float("inf"), "where": f"{len(found)} outputs instead of {len(expected)}"}
            for pieces, leaf in zip(found, expected, strict=True):
                apart = difference(pieces, leaf)
                if not apart <= worst:
                    worst = apart
                    if not apart <= (SINGLE if entry.single else TOLERANCE):
                        counts = f"chunks {sizes[:4]}… of {n} samples"
                        return {"difference": worst, "where": counts}
            if time.process_time() - begin > 40 and lengths > 1:
                break
    return {"difference": worst, "lengths": lengths}


def bytes_of(value: Any) -> int:
    """Bytes of all tensors of a state."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return sum(bytes_of(item) for item in value)
    return 0


def latency_of(stream: Any, signals: Signals) -> float | None:
    """Input samples by which the first output lags behind at most, measured sample by sample on one signal."""
    ratio = getattr(stream, "ratio", None)
    if not (isinstance(ratio, tuple) and len(ratio) == 2 and isinstance(ratio[0], int)) or not hasattr(stream, "hop"):
        return None
    if signals.several:
        return None
    n = signals.base
    most = 0.0
    with contextlib.suppress(Exception):
        for came in range(1, n + 1):
            most = max(most, came - stream.output_length(came, False) * ratio[1] / ratio[0])
        return most
    return None


def scripted(stream: Any, signals: Signals) -> str:
    """Whether the stream scripts and says the same."""
    script = torch.jit.script(stream)
    whole = signals.of(signals.base)
    stream.reset()
    with torch.jit.optimized_execution(False):  # which would take its time, for a single call
        mine, its = leaves(stream(*whole)), leaves(script(*whole))
    for a, b in zip(mine, its, strict=True):
        if (a is None) != (b is None) or (a is not None and b is not None and difference([b], a) > 1e-9):
            raise AssertionError("the script says something else")
    return "yes"


def static_rows(whole_model: Callable[..., list[Tensor]], stream: Any, signals: Signals) -> str:
    """Whether two rows, one of which begins a step later, equal the whole signals."""
    multiple = int(getattr(stream, "length_multiple", 1))
    chunk = stream.hop * max(1, -(-8 // stream.hop))
    stream.reset()
    static = pts.StaticStream(stream, chunk, batch=2)
    steps = max(2, -(-signals.base // chunk))
    n = steps * chunk // multiple * multiple or multiple
    wholes = [signals.of(n) for _ in range(2)]
    axes = [source.rows for source in static.sources]
    several = static.channels < 0  # inputs or outputs, or another layout than [B, C, T]
    outs: list[list[list[Tensor]]] = [[], []]
    for turn in range(steps + 1 + static.flush_steps):
        lengths, first, last = (torch.zeros(2, dtype=kind) for kind in (torch.int64, torch.bool, torch.bool))
        rows = []
        for row in range(2):
            begin = min(max(turn - row, 0) * chunk, n)
            size = min(chunk, n - begin) if turn >= row else 0
            lengths[row] = size
            first[row], last[row] = turn == row, size > 0 and begin + size == n
            rows.append(signals.filled(wholes[row], n, begin, size, chunk))
        xs = tuple(torch.cat(pair, axis) for pair, axis in zip(zip(*rows, strict=True), axes, strict=True))
        answers = [leaves(answer) for answer in static(xs if signals.several else xs[0], lengths, first, last)]
        for row in range(2):
            pieces = []
            for result, (y, start, stop) in zip(static.results, zip(*answers, strict=True), strict=True):
                own = y.narrow(result.rows, row, 1)
                time_dim = result.time if several else y.dim() - 1
                pieces.append(own.narrow(time_dim, int(start[row]), int(stop[row] - start[row])).clone())
            outs[row].append(pieces)
    for row in range(2):
        for k, leaf in enumerate(whole_model(*wholes[row])):
            apart = difference([pieces[k] for pieces in outs[row]], leaf)
            if not apart <= TOLERANCE:
                raise AssertionError(f"rows differ by {apart:.1e}")
    return "yes"


def exported(stream: Any) -> str:
    """Whether a ``.pt`` file of it is written and loaded."""
    with TemporaryDirectory() as folder:
        stream.reset()
        path = Path(folder) / "stream.pt"
        pts.export(stream, path)
        pts.load(path)
    return "yes"


def _told(error: BaseException) -> str:
    code = getattr(error, "code", "")
    text = " ".join(str(error).split())
    text = text if code and text.startswith(code) else f"{type(error).__name__}: {text}"
    return text.replace(str(Path.home()), "~")[:400]


def _asked(what: Any, *args: Any) -> str:
    try:
        return str(what(*args))
    except Exception as error:
        return "no: " + _told(error)[:160]


def warm_up() -> None:
    """Load what every capture needs, once for all."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)

    class Residual(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv1d(1, 1, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.conv(x)

    torch.jit.script(pts.create_stream(Residual().eval(), example=torch.randn(1, 1, 40)))


def load(package: Package, models: Sequence[Model], folder: Path) -> None:
    """Make a package importable, and import what its models need, as far as that goes."""
    torch.set_default_dtype(torch.float64)
    reach(folder, package.bare, package.stand_ins)
    scope: dict[str, Any] = {"__name__": "published_model"}
    with contextlib.suppress(Exception):
        exec(package.setup, scope)
        _set_up[package] = dict(scope)
    for entry in models:
        for line in entry.build.splitlines():
            if line.startswith(("import ", "from ")) and not line.endswith("("):
                with contextlib.suppress(Exception):
                    exec(line, scope)


def try_model(package: Package, entry: Model, quick: bool = False) -> dict[str, Any]:
    """Build a model, make its stream, compare; what is told of it in the table. Quickly, no exports."""
    torch.manual_seed(0)
    scope = _set_up.get(package)
    if scope is None:
        scope = {"__name__": "published_model"}
        exec(package.setup, scope)
    exec(entry.build, scope)
    scope |= {"torch": torch, "pts": pts, "model": scope["model"].double()}
    model = scope["model"].requires_grad_(False)
    signals = Signals(eval(entry.example, scope), entry.time_dim)
    whole_model = reference(model, entry.select)
    told: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
    with torch.no_grad():
        whole_model(*signals.example)
        begin = time.process_time()
        try:
            exec(entry.call(), scope)
        except pts.StreamError as error:
            seconds = time.process_time() - begin
            return told | {"result": "refused", "creation_s": seconds, "code": error.code, "reason": _told(error)}
        except Exception as error:
            seconds = time.process_time() - begin
            code = "raw " + type(error).__name__
            return told | {"result": "error", "creation_s": seconds, "code": code, "reason": _told(error)}
        told["creation_s"] = time.process_time() - begin
        stream = scope["stream"]
        told["hop"] = stream.hop if isinstance(stream.hop, int) else None
        try:
            told |= compare(whole_model, stream, signals, entry, quick)
        except Exception as error:
            known = isinstance(error, pts.StreamError)
            code = error.code if isinstance(error, pts.StreamError) else "raw " + type(error).__name__
            return told | {
                "result": "refused" if known else "error",
                "code": code,
                "reason": "running: " + _told(error),
            }
        if not told["difference"] <= (SINGLE if entry.single else TOLERANCE):
            return told | {"result": "wrong", "code": "wrong", "reason": f"{told['difference']:.1e}, {told['where']}"}
        told["result"] = "exact"
        stream.reset()
        whole = signals.of(signals.base)
        stream(*whole)
        told["state_bytes"] = bytes_of(stream.get_state())
        stream.reset()
        told["latency"] = latency_of(stream, signals)
        told["script"] = _asked(scripted, stream, signals)
        told["static_rows"] = _asked(static_rows, whole_model, stream, signals)
        if quick:
            return told
        told["export"] = _asked(exported, stream) if told["script"] == "yes" else "no: it does not script"
    return told
