"""Does a model trained with a mask over chunks see only what it may?"""

from dataclasses import dataclass, field
from typing import Any, Callable, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from .arguments import whole_number
from .dependencies import infer_dependency_matrix, single_matrix

__all__ = ["CausalityReport", "Violation", "check_causality"]


@dataclass(frozen=True)
class Violation:
    """An output frame and the input frames that it sees, and must not.

    Attributes:
        output: the output frame
        chunk: number of its chunk
        allowed: first and last input frame that it may see
        seen: the frames that it sees besides
    """

    output: int
    chunk: int
    allowed: Tuple[int, int]
    seen: Tuple[int, ...]

    def __str__(self) -> str:
        parts = []
        early = [frame for frame in self.seen if frame < self.allowed[0]]
        late = [frame for frame in self.seen if frame > self.allowed[1]]
        if late:
            parts.append(f"{_frames(late)}, up to {late[-1] - self.allowed[1]} beyond the last one that it may see")
        if early:
            parts.append(f"{_frames(early)}, up to {self.allowed[0] - early[0]} before the first one that it may see")
        return (
            f"output frame {self.output} (chunk {self.chunk}, may see frames {self.allowed[0]} to {self.allowed[1]}) "
            f"sees {' and '.join(parts)}"
        )


def _frames(frames: Sequence[int]) -> str:
    runs: List[List[int]] = []
    for frame in frames:
        if runs and frame == runs[-1][1] + 1:
            runs[-1][1] = frame
        else:
            runs.append([frame, frame])
    told = [str(a) if a == b else f"{a} to {b}" for a, b in runs]
    return ("frame " if len(frames) == 1 else "frames ") + ", ".join(told)


@dataclass(frozen=True)
class CausalityReport:
    """What `check_causality` found; true if no output frame sees what it must not.

    Attributes:
        violations: in order of the output frames
        chunk: frames of a chunk
        dependencies: the matrix ``[in, out]`` that was checked
    """

    violations: Tuple[Violation, ...]
    chunk: int
    dependencies: Tensor = field(repr=False, compare=False)

    def __bool__(self) -> bool:
        return not self.violations

    def __str__(self) -> str:
        outputs = self.dependencies.shape[1]
        if self:
            return f"all {outputs} output frames see only what they may, in chunks of {self.chunk}"
        shown = [str(violation) for violation in self.violations[:10]]
        more = len(self.violations) - len(shown)
        shown += [f"… and {more} more"] if more else []
        head = f"{len(self.violations)} of {outputs} output frames see what they must not, in chunks of {self.chunk}:"
        return "\n  ".join([head, *shown])


def check_causality(
    model: Union[Callable[..., Any], Tensor],
    chunk: int,
    *,
    left: Optional[int] = None,
    right: int = 0,
    seq_shape: Optional[Sequence[int]] = None,
    **probing: Any,
) -> CausalityReport:
    """Check that no output frame sees an input frame that its chunk must not see.

    Models that are to be streamed in chunks are trained with masks: a frame sees its own chunk, some frames before it,
    perhaps some after it. One layer that is not masked and everything is seen. This tells which frame sees which.

    Args:
        model: a function or module as for `infer_dependency_matrix`, or a Bool matrix ``[in, out]`` as that returns
        chunk: input frames of a chunk; 1 for a strictly causal model
        left: input frames before the chunk that may be seen; all by default
        right: input frames after the chunk that may be seen
        seq_shape: shape of the input, as for `infer_dependency_matrix`
        **probing: its other arguments

    Returns:
        a report that is true or false, lists the violations, and tells them in words. An output frame ``o`` belongs
        to the chunk in which ``o * in // out`` lies

    Raises:
        ValueError: ``chunk`` below 1, a negative context, or neither a matrix nor ``seq_shape``

    Example:
        >>> import torch
        >>> from torchstreamer.analysis import check_causality
        >>> conv = torch.nn.Conv1d(4, 4, 3, padding=1)
        >>> print(check_causality(conv, chunk=4, seq_shape=(1, 4, 8), time_dim=2))
        1 of 8 output frames see what they must not, in chunks of 4:
          output frame 3 (chunk 0, may see frames 0 to 3) sees frame 4, up to 1 beyond the last one that it may see
        >>> bool(check_causality(conv, chunk=4, right=1, seq_shape=(1, 4, 8), time_dim=2))
        True
    """
    chunk, right = whole_number(chunk, "chunk"), whole_number(right, "right", 0)
    left = None if left is None else whole_number(left, "left", 0)
    matrix = _matrix(model, seq_shape, probing)
    ins, outs = matrix.shape
    chunks = torch.arange(outs) * ins // max(outs, 1) // chunk
    low = (chunks * chunk - left).clamp(min=0) if left is not None else torch.zeros_like(chunks)
    high = ((chunks + 1) * chunk - 1 + right).clamp(max=ins - 1)
    frames = torch.arange(ins)[:, None]
    beyond = matrix & ((frames < low) | (frames > high))
    violations = []
    for output in beyond.any(0).nonzero().flatten().tolist():
        seen = tuple(beyond[:, output].nonzero().flatten().tolist())
        violations.append(Violation(output, int(chunks[output]), (int(low[output]), int(high[output])), seen))
    return CausalityReport(tuple(violations), chunk, matrix)


def _matrix(model: Any, seq_shape: Optional[Sequence[int]], probing: Any) -> Tensor:
    if isinstance(model, Tensor):
        if model.dim() != 2 or model.dtype != torch.bool:
            raise ValueError(
                f"invalid_dependencies: a tensor of shape {tuple(model.shape)}, {model.dtype}, came; a Bool matrix "
                "[in, out] was expected; make it with infer_dependency_matrix"
            )
        return model
    if not callable(model):
        raise TypeError(
            f"invalid_model: a {type(model).__name__} came; a function, a module or one Bool matrix [in, out] was "
            "expected; of two bounds pass the upper one to be sure"
        )
    if seq_shape is None:
        raise ValueError(
            "no_seq_shape: a model came without the shape of its input; [batch, frames, features] was expected; pass "
            "seq_shape="
        )
    if probing.get("bounds") or probing.get("in_stride", 1) != 1:
        raise ValueError("invalid_option: bounds or in_stride came; every input frame must be probed; leave them out")
    return single_matrix(infer_dependency_matrix(model, seq_shape, **probing))
