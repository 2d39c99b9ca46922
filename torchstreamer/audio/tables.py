"""Constant tables of a module, such as windows and filters."""

from typing import Any, Dict

import torch
from torch import Tensor, nn

__all__ = ["Tabled"]


class Tabled(nn.Module):
    """A module with constant tables, each in the module's dtype and as exact as that dtype allows.

    Tables are buffers that are not saved. They are computed once, in float64; ``double()`` gives these values, not
    rounded ones made wide again.
    """

    __jit_ignored_attributes__ = ["_exact"]

    _exact: Dict[str, Tensor]

    def __init__(self) -> None:
        super().__init__()
        self._exact = {}

    def table(self, name: str, values: Tensor) -> None:
        """Add a table, given in float64."""
        self._exact[name] = values
        self.register_buffer(name, values.to(torch.get_default_dtype()), persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        module = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, exact in self._exact.items():
            table = self._buffers[name]
            assert table is not None
            if table.device.type != "meta":
                self._buffers[name] = exact.to(table)
        return module
