"""Handlers without a rule: their fields are measured.

In the steady state such a handler is a function of its chunk and of what its memories hold, as many numbers a row as
they hold. What comes out of that depends on at most as many samples before it, or on all. So a signal that is longer
than that shows which.
"""

import copy
import pickle
from typing import Any, Dict, List, Optional

import torch
from torch import Tensor

from ..core.memory import Memory
from ..core.stream import BaseStream
from ..errors import PointwiseError
from .dependencies import infer_dependency_matrix
from .geometry import note_probed, note_unbounded, register_unknown, watching
from .grouping import hulls
from .probed import kind_of

__all__ = ["ensure_pointwise"]

_LONGEST = 4096  # samples of a signal that is probed
_CHANNELS = ("in_channels", "out_channels", "channels", "num_features", "in_features")


def _probed(stream: BaseStream, need: Tensor, n: int) -> Tensor:
    if n == 0:
        return torch.zeros(0, need.shape[1], dtype=torch.bool)
    depth = _depth(stream) if watching() else None
    if depth is None or 3 * depth > _LONGEST:
        note_probed(uncertain=True)
    elif n < 3 * depth:  # of which the middle is more than the depth away from both ends
        note_probed(short=True)
        return torch.zeros(n, need.shape[1], dtype=torch.bool)
    problem = ""
    for channels in _candidates(stream):
        try:
            matrix = infer_dependency_matrix(stream, (1, channels, n), time_dim=2)
        except Warning:
            raise
        except Exception as error:  # other channels, perhaps
            problem = next(iter(str(error).splitlines()), type(error).__name__)
            continue
        if depth is not None:
            first, (outs, ins) = hulls(matrix.T)[0], stream.ratio
            back = torch.arange(matrix.shape[1]) * ins // outs - first
            note_unbounded(need & (back > depth)[:, None])
        return (matrix.float() @ need.float()) > 0
    raise ValueError(
        f"no_field_rule: {type(stream).__name__} has no rule for its receptive field and cannot be probed ({problem}); "
        "a rule was expected; give one with field_rule"
    )


def _depth(stream: BaseStream) -> Optional[int]:
    """How many samples a handler can look back unless it looks back without bound; ``None`` if that is not known."""
    for channels in _candidates(stream):
        dtype, device = kind_of(stream)
        twin = copy.deepcopy(stream)
        twin.reset()
        try:
            before = _kept_elsewhere(twin)
            with torch.no_grad():
                depth = _settled_depth(twin, [1, channels], dtype or torch.get_default_dtype(), device)
            return depth if _kept_elsewhere(twin) == before else None
        except Warning:
            raise
        except Exception:  # other channels, perhaps; or what cannot be compared
            continue
    return None


def _settled_depth(stream: BaseStream, shape: List[int], dtype: torch.dtype, device: Any) -> Optional[int]:
    hop, came = stream.hop, 0
    memories = [module for module in stream.modules() if isinstance(module, Memory)]
    while came <= _LONGEST:
        stream(torch.rand([*shape, max(came, hop)], dtype=dtype, device=device))
        came += max(came, hop)
        phase = [memory.phase() for memory in memories]
        stream(torch.rand([*shape, hop], dtype=dtype, device=device))
        came += hop
        if phase == [memory.phase() for memory in memories] and all(memory.lasting() for memory in memories):
            held = sum(_numbers(memory) for memory in memories)
            return max(came, hop * (held + 1))
    return None


def _numbers(memory: Memory) -> int:
    # Held for a row.
    return sum(tensor.numel() // max(tensor.size(0), 1) for tensor in memory.tensors() if tensor.dim() > 0)


def _kept_elsewhere(stream: BaseStream) -> Dict[str, bytes]:
    # What a handler could hold samples in besides its memories, whole numbers left out.
    found: Dict[str, bytes] = {}
    for name, module in stream.named_modules():
        if not isinstance(module, Memory):
            entries = {**vars(module), **dict(module.named_buffers(recurse=False))}
            for key, value in entries.items():
                if key not in _OURS and not isinstance(value, (int, str, type(None))):
                    found[f"{name}.{key}"] = pickle.dumps(value.tolist() if isinstance(value, Tensor) else value)
    return found


_OURS = {*vars(BaseStream()), *vars(BaseStream), "_like"}


def ensure_pointwise(stream: BaseStream) -> None:
    """Try the modules that a stream takes as pointwise, as their first chunk would.

    Raises:
        PointwiseError: one of them is not
    """
    trusted = [part for part in stream.modules() if isinstance(part, BaseStream) and not getattr(part, "checked", True)]
    for part in trusted:
        dtype, device = kind_of(stream)
        twin = copy.deepcopy(part)
        for channels in dict.fromkeys([*_candidates(part), *_candidates(stream)]):
            twin.reset()
            try:
                with torch.no_grad():
                    twin(torch.zeros(1, channels, 1, dtype=dtype or torch.get_default_dtype(), device=device))
                break
            except (PointwiseError, Warning):
                raise
            except Exception:  # other channels, perhaps; if none fit, it is trusted as it is in a stream
                continue


def _candidates(stream: BaseStream) -> List[int]:
    found = [getattr(module, name, None) for module in stream.modules() for name in _CHANNELS]
    return list(dict.fromkeys([*(value for value in found if isinstance(value, int) and value > 0), 1, 2]))


register_unknown(_probed)
