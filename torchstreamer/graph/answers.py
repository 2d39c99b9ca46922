"""What of a model's answer is streamed: all of it, what is selected of it, and values inside that are tapped."""

import dataclasses
from contextlib import contextmanager
from functools import wraps
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..core.example import Select, first_line
from ..errors import StreamInputError, UnsupportedModuleError
from .fields import leaf_names, opened

__all__ = ["Answer"]


class Answer:
    """What is streamed of what a model answers.

    Args:
        net: the model
        select: which outputs, as `create_stream` takes it
        taps: paths of modules whose outputs are given too

    Attributes:
        structure: of what is streamed, known when the model has run once
        names: of its leaves, in order

    Raises:
        StreamInputError: ``unknown_taps``
    """

    def __init__(self, net: nn.Module, select: Optional[Select] = None, taps: Sequence[str] = ()) -> None:
        self.net = net
        self.select = select
        self.taps = _modules(net, taps)
        self.structure: Any = None
        self.names: List[str] = []

    @property
    def partial(self) -> bool:
        """Whether something that the model computes may be of no use."""
        return self.select is not None

    def leaves(self, *inputs: Tensor) -> List[Optional[Tensor]]:
        """All that is streamed, of whole inputs."""
        with self.flat():
            found = self.net(*inputs)
        return list(found) if isinstance(found, tuple) else [found]

    @contextmanager
    def flat(self) -> Iterator[None]:
        """Until its end the model gives a tensor, or a tuple of the tensors that are streamed."""
        kept = {module: module.__dict__.get("forward") for module in {self.net, *self.taps.values()}}
        tapped: Dict[str, Any] = {}
        for path, module in self.taps.items():
            if module is not self.net:
                module.__dict__["forward"] = _recording(module.forward, path, tapped)
        whole = self.net.forward

        @wraps(whole)  # the exporter asks for its signature
        def forward(*args: Any, **kwargs: Any) -> Any:
            tapped.clear()
            return self._flattened(whole(*args, **kwargs), tapped)

        self.net.__dict__["forward"] = forward
        try:
            yield
        finally:
            for module, before in kept.items():
                module.__dict__.pop("forward", None)
                if before is not None:
                    module.__dict__["forward"] = before

    def _flattened(self, answer: Any, tapped: Dict[str, Any]) -> Any:
        chosen = opened(self._selected(answer))
        if self.taps:
            silent = [path for path in self.taps if path not in tapped]
            if silent:
                raise StreamInputError(
                    f"unknown_taps: the module '{silent[0]}' is not called on this example; modules whose forward runs "
                    "were expected; leave it out"
                )
            chosen = (chosen, {path: opened(tapped[path]) for path in self.taps})
        leaves, structure = pytree.tree_flatten(chosen)
        self.names = list(leaf_names(structure))
        for name, leaf in zip(self.names, leaves, strict=True):
            if not isinstance(leaf, (Tensor, type(None))):
                raise UnsupportedModuleError(
                    "constant_output",
                    self.net,
                    f"{f'its output {name!r}' if name else 'its output'} is no tensor but {type(leaf).__name__}",
                    "choose outputs that are signals with select=",
                )
        if not leaves:
            raise UnsupportedModuleError("no_output", self.net, "it returns no tensor", "return what is to be streamed")
        self.structure = structure
        return leaves[0] if structure.is_leaf() else tuple(leaves)

    def _selected(self, answer: Any) -> Any:
        return answer if self.select is None else _chosen(answer, self.select)


def _modules(net: nn.Module, taps: Sequence[str]) -> Dict[str, nn.Module]:
    if isinstance(taps, str) or not all(isinstance(path, str) for path in taps):
        raise StreamInputError(
            f"unknown_taps: taps={taps!r} came; a list of paths of modules, as in named_modules(), was expected; pass "
            "one, such as ['encoder.layers.3']"
        )
    modules = dict(net.named_modules(remove_duplicate=False))
    for path in taps:
        if path not in modules:
            raise StreamInputError(
                f"unknown_taps: {path!r} came, and the model has no module of that path; one of named_modules() was "
                f"expected; {_like(path, list(modules))}"
            )
    found = {path: modules[path] for path in taps}
    if len(set(map(id, found.values()))) < len(taps):
        raise StreamInputError(
            f"unknown_taps: {list(taps)} came, of which two are one module; different modules were expected; tap it "
            "once"
        )
    return found


def _like(path: str, known: List[str]) -> str:
    last = path.rpartition(".")[2]
    near = [each for each in known if each.rpartition(".")[2] == last][:3] or [each for each in known if each][:5]
    return f"it has {', '.join(near)}, …" if near else "it has none"


def _recording(forward: Any, path: str, tapped: Dict[str, Any]) -> Any:
    @wraps(forward)
    def recorded(*args: Any, **kwargs: Any) -> Any:
        y = forward(*args, **kwargs)
        if path in tapped:
            raise StreamInputError(
                f"unknown_taps: the module '{path}' is called more than once, so it has several outputs; one that is "
                "called once was expected; tap a module around its calls"
            )
        tapped[path] = y
        return y

    return recorded


def _chosen(answer: Any, select: Any) -> Any:
    if isinstance(select, (str, int)):
        return _at(answer, select)
    if isinstance(select, Mapping):
        return {name: _chosen(answer, each) for name, each in select.items()}
    if isinstance(select, (tuple, list)):
        return type(select)(_chosen(answer, each) for each in select)
    if callable(select):
        return select(answer)
    raise StreamInputError(
        f"invalid_select: select={select!r} came; the name, number or path of an output, a tuple, list or dict of "
        "such, or a function of the model's answer was expected; pass one, such as 'last_hidden_state'"
    )


def _at(answer: Any, select: Any) -> Any:
    at = answer
    parts: Tuple[Any, ...] = (select,)
    if isinstance(select, str) and not (isinstance(answer, Mapping) and select in answer):
        parts = tuple(select.split("."))
    for i, part in enumerate(parts):
        try:
            at = _part(at, part)
        except (KeyError, IndexError, AttributeError, ValueError, TypeError) as error:
            where = ".".join(map(str, parts[:i]))
            raise StreamInputError(
                f"invalid_select: select={select!r} came, and {f'the output {where!r}' if where else 'the answer'} is "
                f"{_told(at)} without {part!r} ({first_line(error)}); an output of the model was expected; check the "
                "name"
            ) from None
    return at


def _part(at: Any, part: Any) -> Any:
    if isinstance(at, Mapping) and part in at:
        return at[part]
    if isinstance(part, str) and not part.lstrip("-").isdigit():
        return getattr(at, part)
    if isinstance(at, Tensor):
        raise TypeError("a tensor has no outputs")
    return at[int(part)]


def _told(at: Any) -> str:
    if isinstance(at, Mapping):
        return f"a {type(at).__name__} with {', '.join(map(str, at))}"
    if dataclasses.is_dataclass(at):
        return f"a {type(at).__name__} with {', '.join(field.name for field in dataclasses.fields(at))}"
    count = f" of {len(at)}" if isinstance(at, (tuple, list)) else ""
    return f"a {type(at).__name__}{count}"
