"""Snapshots: whether one is whole, those of several streams as one, and back."""

from typing import Any, Dict, List, Sequence

import torch
from torch import Tensor

from ..errors import StreamInputError
from .describe import describe, dtype_name, is_plain

__all__ = [
    "count_entries",
    "require_named_tensors",
    "require_plain",
    "require_seal",
    "require_whole",
    "seal_of",
    "stack_states",
    "unstack_state",
]

State = Dict[str, Tensor]


def stack_states(states: Sequence[State]) -> State:
    """Stack states of equal phase along the rows, so that the streams go on as one batch.

    Args:
        states: states of streams of one network, each from ``get_state()``, after input lengths that differ by
            multiples of ``hop`` (beyond the start of the signal)

    Returns:
        the state of a batched stream; its rows are those of ``states``, in order

    Raises:
        StreamInputError: no states, or states of different networks or phases

    Example:
        >>> import torch, torchstreamer as pts
        >>> net = torch.nn.Conv1d(2, 3, 5)
        >>> a, b, both = (pts.create_stream(net) for _ in range(3))
        >>> _ = a(torch.randn(2, 10)), b(torch.randn(2, 11))
        >>> both.set_state(pts.stack_states([a.get_state(), b.get_state()]))
        >>> both(torch.randn(2, 2, 4)).shape
        torch.Size([2, 3, 4])
    """
    if not states:
        raise StreamInputError("invalid_state: no states came; stack_states takes at least one; pass a list of states")
    states = [{key: value for key, value in state.items() if not _is_rank(key)} for state in states]
    first = states[0]
    for i, state in enumerate(states):
        if state.keys() != first.keys():
            odd = sorted(state.keys() ^ first.keys())
            raise StreamInputError(
                f"invalid_state: state {i} differs from state 0 in the entries {odd}; states of one network, all begun "
                "or all new, were expected; stack streams of equal phase only"
            )
        for key, value in state.items():
            other = first[key]
            same = value.dtype == other.dtype and value.dim() == other.dim() and value.shape[1:] == other.shape[1:]
            if not same or (value.dim() == 0 and not torch.equal(value, other)):
                came = f"{value.item()}" if value.dim() == 0 else f"shape {tuple(value.shape)}"
                expected = f"{other.item()}" if other.dim() == 0 else f"shape {tuple(other.shape)}"
                raise StreamInputError(
                    f"unequal_phase: '{key}' of state {i} is {came}, of state 0 it is {expected}; states of equal "
                    "phase were expected; feed the streams until they agree, for instance to multiples of hop"
                )
    return {
        key: value.clone() if value.dim() == 0 else torch.cat([s[key] for s in states]) for key, value in first.items()
    }


def unstack_state(state: State, unbatched: bool = False) -> List[State]:
    """Split the state of a batched stream into one state a row.

    Args:
        state: from ``get_state()`` or `stack_states`
        unbatched: whether the streams that go on take chunks ``[C, T]`` instead of ``[1, C, T]``

    Returns:
        one state a row, in order

    Raises:
        StreamInputError: the entries of the state have different numbers of rows
    """
    entries = {key: value for key, value in state.items() if not _is_rank(key)}
    counts = {value.shape[0] for value in entries.values() if _has_rows(value)}
    if len(counts) > 1:
        raise StreamInputError(
            f"invalid_state: its entries have {sorted(counts)} rows; one number of rows was expected; make the state "
            "with get_state()"
        )
    rows = counts.pop() if counts else 1
    states = [
        {key: (value[i : i + 1] if _has_rows(value) else value).clone() for key, value in entries.items()}
        for i in range(rows)
    ]
    if unbatched:
        for one in states:
            for key in list(one):
                if key.endswith("@signal"):
                    one[key[: -len("signal")] + "unbatched"] = torch.tensor(1)
    return states


def count_entries(state: Dict[str, Tensor]) -> int:
    """Entries of a state, without those that say the rank, which stacking takes out, and without count and seal.

    TorchScript compiles this function.
    """
    n = 0
    for key in state.keys():
        if key != "@entries" and key != "@seal" and not _is_rank(key):
            n += 1
    return n


def seal_of(state: Dict[str, Tensor]) -> int:
    """A number for the whole numbers, shapes and dtypes of a state, so for its phase and geometry, all together.

    Rows do not count, nor do values of samples; a dtype counts as the signal's, or as what it is. So states that are
    stacked, split, or moved to another device keep their seal.

    TorchScript compiles this function.
    """
    signal = dtype_name(state["@signal"]) if "@signal" in state else ""
    seal = 0
    for key in sorted(state.keys()):
        if key == "@entries" or key == "@layout" or key == "@seal" or _is_rank(key):
            continue
        value = state[key]
        if value.dim() == 0:
            whole = int(value.item())
            seal = _mixed(_mixed(seal, whole % 4294967296), (whole // 4294967296) % 4294967296)
        else:
            # An empty tensor of one axis is that of a memory into which nothing has come.
            seal = _mixed(seal, 1 if value.dim() == 1 and value.numel() == 0 else 2)
            for size in list(value.size())[1:]:
                seal = _mixed(seal, size)
        name = dtype_name(value)
        kind = "the signal's" if name == signal else name  # told apart by length and end
        seal = _mixed(_mixed(seal, value.dim()), ord(kind[-1]) * 65536 + ord(kind[-2]) * 256 + len(kind))
        if key.endswith("@signal"):
            # The rank may change with the rows, but for all signals inside alike.
            unbatched = key[: len(key) - 6] + "unbatched" in state
            seal = _mixed(seal, 1 if unbatched == ("@unbatched" in state) else 0)
    return seal


def _mixed(seal: int, number: int) -> int:
    # Within 63 bits, so that a script, whose whole numbers wrap around, finds the same.
    return (seal * 1000003 + number + 1) % 8796093022151


def require_named_tensors(state: Any) -> None:
    """Refuse what is no dictionary of names and tensors."""
    if not isinstance(state, dict):
        raise StreamInputError(
            f"invalid_state: a {type(state).__name__} came; a dictionary of names and tensors was expected; make the "
            "state with get_state()"
        )
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise StreamInputError(
                f"invalid_state: the entry {key!r} is a {type(value).__name__}; names and tensors were expected; make "
                "the state with get_state()"
            )


def require_plain(state: Dict[str, Tensor]) -> None:
    """Refuse entries whose values cannot be copied.

    TorchScript compiles this function.
    """
    for key in state.keys():
        value = state[key]
        if not is_plain(value) or value.is_meta:
            raise StreamInputError(
                f"invalid_state: '{key}' came with {describe(value)}; a dense tensor with values was expected; make "
                "the state with get_state()"
            )


def require_whole(state: Dict[str, Tensor], layout: int) -> None:
    """Refuse a state with entries missing or added, or of a stream with other layers than ``layout`` says.

    TorchScript compiles this function.
    """
    if _whole_number(state, "@entries") != count_entries(state):
        raise StreamInputError(
            "invalid_state: the state is not whole, entries are missing or were added; a state as get_state() gave "
            "it was expected; take it anew"
        )
    if _whole_number(state, "@layout") != layout:
        raise StreamInputError(
            "invalid_state: the state is that of a stream with other layers; a state fits the stream of the same "
            "network that it was taken from; make it with get_state()"
        )
    for key in state.keys():
        if _is_rank(key) and _whole_number(state, key) != 1:
            raise StreamInputError(
                f"invalid_state: '{key}' came with {describe(state[key])}; the whole number 1 was expected, or no such "
                "entry; make the state with get_state()"
            )


def require_seal(state: Dict[str, Tensor]) -> None:
    """Refuse a state whose whole numbers, shapes and dtypes are not those that ``get_state()`` gave together.

    TorchScript compiles this function.
    """
    if _whole_number(state, "@seal") != seal_of(state):
        came: List[str] = []
        for key in sorted(state.keys()):
            if not key.startswith("@") or key == "@signal":
                value = state[key]
                number = value.dim() == 0 and not value.is_floating_point() and not value.is_complex()
                came.append(f"'{key}' {int(value.item())}" if number else f"'{key}' {list(value.size())}")
                if not number:
                    came[-1] += f" {dtype_name(value)}"
        if len(came) > 8:
            came = came[:8] + [f"{len(came) - 8} more"]
        raise StreamInputError(
            "invalid_state: the numbers, shapes and dtypes of the state do not belong together: "
            + ", ".join(came)
            + "; those of one state that get_state() gave were expected; take it anew"
        )


def _whole_number(state: Dict[str, Tensor], key: str) -> int:
    # -1 if there is none.
    if key in state:
        value = state[key]
        if value.dim() == 0 and value.dtype == torch.int64:
            return int(value.item())
    return -1


def _has_rows(value: Tensor) -> bool:
    # An empty tensor of one axis is that of a ring into which nothing has come.
    return value.dim() > 1 or value.numel() > 0 and value.dim() == 1


def _is_rank(key: str) -> bool:
    return key.endswith("@unbatched") or key.endswith("@line")
