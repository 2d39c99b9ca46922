"""Where in the source of a model something happens, and in which of its modules; found by Python's frames."""

import ast
import functools
import linecache
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from traceback import StackSummary
from types import FrameType, TracebackType
from typing import Any, Callable, Collection, Iterator, List, Optional, Set, Tuple

import torch
from torch import nn
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.fx.proxy import TracerBase

from .exporter_patches import replaced

__all__ = [
    "Place",
    "around",
    "fixing_refused",
    "is_foreign",
    "loop_over",
    "lines_recorded",
    "place_of",
    "statement_at",
    "steps_of",
    "steps_to",
]

_numpy = find_spec("numpy")  # not imported
_OTHERS = tuple(
    os.path.dirname(file) + os.sep
    for file in (os.path.dirname(__file__), torch.__file__, _numpy.origin if _numpy is not None else None)
    if file is not None
)


@dataclass(frozen=True)
class Place:
    """A line of a model's source.

    Attributes:
        path: of the innermost module of the model in whose ``forward`` it is reached
        module: that module
        file: its file; '' if no source of the model's is known
        line: its number
    """

    path: str
    module: nn.Module
    file: str
    line: int

    @property
    def text(self) -> str:
        """File, line and source, as refusals tell them; '' if they are not known."""
        if not self.file:
            return ""
        source = linecache.getline(self.file, self.line).strip()
        return f"{os.path.basename(self.file)}, line {self.line}{f': {source}' if source else ''}"


Step = Tuple[FrameType, int]

_INSTALLED = "site-packages"


def is_foreign(file: str) -> bool:
    """Whether a file is no model's: it is none, or of torch, of NumPy, or of this package."""
    return file.startswith(_OTHERS) or not os.path.exists(file)


def _homes(net: nn.Module) -> Tuple[str, ...]:
    """The folders in which the modules of a model are written: of whole packages; or files among those installed."""
    found: Set[str] = set()
    for kind in {type(module) for module in net.modules()}:
        top = sys.modules.get(kind.__module__.partition(".")[0])
        paths = list(getattr(top, "__path__", ()))
        file = getattr(sys.modules.get(kind.__module__), "__file__", None)
        if not paths and file:
            paths = [file if os.path.dirname(file).endswith(_INSTALLED) else os.path.dirname(file)]
        found |= {path if path == file else path + os.sep for path in paths}
    return tuple(sorted(path for path in found if not path.startswith(_OTHERS)))


def _innermost(files: List[str], homes: Tuple[str, ...]) -> Optional[int]:
    """Of the files that frames lead through, the last of the model; else the last that is no foreign one.

    A helper of another package, as that of einops, is not where the model goes wrong.
    """
    own = [i for i, file in enumerate(files) if not is_foreign(file)]
    home = {i: next((home for home in homes if files[i].startswith(home)), None) for i in own}
    inside = [i for i, path in home.items() if path is not None and _INSTALLED not in files[i][len(path) :]]
    return inside[-1] if inside else own[-1] if own else None


@contextmanager
def lines_recorded(net: nn.Module) -> Iterator[None]:
    """While a model is exported, operations tell the innermost line of its source, that of functions too.

    The exporter tells that of the innermost ``forward``.
    """
    homes = _homes(net)

    def kept(tracer: TracerBase, frames: StackSummary) -> StackSummary:
        begin = next((i for i, frame in enumerate(frames) if frame.name == "forward"), len(frames))
        inside = [frame for frame in frames[begin:] if not is_foreign(frame.filename)]
        at = _innermost([frame.filename for frame in inside], homes)
        return StackSummary.from_list([] if at is None else inside[: at + 1])

    with replaced(TracerBase, "_filter_traceback_frames", kept):
        yield


def place_of(steps: List[Step], net: nn.Module) -> Place:
    """The place that frames lead to.

    Args:
        steps: frames with the lines at which they stand, from the outermost to the innermost
        net: the model
    """
    paths = {module: path for path, module in reversed(list(net.named_modules()))}
    path, module = "", net
    for frame, _ in steps:
        me = frame.f_locals.get("self")
        if isinstance(me, nn.Module) and me in paths:
            path, module = paths[me], me
    at = _innermost([frame.f_code.co_filename for frame, _ in steps], _homes(net))
    if at is None:
        return Place(path, module, "", 0)
    return Place(path, module, steps[at][0].f_code.co_filename, steps[at][1])


def steps_to(frame: Optional[FrameType]) -> List[Step]:
    """The frames that lead to one."""
    found: List[Step] = []
    while frame is not None:
        found.append((frame, frame.f_lineno))
        frame = frame.f_back
    return found[::-1]


def steps_of(traceback: Optional[TracebackType]) -> List[Step]:
    """The frames of an error."""
    found: List[Step] = []
    while traceback is not None:
        found.append((traceback.tb_frame, traceback.tb_lineno))
        traceback = traceback.tb_next
    return found


@contextmanager
def fixing_refused(
    net: nn.Module, lengths: Collection[int], refusal: Callable[[Place, int], Exception]
) -> Iterator[None]:
    """Until its end, the tracer raises where it fixes a size to the length of a signal.

    Whatever it recorded from there on would be for that length only, and would take long, where it unrolls a loop.

    Args:
        net: the model
        lengths: of its signals, which are no size of another axis that may vary
        refusal: makes the error of a place and a length
    """
    replace: Any = ShapeEnv._set_replacement
    outside = sys._getframe(2)

    def refusing(env: ShapeEnv, symbol: Any, target: Any, *args: Any) -> Any:
        if target.is_number and int(target) in lengths and str(symbol)[0] == "s":  # no size made of values
            steps: List[Step] = []
            frame: Optional[FrameType] = sys._getframe(1)
            while frame is not None and frame is not outside:
                steps.append((frame, frame.f_lineno))
                frame = frame.f_back
            raise refusal(place_of(steps[::-1], net), int(target))
        return replace(env, symbol, target, *args)

    with replaced(ShapeEnv, "_set_replacement", refusing):
        yield


# ---------------------------------------------------------------------- what stands there


@functools.lru_cache(maxsize=64)
def _parsed(file: str) -> Optional[ast.Module]:
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return None


def _spanning(tree: Optional[ast.AST], line: int) -> List[Any]:
    found: List[Any] = []
    for node in [] if tree is None else ast.walk(tree):
        first, last = getattr(node, "lineno", None), getattr(node, "end_lineno", None)
        if first is not None and last is not None and first <= line <= last:
            found.append(node)
    return sorted(found, key=lambda node: (node.lineno, -node.end_lineno))


def _function(file: str, line: int) -> Optional[ast.AST]:
    """The innermost function of a file that a line belongs to."""
    found = [node for node in _spanning(_parsed(file), line) if isinstance(node, ast.FunctionDef)]
    return found[-1] if found else _parsed(file)


def around(file: str, line: int) -> List[Any]:
    """The nodes of a function that a line belongs to, the outermost first."""
    function = _function(file, line)
    return [node for node in _spanning(function, line) if node is not function]


def statement_at(place: Place) -> Optional[ast.AST]:
    """What decides by a value at a place: an assertion, a branch or a loop that asks one, or ``None``."""
    found: Optional[ast.AST] = None
    for node in around(place.file, place.line) if place.file else []:
        asks = isinstance(node, (ast.Assert, ast.IfExp))
        if isinstance(node, (ast.If, ast.While)):
            last = node.test.end_lineno
            asks = last is not None and node.lineno <= place.line <= last
        found = node if asks else found
    return found


def loop_over(place: Place) -> Optional[Tuple[Place, bool]]:
    """The loop or comprehension that goes over what is made at a place, and whether each turn needs the one before."""
    nodes = around(place.file, place.line) if place.file else []
    made = {name for node in nodes if isinstance(node, ast.Assign) for each in node.targets for name in _names(each)}
    inside = _function(place.file, place.line) if place.file else None
    for node in [] if inside is None else ast.walk(inside):
        if isinstance(node, (ast.For, ast.While)):
            source: Optional[ast.AST] = node.iter if isinstance(node, ast.For) else node.test
        else:
            source = node.generators[0].iter if isinstance(node, (ast.ListComp, ast.GeneratorExp)) else None
        if source is None:
            continue
        here = source.lineno <= place.line <= (source.end_lineno or source.lineno)  # type: ignore[attr-defined]
        later = node.lineno >= place.line and bool(made & set(_names(source)))  # type: ignore[attr-defined]
        if here or later:
            at = Place(place.path, place.module, place.file, node.lineno)  # type: ignore[attr-defined]
            return at, isinstance(node, (ast.For, ast.While)) and _carries(node)
    return None


def _names(node: ast.AST) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Name):
            yield each.id


def _carries(loop: Any) -> bool:
    """Whether a turn reads a value that the turn before has made."""
    own = set(_names(loop.target)) if isinstance(loop, ast.For) else set()
    made: Set[str] = set()
    for statement in loop.body:
        names = [each for each in ast.walk(statement) if isinstance(each, ast.Name)]
        read = {each.id for each in names if isinstance(each.ctx, ast.Load)} - made - own
        stored = {each.id for each in names if isinstance(each.ctx, ast.Store)}
        later = {
            each.id
            for other in loop.body
            for each in ast.walk(other)
            if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
        }
        if read & later:
            return True
        made |= stored
    return False
