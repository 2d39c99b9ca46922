"""Three ways to find out what depends on what; none is right for every model.

- perturb: other values in a frame. What changes depends on it; what is weak, or not the largest, does not change.
- gradient: the derivative. It is never too small to see, but 0 where a maximum is taken elsewhere or a unit is off.
- nan: a frame that is not a number. It spoils all that is computed from it, also what is multiplied by 0.
"""

from typing import Callable, Iterator

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .grouping import Grouping, hulls
from .probed import Probed

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


def perturbations(probed: Probed) -> Iterator[Spoil]:
    """Other values for frames: drawn anew, and far above and below all others."""
    if probed.whole:
        for shift in sorted({1, max(probed.tokens // 2, 1), max(probed.tokens - 1, 1)}):
            yield lambda x, mask, shift=shift: torch.where(mask, (x + shift) % probed.tokens, x)  # type: ignore[misc]
        return
    other = probed.values(probed.shape, 3)
    yield lambda x, mask: torch.where(mask, other, x)
    for far in (100.0, -100.0):
        yield lambda x, mask, far=far: torch.where(mask, x + far, x)  # type: ignore[misc]


# ---------------------------------------------------------------------- nan


def spoil(x: Tensor, mask: Tensor) -> Tensor:
    """Frames that are not numbers."""
    return torch.where(mask, torch.nan, x)


class SpoiltTokens(TorchDispatchMode):  # type: ignore[no-untyped-call]
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


def gradients(probed: Probed, places: Tensor, grouping: Grouping) -> Tensor:
    """What the derivative shows: ``[frames, ΣT']``.

    Derivatives so small that they may be rounding count if they stay the same when the signal and the weights of the
    outputs move a little: rounding does not.
    """
    outputs = sum(probed.lengths)
    found = torch.zeros(len(places), outputs, dtype=torch.bool)
    # The outputs of a column must not share a frame: colours by turning the reach around.
    first, last = hulls(grouping.reach.T)
    columns = Grouping.of([first], [last], [len(places)], spare=False) if outputs else grouping
    for piece in probed.pieces(columns.count):
        members = columns.members(piece)
        sure, weak = None, None
        for variant in range(6):
            slope = _slopes(probed, places, members, variant)  # [P, frames, values]
            size = slope.norm(dim=2)
            if sure is None or weak is None:
                eps = torch.finfo(slope.dtype if probed.dtype == torch.float64 else probed.dtype).eps
                sure = size > 1e3 * eps * size.amax(1, keepdim=True)
                weak, before = (size > 0) & ~sure, slope
                if not bool(weak.any()):
                    break
            else:
                scale = torch.maximum(size, before.norm(dim=2))
                weak &= ((slope - before).norm(dim=2) <= 0.02 * scale) & (scale > 0)
        assert sure is not None and weak is not None
        seen = (sure | weak).cpu()  # [P, frames]
        for i, row in enumerate(members):
            found[:, row] |= seen[i][:, None] & columns.reach[row].T
    return found


def _slopes(probed: Probed, places: Tensor, members: Tensor, variant: int) -> Tensor:
    # d(sum of the marked outputs) / d(frames), for each row of `members` [P, ΣT'].
    count = members.shape[0]
    x = probed.many(count).clone()
    if variant > 0:
        x *= 1 + _jitter(x) * (probed.values(probed.shape, 10 + variant) - 0.5)
    x.requires_grad_()
    with torch.enable_grad():
        ys = probed.run(x)
        total = x.new_zeros(()).double()
        for y, marked in zip(ys, torch.split(members, probed.lengths, 1), strict=True):
            if y.is_floating_point() and y.requires_grad:
                weights = _weights(y.shape[2], variant, _jitter(y)).to(y.device, y.dtype)
                total = total + ((y * weights).sum(2) * marked.to(y.device)).double().sum()
        if not total.requires_grad:
            return torch.zeros(count, len(places), 1)
        (slope,) = torch.autograd.grad(total, x, allow_unused=True)
    if slope is None:
        return torch.zeros(count, len(places), 1)
    slope = slope.detach().movedim(probed.time_dim + 1 if probed.time_dim >= 0 else probed.time_dim, 1)
    slope = slope.flatten(2) if slope.dim() > 2 else slope.unsqueeze(2)
    return slope[:, places.to(slope.device)].nan_to_num(nan=0.0).to(torch.float64)


def _weights(values: int, variant: int, jitter: float) -> Tensor:
    generator = torch.Generator().manual_seed(values)
    weights = torch.rand(values, generator=generator, dtype=torch.float64) + 0.5
    if variant > 0:
        generator.manual_seed(values + variant)
        weights *= 1 + jitter * torch.rand(values, generator=generator, dtype=torch.float64)
    return weights


def _jitter(x: Tensor) -> float:
    # Far above rounding, and small enough for derivatives to stay what they are.
    return max(1e-4, 4 * torch.finfo(x.dtype).eps)
