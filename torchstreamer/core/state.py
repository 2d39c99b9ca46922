"""Snapshots: whether one is whole, those of several streams as one, and back."""

from typing import Dict, List, Sequence

import torch
from torch import Tensor

from ..errors import StreamInputError

__all__ = ["count_entries", "require_whole", "stack_states", "unstack_state"]

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
    """Entries of a state, without those that say the rank, which stacking takes out, and without the count itself.

    TorchScript compiles this function.
    """
    n = 0
    for key in state.keys():
        if key != "@entries" and not _is_rank(key):
            n += 1
    return n


def require_whole(state: Dict[str, Tensor], layout: int) -> None:
    """Refuse a state with entries missing or added, or of a stream with other layers than ``layout`` says.

    TorchScript compiles this function.
    """
    if "@entries" not in state or int(state["@entries"].item()) != count_entries(state):
        raise StreamInputError(
            "invalid_state: the state is not whole, entries are missing or were added; a state as get_state() gave "
            "it was expected; take it anew"
        )
    if "@layout" not in state or int(state["@layout"].item()) != layout:
        raise StreamInputError(
            "invalid_state: the state is that of a stream with other layers; a state fits the stream of the same "
            "network that it was taken from; make it with get_state()"
        )


def _has_rows(value: Tensor) -> bool:
    # An empty tensor of one axis is that of a ring into which nothing has come.
    return value.dim() > 1 or value.numel() > 0 and value.dim() == 1


def _is_rank(key: str) -> bool:
    return key.endswith("@unbatched")
