"""Three ways to find out what depends on what; none is right for every model.

- perturb: other values in a frame. What changes depends on it; what is weak, or not the largest, does not change.
- gradient: the derivative. It is never too small to see, but 0 where a maximum is taken elsewhere or a unit is off.
- nan: a frame that is not a number. It spoils all that is computed from it, also what is multiplied by 0.
"""

from typing import Callable, Iterator, List, Optional, Tuple

import torch
from torch import Tensor

from .grouping import Grouping, hulls
from .probed import Probed, Watch

__all__ = ["Spoil", "changes", "gradients", "perturbations", "spoil", "with_spoilt_tokens"]

_LOOKUPS = {torch.ops.aten.embedding.default: (0, 1), torch.ops.aten.index_select.default: (0, 2)}

Spoil = Callable[[Tensor, Tensor], Tensor]


def changes(probed: Probed, places: Tensor, grouping: Grouping, spoil: Spoil, infinite: bool) -> Tensor:
    """What groups of frames change: ``[groups, ΣT']``.

    Args:
        probed: the model
        places: the frames that are probed, in order
        grouping: which of them together
        spoil: takes the base ``[P, B, …]`` and a mask of frames that broadcasts with it, and gives the probes
        infinite: whether outputs that are not finite count as changed
    """
    found = []
    for piece in probed.pieces(grouping.count):
        marked = torch.zeros(len(piece), probed.frames, dtype=torch.bool)
        marked[:, places] = grouping.members(piece)
        x = spoil(probed.many(len(piece)), probed.frame_mask(marked))
        with torch.no_grad():
            found.append(probed.changed(probed.run(x), infinite))
    return torch.cat(found)


def perturbations(probed: Probed, variant: int) -> Iterator[Spoil]:
    """Other values for frames: drawn anew, and far above or below all others, each value by a sign of its own."""
    if probed.whole:
        for shift in sorted({1, max(probed.tokens // 2, 1), max(probed.tokens - 1, 1)}):
            yield lambda x, mask, shift=shift: torch.where(mask, (x + shift) % probed.tokens, x)  # type: ignore[misc]
        return
    other = probed.values(probed.shape, 1001 + variant)
    yield lambda x, mask: torch.where(mask, other, x)
    far = 200 * probed.values(probed.shape, 2001 + variant).round() - 100
    yield lambda x, mask: torch.where(mask, x + far, x)
    yield lambda x, mask: torch.where(mask, x - far, x)


# ---------------------------------------------------------------------- nan


def spoil(x: Tensor, mask: Tensor) -> Tensor:
    """Frames that are not numbers."""
    return torch.where(mask, torch.nan, x)


class SpoiltTokens(Watch):
    """Makes what is looked up for one token ``nan``, where the very tokens of the signal are looked up.

    Args:
        token: which one
    """

    def __init__(self, token: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.token = token
        self.tokens = torch.empty(0, dtype=torch.int64)
        self.met = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        y = func(*args, **(kwargs or {}))
        if func in _LOOKUPS and y.is_floating_point():
            ids = args[_LOOKUPS[func][1]]
            if ids.numel() == self.tokens.numel() and torch.equal(ids.flatten(), self.tokens.flatten()):
                self.met = True
                mask = (self.tokens == self.token).reshape(ids.shape)
                y = torch.where(mask.reshape(*ids.shape, *[1] * (y.dim() - ids.dim())), torch.nan, y)
        return y


def with_spoilt_tokens(probed: Probed) -> Spoil:
    """A way to spoil frames of tokens; the model of ``probed`` must be run by `SpoiltTokens` from now on.

    Raises:
        ValueError: the model does not look the tokens up in a table of numbers
    """
    mode, model = SpoiltTokens(probed.tokens - 1), probed.model

    def run(x: Tensor) -> object:
        mode.tokens = x
        with mode:
            return model(x)

    probed.model = run
    with torch.no_grad():
        clean = not bool(probed.changed(probed.run(probed.base.unsqueeze(0)), True).any())
    if not mode.met or not clean:
        probed.model = model
        raise ValueError("the tokens are not looked up in a table of numbers as they come")
    return lambda x, mask: torch.where(mask, mode.token, x)


# ---------------------------------------------------------------------- gradient


def gradients(probed: Probed, places: Tensor, grouping: Grouping) -> Tuple[Tensor, bool]:
    """What the derivative shows: ``[frames, ΣT']``; and whether it shows something that the grouping rules out.

    Derivatives so small that they may be rounding count if they stay the same when the signal and the weights of the
    outputs move a little, and are the same forward as backward: rounding is not.
    """
    outputs, frames = sum(probed.lengths), len(places)
    sure, weak = (torch.zeros(frames, outputs, dtype=torch.bool) for _ in range(2))
    backward = torch.zeros(frames, outputs, dtype=torch.float64)
    # The outputs of a column must not share a frame: groups by turning the reach around.
    first, last = hulls(grouping.reach.T)
    columns = Grouping.of([first], [last], [frames], spare=True) if outputs else grouping
    beyond = False
    for piece in probed.pieces(columns.count):
        members = columns.members(piece)
        large, small, along = _seen(probed, places, members)
        for i, row in enumerate(members):
            reach = columns.reach[row].T
            sure[:, row] |= large[i][:, None] & reach
            weak[:, row] |= small[i][:, None] & reach
            backward[:, row] = along[i][:, None].expand(-1, int(row.sum()))
            beyond = beyond or bool(((large | small)[i] & ~reach.any(1)).any())
    asked = weak.any(1).nonzero().flatten()
    for piece in probed.pieces(len(asked)):
        some = asked[piece.start : piece.stop]
        forward = _pushed(probed, places[some])
        scale = torch.maximum(forward.abs(), backward[some].abs())
        weak[some] &= (forward - backward[some]).abs() <= 0.02 * scale
    return sure | weak, beyond


def _seen(probed: Probed, places: Tensor, members: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """For each row of outputs ``[P, ΣT']`` the frames with a derivative, those with one as small as rounding that stays
    what it is, and the derivative along `_direction`; all ``[P, frames]``."""
    start = _slopes(probed, places, members, 0)  # [P, frames, values]
    size = start.norm(dim=2)
    eps = torch.finfo(probed.dtype).eps
    large = size > min(1e3 * eps, 0.05) * size.amax(1, keepdim=True)
    small, before = (size > 0) & ~large, start
    for variant in range(1, 6):
        if not bool(small.any()):
            break
        slope = _slopes(probed, places, members, variant)
        scale = torch.maximum(slope.norm(dim=2), before.norm(dim=2))
        small &= ((slope - before).norm(dim=2) <= 0.02 * scale) & (scale > 0)
    along = (start * _direction(start.shape[2]).to(start.device)).sum(2)
    return large.cpu(), small.cpu(), along.cpu()


def _slopes(probed: Probed, places: Tensor, members: Tensor, variant: int) -> Tensor:
    # d(sum of the marked outputs) / d(frames), for each row of `members` [P, ΣT'].
    x = probed.many(members.shape[0]).clone()
    if variant > 0:
        x *= 1 + _jitter(x) * (probed.values(probed.shape, 10 + variant) - 0.5)
    x.requires_grad_()
    with torch.enable_grad():
        total = x.new_zeros((), dtype=torch.float64)
        for y, marked in zip(_weighted(probed, x, variant), torch.split(members, probed.lengths, 1), strict=True):
            if y is not None:
                total = total + (y * marked.to(y.device)).sum()
        if not total.requires_grad:
            return torch.zeros(len(members), len(places), 1, dtype=torch.float64)
        (slope,) = torch.autograd.grad(total, x, allow_unused=True)
    if slope is None:
        return torch.zeros(len(members), len(places), 1, dtype=torch.float64)
    slope = slope.detach().movedim(probed.time_dim + 1, 1)
    slope = slope.flatten(2) if slope.dim() > 2 else slope.unsqueeze(2)
    return slope[:, places.to(slope.device)].nan_to_num(nan=0.0).to(torch.float64)


def _pushed(probed: Probed, places: Tensor) -> Tensor:
    """How the outputs change as each frame moves along `_direction`: ``[frames, ΣT']``, ``nan`` if that is not known.

    The derivative of a derivative, by its weights: what goes forward is rounded otherwise than what goes backward.
    """
    count = len(places)
    x = probed.many(count).clone().requires_grad_()
    marked = torch.zeros(count, probed.frames, dtype=torch.bool)
    marked[torch.arange(count), places] = True
    values = x.movedim(probed.time_dim + 1, 1)[0, 0].numel()
    shape = x.movedim(probed.time_dim + 1, 1).shape
    push = _direction(values).reshape(1, 1, *shape[2:]).movedim(1, probed.time_dim + 1).to(x)
    push = push * probed.frame_mask(marked)
    found = []
    with torch.enable_grad():
        for y in _weighted(probed, x, 0):
            moved = torch.full((count, 0), torch.nan, dtype=torch.float64)
            if y is not None and y.requires_grad:
                weights = torch.zeros_like(y, requires_grad=True)
                try:
                    (slope,) = torch.autograd.grad(y, x, weights, create_graph=True)
                    (moved,) = torch.autograd.grad(slope, weights, push)
                except RuntimeError:  # an operation without a second derivative
                    pass
            found.append(moved.detach().double().cpu())
    wide = [m if m.shape[1] else m.new_full((count, n), torch.nan) for m, n in zip(found, probed.lengths, strict=True)]
    return torch.cat(wide, 1)


def _weighted(probed: Probed, x: Tensor, variant: int) -> List[Optional[Tensor]]:
    """Each output as one number per frame ``[P, T']``, or ``None`` where it has no derivative."""
    found: List[Optional[Tensor]] = []
    for y in probed.run(x):
        smooth = y.is_floating_point() and y.requires_grad
        weights = _weights(y.shape[2], variant, _jitter(y)).to(y.device, y.dtype) if smooth else y
        found.append((y * weights).sum(2).double() if smooth else None)
    return found


def _weights(values: int, variant: int, jitter: float) -> Tensor:
    generator = torch.Generator().manual_seed(values)
    weights = torch.rand(values, generator=generator, dtype=torch.float64) + 0.5
    if variant > 0:
        generator.manual_seed(values + variant)
        weights *= 1 + jitter * torch.rand(values, generator=generator, dtype=torch.float64)
    return weights


def _direction(values: int) -> Tensor:
    generator = torch.Generator().manual_seed(values + 1)
    return torch.rand(values, generator=generator, dtype=torch.float64) + 0.5


def _jitter(x: Tensor) -> float:
    # Far above rounding, and small enough for derivatives to stay what they are.
    return max(1e-4, 4 * torch.finfo(x.dtype).eps)
