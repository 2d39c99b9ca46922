"""`Openings`: what rows hold that have just begun, where they may join others at once."""

from typing import Dict, Optional

import torch

from .row_state import RowState
from .row_table import Batch, Form

__all__ = ["Openings"]

# Lengths of first chunks of which it is known what they leave.
_MOST = 64


class Openings:
    """States of rows that have just begun, in forms in which older ones go on.

    A first chunk runs with those of older rows if all memories say what they begin with (`Memory.opening`), and if a
    first chunk of that length has run alone and left the form in which the older ones are: then every memory has begun
    with it, so that a row that joined is what it would be by itself from there on.

    Args:
        state: what the stream remembers
    """

    def __init__(self, state: RowState) -> None:
        self._state = state
        self._found: Dict[int, Optional[Batch]] = {}  # by the length of a first chunk

    def learn(self, length: int, batch: Batch) -> None:
        """A first chunk of this length has run, and left such a batch; gradients are off."""
        known = self._found.get(length)
        if known is not None and known.form is batch.form:
            return
        if len(self._found) >= _MOST:
            self._found.clear()
        same = [each for each in self._found.values() if each is not None and each.form is batch.form]
        self._found[length] = same[0] if same else self._opening(batch)

    def find(self, length: int) -> Optional[Batch]:
        """One row as it is before a first chunk of this length, in the form of those that it may join, if any."""
        return self._found.get(length)

    def clear(self) -> None:
        """Other signals may come."""
        self._found.clear()

    def _opening(self, batch: Batch) -> Optional[Batch]:
        form: Form = batch.form
        values = self._state.opening(form.phase)
        if values is None:
            return None
        with torch.inference_mode(False), torch.no_grad():
            tensors = [
                torch.full((1, *shape), value, dtype=dtype, device=tensor.device)
                for shape, dtype, value, tensor in zip(form.shapes, form.dtypes, values, batch.tensors, strict=True)
            ]
        return Batch(form, tensors, (0,) * len(batch.known), [None])
