"""Another capture of a model that pads to whole blocks by a branch.

``if n % k: x = F.pad(x, (0, k - n % k))`` is captured as it goes for the example. Where that has whole blocks, no other
signal fits. Captured with one that has none, the padding is there, and it is 0 or a whole block for a signal of whole
blocks. What sizes are there counts for nothing, as the model goes another way; the stream is tried against the model
there as wherever a condition does not hold.
"""

from dataclasses import replace
from typing import Callable, Dict, List, Optional

from torch import Tensor

from .capture import Capture
from .model_trial import runs_on

__all__ = ["of_broken_blocks"]

_AHEAD = 64  # lengths after that of the example that are looked at
_REMAINDERS = ("%", "Mod(")


def of_broken_blocks(found: Capture, capture: Callable[[List[Tensor]], Capture]) -> Optional[Capture]:
    """A capture that holds for lengths that are multiples of nothing; ``None`` if there is no other.

    Args:
        found: the capture
        capture: captures the model with other examples
    """
    unit = found.sizes.scale * found.multiple
    axis = found.streamed[0].time
    assert axis is not None
    typical = found.streamed[0].example.shape[axis]
    broken: Dict[int, int] = {}
    for n in range(typical + 1, typical + 1 + _AHEAD * unit):
        if found.valid(n):
            broken[n] = sum(any(sign in guard for sign in _REMAINDERS) for guard in found.broken_guards(n))
    if not any(broken.values()):
        return None
    if 2 * sum(count > 0 for count in broken.values()) < len(broken):
        return replace(found, regular=True)
    best = max(broken, key=lambda n: (broken[n], -n))
    return replace(capture(found.inputs_of(best)), regular=True) if runs_on(found, best) else None
