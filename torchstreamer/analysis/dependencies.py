"""Which output frame depends on which input frame, for any callable."""

import math
import operator
from typing import Any, Callable, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .arguments import whole_number
from .grouping import Grouping, per_output
from .methods import Spoil, changes, gradients, perturbations, spoil, with_spoilt_tokens
from .probed import Probed, as_function, kind_of

__all__ = ["infer_dependency_matrix", "single_matrix"]

METHODS = ("auto", "perturb", "gradient", "nan")
_TRIED = 4  # frames that are tried alone before others are put together
_BLOCKED = 48  # frames from which on whole blocks of them are tried first


def infer_dependency_matrix(
    model: Callable[..., Any],
    seq_shape: Sequence[int],
    in_stride: int = 1,
    *,
    time_dim: int = 1,
    output_time_dim: Optional[int] = None,
    method: str = "auto",
    bounds: bool = False,
    field: Union[int, Tuple[int, int], None] = None,
    tokens: int = 0,
    dtype: Optional[torch.dtype] = None,
    device: Union[torch.device, str, None] = None,
    rounds: int = 2,
    seed: int = 0,
) -> Any:
    """Find out by experiment which output frame depends on which input frame.

    The model is run on random signals in which frames are changed, many of them in one batch. No single way of
    changing them finds the truth: a perturbation misses what is weak and what is not the largest of a maximum, and so
    does a derivative; a frame that is not a number also reaches what is multiplied by 0, such as masked attention. So
    ``"auto"`` takes what perturbations and derivatives show as a lower bound and what ``nan`` reaches as an upper one,
    and stops as soon as the two are equal.

    Frames that are known to touch different outputs are probed together. That is found out with ``nan`` in blocks of
    frames, or told by ``field``; what contradicts it is noticed.

    Args:
        model: a module in its eval form, a stream (which is run on whole signals), or any function; it takes a batch,
            treats every row for itself (if not, it is run on one probe at a time), and gives a tensor, or a tuple,
            list or dict of tensors
        seq_shape: shape of the input, rows first, by custom ``[batch, frames, features]``
        in_stride: probe only every so many input frames, from the first on
        time_dim: the input's axis of time
        output_time_dim: that of every output; the same by default
        method: ``"auto"``, or one way alone: ``"perturb"``, ``"gradient"``, ``"nan"``
        bounds: whether to return a lower and an upper bound, which differ where the ways do
        field: how many input frames an output looks to the left and to the right of its place ``o · in / out``, at
            most; one number for both
        tokens: for input of whole numbers from 0 on, how many there are
        dtype: dtype of the input; by default that of the model's weights, and int64 for tokens
        device: device of the input; by default that of the model's weights
        rounds: how many random signals perturbations and derivatives try while something is undecided
        seed: of all random values

    Returns:
        a Bool matrix ``[ceil(in / in_stride), out]``, True where an output frame (second index) was shown to depend on
        an input frame (first index); with ``bounds`` two, of which the first is this one. Of a model with several
        outputs, its own structure with a matrix for each

    Raises:
        ValueError: the model is not deterministic or gives no tensor with time; the arguments do not fit each other;
            a dependency lies outside of ``field``; the method cannot be applied to the model

    Example:
        >>> import torch
        >>> from torchstreamer.analysis import infer_dependency_matrix
        >>> conv = torch.nn.Conv1d(8, 8, 3, padding=1)
        >>> deps = infer_dependency_matrix(conv, (1, 8, 6), time_dim=2)
        >>> deps.long()
        tensor([[1, 1, 0, 0, 0, 0],
                [1, 1, 1, 0, 0, 0],
                [0, 1, 1, 1, 0, 0],
                [0, 0, 1, 1, 1, 0],
                [0, 0, 0, 1, 1, 1],
                [0, 0, 0, 0, 1, 1]])
    """
    if method not in METHODS:
        raise ValueError(
            f"invalid_method: {method!r} came; one of {', '.join(METHODS)} was expected; 'auto' is all of them"
        )
    if not callable(model):
        raise TypeError(f"invalid_model: a {type(model).__name__} came; a function or a module was expected; pass one")
    in_stride, rounds = whole_number(in_stride, "in_stride"), whole_number(rounds, "rounds")
    field = None if field is None else _sides(field)
    probed = _probed(model, seq_shape, time_dim, output_time_dim, tokens, dtype, device, seed)
    if probed.whole and method == "gradient":
        raise ValueError(
            "method_not_possible: method='gradient' came with tokens, which have no derivative; use 'auto', 'perturb' "
            "or 'nan'"
        )
    search = _Search(probed, torch.arange(0, probed.frames, in_stride), field)
    if method == "nan":
        lower = upper = search.spoilt()
    elif method == "gradient":
        lower = upper = search.derived(search.grouping)
    elif method == "perturb":
        lower = upper = search.moved(search.grouping, rounds)
    else:
        lower, upper = search.both(rounds)
    if bounds:
        return probed.restored(lower), probed.restored(upper)
    return probed.restored(lower)


def _probed(
    model: Callable[..., Any],
    seq_shape: Sequence[int],
    time_dim: int,
    output_time_dim: Optional[int],
    tokens: int,
    dtype: Optional[torch.dtype],
    device: Union[torch.device, str, None],
    seed: int,
) -> Probed:
    try:
        shape = tuple(operator.index(size) for size in seq_shape)
    except TypeError:
        shape = ()
    if len(shape) < 2 or min(shape) < 1:
        raise ValueError(
            f"invalid_seq_shape: {seq_shape!r} came; rows, frames and whatever else a frame holds were expected, none "
            "of them 0; by custom [batch, frames, features]"
        )
    if not -len(shape) <= time_dim < len(shape) or time_dim % len(shape) == 0:
        raise ValueError(
            f"invalid_time_dim: {time_dim} came for the shape {shape}; an axis after the rows was expected; put the "
            "rows first"
        )
    if tokens < 0 or tokens == 1:
        raise ValueError(
            f"invalid_tokens: {tokens} came; at least 2 tokens, or 0 for none, were expected; say how many there are"
        )
    own_dtype, own_device = kind_of(model)
    if dtype is None:
        dtype = torch.int64 if tokens else own_dtype or torch.get_default_dtype()
    if dtype.is_floating_point == (tokens > 0) or dtype.is_complex:
        raise ValueError(
            f"invalid_dtype: {dtype} came with tokens={tokens}; whole numbers with tokens=, or floating point numbers "
            "without, were expected; say with tokens= how many there are"
        )
    place = own_device if device is None else torch.device(device)
    with torch.no_grad():
        after = time_dim if output_time_dim is None else output_time_dim
        return Probed(as_function(model), shape, time_dim % len(shape), after, dtype, place, tokens, seed)


def _sides(field: Union[int, Tuple[int, int]]) -> Tuple[int, int]:
    try:
        left, right = field if isinstance(field, (tuple, list)) else (field, field)
        return operator.index(left), operator.index(right)
    except (TypeError, ValueError):
        raise ValueError(
            f"invalid_field: field={field!r} came; how many frames an output looks to the left and to the right was "
            "expected, as two whole numbers or one for both; pass such numbers, or none"
        ) from None


class _Search:
    # The ways put together.

    def __init__(self, probed: Probed, places: Tensor, field: Optional[Tuple[int, int]]) -> None:
        self.probed = probed
        self.places = places
        self.told = field is not None
        self.grouping = Grouping.alone(len(places), sum(probed.lengths))
        if field is not None:
            self.grouping = self._of_field(field)
            if self._some_reach_beyond(self.grouping):
                raise self._field_error()

    def spoilt(self) -> Tensor:
        """What ``nan`` reaches: ``[frames, ΣT']``."""
        probed, model = self.probed, self.probed.model
        way: Spoil = spoil
        if probed.whole:
            try:
                way = with_spoilt_tokens(probed)
            except ValueError as error:
                raise ValueError(f"method_not_possible: method='nan' came, but {error}; use method='perturb'") from None
        try:
            grouping = self.grouping if self.told else self._in_blocks(way)
            found = changes(probed, self.places, grouping, way, True)
        finally:
            probed.model = model  # tokens are no longer spoilt
        self._ensure_within(grouping, found)
        return grouping.told_apart(found)

    def moved(self, grouping: Grouping, rounds: int, upper: Optional[Tensor] = None) -> Tensor:
        """What perturbations show."""
        lower = torch.zeros(grouping.reach.shape, dtype=torch.bool)
        for variant in range(rounds):
            if variant > 0:
                with torch.no_grad():
                    self.probed.draw(variant)
            for way in perturbations(self.probed, variant):
                found = changes(self.probed, self.places, grouping, way, False)
                if grouping.beyond(found):
                    if self.told:
                        self._ensure_within(grouping, found)
                    raise _Contradiction
                lower |= grouping.told_apart(found)
                if upper is not None and torch.equal(lower, upper):
                    return lower
        return lower

    def derived(self, grouping: Grouping) -> Tensor:
        """What derivatives show."""
        found, beyond = gradients(self.probed, self.places, grouping)
        if beyond and self.told:
            raise self._field_error()
        if beyond:
            found, _ = gradients(self.probed, self.places, self.grouping)
        return found

    def both(self, rounds: int) -> Tuple[Tensor, Tensor]:
        """The lower and the upper bound."""
        probed, lengths = self.probed, self.probed.lengths
        try:
            upper = self.spoilt()
        except Warning:
            raise
        except Exception:  # the model refuses nan, or its tokens are not looked up
            if self.told:
                raise
            upper = torch.ones(len(self.places), sum(lengths), dtype=torch.bool)
        grouping = self.grouping
        if not self.told:
            first, last = per_output(upper, lengths)
            grouping = Grouping.of(first, last, lengths, spare=True)
        try:
            if not self.told and self._some_reach_beyond(grouping):
                raise _Contradiction
            lower = self.moved(grouping, rounds, upper)
            if bool((lower & ~upper).any()):
                raise _Contradiction
        except _Contradiction:  # what was not a number went unnoticed on its way
            grouping = Grouping.alone(len(self.places), sum(lengths))
            lower = self.moved(grouping, rounds)
        if not probed.whole and not torch.equal(lower, upper):
            lower |= self.derived(grouping)
        return lower, upper | lower

    # ------------------------------------------------------------------ inside

    def _in_blocks(self, way: Spoil) -> Grouping:
        """Groups of frames for ``nan``, from what blocks of frames reach."""
        count, lengths = len(self.places), self.probed.lengths
        if count < _BLOCKED:
            return self.grouping
        size = math.isqrt(count)
        blocks = torch.arange(count) // size
        whole = Grouping(blocks, int(blocks[-1]) + 1, self.grouping.reach)
        reached = changes(self.probed, self.places, whole, way, True)[blocks]
        first, last = per_output(reached, lengths)
        return Grouping.of(first, last, lengths, spare=False)

    def _of_field(self, field: Tuple[int, int]) -> Grouping:
        left, right = field
        first: List[Tensor] = []
        last: List[Tensor] = []
        for length in self.probed.lengths:
            place = torch.arange(length) * self.probed.frames // max(length, 1)
            sees = (self.places[:, None] >= place - left) & (self.places[:, None] <= place + right)
            low, high = per_output(sees, [length])
            first += low
            last += high
        return Grouping.of(first, last, self.probed.lengths, spare=True)

    def _some_reach_beyond(self, grouping: Grouping) -> bool:
        """Whether some frames, each for itself, change what they may not: where frames of a group stand as far apart
        as something reaches, they hide that from each other."""
        frames = len(self.places)
        if grouping.count == frames:
            return False
        chosen = torch.arange(min(_TRIED, frames)) * frames // _TRIED + frames // (2 * _TRIED)
        alone = torch.full((frames,), -1).index_copy_(0, chosen, torch.arange(len(chosen)))
        trial = Grouping(alone, len(chosen), grouping.reach)
        beyond = ~grouping.reach[chosen]
        return any(
            bool((changes(self.probed, self.places, trial, way, False) & beyond).any())
            for way in perturbations(self.probed, 0)
        )

    def _ensure_within(self, grouping: Grouping, found: Tensor) -> None:
        if self.told and grouping.beyond(found):
            raise self._field_error()

    def _field_error(self) -> ValueError:
        return ValueError(
            "invalid_field: an output changed that lies further from the changed frame than field= says; the largest "
            "distance of an output from what it depends on was expected; give a larger one, or none"
        )


class _Contradiction(Exception):
    # A perturbation changed what nan did not reach, so frames may have been taken for each other.
    pass


def single_matrix(result: Any) -> Tensor:
    """The only matrix of a result.

    Raises:
        ValueError: there are several
    """
    matrices = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
    if len(matrices) != 1:
        raise ValueError(
            f"several_outputs: the model has {len(matrices)} outputs; one was expected; wrap it in a function that "
            "returns the one you mean"
        )
    return matrices[0]
