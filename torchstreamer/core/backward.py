"""What a stream says of backward passes that torch would end with words of its own, or let go wrong."""

from functools import cache, partial
from typing import Any, List, Tuple

import torch
from torch import Tensor
from torch.utils.hooks import unserializable_hook

from ..errors import StreamStateError

__all__ = ["Backward"]


class Backward:
    """The backward passes through the steps of a signal since its state was last cut.

    Each output gets a hook, which a backward pass through it calls before it comes to the chunks before. If one of
    those was gone through earlier, torch may have freed what it needs; only then the hook looks whether it has.

    Attributes:
        recomputing: whether a step of an earlier place is computed again, by someone who sees to the state
    """

    __slots__ = ("_record", "_task", "recomputing")

    def __init__(self) -> None:
        self._record = [0, -1]  # steps so far, and the first that a backward pass has gone through
        self._task = -1  # the backward pass in which the signal began
        self.recomputing = False

    def cut(self, new: bool) -> None:
        """The state is cut from the steps so far; or the stream is as new."""
        if self._record[0] > 0:
            self._record = [0, -1]
        if new:
            self._task = -1

    def enter(self, first: bool) -> None:
        """A step begins, with gradients on.

        Raises:
            StreamStateError: a backward pass computes it again, from another place of the signal
        """
        task = torch._C._current_graph_task_id()
        if task == -1 or self.recomputing:
            return
        if first:
            self._task = task
        elif self._task != task:
            raise StreamStateError(
                "checkpointed_step: a backward pass calls the stream again, as torch.utils.checkpoint does, and its "
                "state is not what it was in the first call; a step that knows its state was expected; use "
                "pts.checkpoint_step(stream, chunk)"
            )

    def leave(self, y: Tensor) -> None:
        """A step has given this."""
        node = y.grad_fn
        if node is not None:
            record = self._record
            # Not the node itself, which holds the hook; and a saved output needs none.
            hook = partial(_passed, record, record[0], node.next_functions)
            y.register_hook(unserializable_hook(hook))  # type: ignore[no-untyped-call]
            record[0] += 1

    def __reduce__(self) -> Tuple[Any, ...]:
        return Backward, ()


def _passed(record: List[int], step: int, before: Tuple[Any, ...], gradient: Tensor) -> None:
    first = record[1]
    if 0 <= first < step and _any_freed(before):
        raise StreamStateError(
            "second_backward: a backward pass goes into chunks through which an earlier one has gone, and which it "
            "has freed; a state that is cut from them was expected; call detach_state() first, after each backward "
            "pass, or add up the losses of all chunks and go back once"
        )
    if first < 0 or step < first:
        record[1] = step


def _any_freed(nodes: Tuple[Any, ...]) -> bool:
    waiting, seen = [node for node, _ in nodes], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            if _freed(node):
                return True
            waiting += [before for before, _ in node.next_functions]
    return False


@cache
def _saved_names(kind: Any) -> List[str]:
    return [name for name in dir(kind) if name.startswith("_raw_saved_")]


def _freed(node: Any) -> bool:
    kind: Any = type(node)
    names = _saved_names(kind)
    for name in names:
        saved = getattr(node, name)
        for each in saved if isinstance(saved, (tuple, list)) else (saved,):
            if getattr(each, "data", None) is not None:
                return False
    try:
        # Nothing is there, so no hook of a checkpoint is called.
        for name in names:
            getattr(node, "saved_tensors" if name == "_raw_saved_tensors" else name.replace("_raw", "", 1), None)
    except RuntimeError:
        return True
    return False
