"""Do gradients through a streamed signal equal the offline ones, and do streams follow their weights?"""

import copy
from typing import Any, List, Optional, Sequence

import torch
from torch import Tensor, nn

from .chunkings import Chunking, chunkings, even_chunks, split_signal, total_length
from .report import Recorder, VerificationError
from .subject import Subject
from .walking import difference, play, walk

__all__ = ["check_cut", "check_gradients", "check_live_weights"]


def check_gradients(subject: Subject, recorder: Recorder, weights: Sequence[nn.Parameter]) -> None:
    """Gradients of the input and of the weights, for several chunkings; calls without gradients must not spoil them.

    Args:
        subject: what is verified
        recorder: takes the check down
        weights: the weights that stream and reference share
    """
    n = subject.fit(subject.settled + 20)
    cases: List[Chunking] = [
        (n,),
        even_chunks(n, 1) if n <= 200 else even_chunks(n, n // 100),
        *chunkings(n, subject.seed, 8)[1:6],
    ]
    weights = [weight for weight in weights if weight.requires_grad]
    with torch.enable_grad():
        x = subject.signal(n)
        leaves: List[Tensor] = [x.requires_grad_()] if subject.differentiable else []
        leaves += weights
        expected = subject.reference(x.clone())
        if not expected.requires_grad or not leaves:
            recorder.skip("gradients", "trainable", "the reference has no gradients")
            return
        mask = _mask(expected)
        wanted = _gradients((expected * mask).sum(), leaves)
        count = 0
        for chunking in cases:
            pieces = play(subject.make(), x, chunking)
            y = torch.cat(pieces, -1)
            if not y.requires_grad:
                raise VerificationError(
                    "trainable", "the streamed output carries no gradients; the offline one does", chunking
                )
            try:
                found = _gradients((y * mask).sum(), leaves)
            except RuntimeError as error:
                raise VerificationError("trainable", f"the backward pass raised {error}", chunking) from error
            _compare(subject, found, wanted, chunking)
            count += 1
        _check_spoiled(subject, x, leaves)
    recorder.ran("gradients", "trainable", count + 1)


def check_cut(subject: Subject, recorder: Recorder) -> None:
    """``detach_state()`` and ``deepcopy`` cut the path into earlier chunks, and change no value."""
    with torch.enable_grad():
        n = subject.settled + 3
        total = subject.fit(2 * n + 20)
        one = subject.signal(n).requires_grad_(subject.differentiable)
        two = subject.signal(total)[..., n:].clone().requires_grad_(subject.differentiable)
        stream = subject.make()
        pieces = [stream(one.clone())]
        try:
            copied: Optional[Any] = copy.deepcopy(stream)
        except Exception:
            copied = None  # said by another check
        stream.detach_state()
        pieces += [stream(two.clone()), stream.flush()]
        others = [] if copied is None else [copied(two.clone()), copied.flush()]
        expected = subject.offline(total)
        assert expected is not None
        y = torch.cat([piece for piece in pieces if piece is not None], -1)
        if y.shape != expected.shape or difference(y, expected, subject.scale) > subject.tolerance:
            raise VerificationError("trainable", "detach_state() changes what comes out", (n, total - n, None))
        if not subject.differentiable:
            recorder.skip("cut gradients", "trainable", f"signals of {subject.dtype} have no gradients")
            return
        for name, later in (("detach_state()", pieces[1:]), ("deepcopy", others)):
            for y in later:
                if y is not None and y.requires_grad:
                    (reached,) = torch.autograd.grad(y.sum(), [one], retain_graph=True, allow_unused=True)
                    if reached is not None:
                        raise VerificationError(
                            "trainable", f"{name} does not cut the gradient's path into earlier chunks"
                        )
    recorder.ran("cut gradients", "trainable", 1 if copied is None else 2)


def check_live_weights(subject: Subject, recorder: Recorder, weights: Sequence[nn.Parameter]) -> None:
    """A stream sees weights that were changed in place, without being made anew."""
    if not weights:
        recorder.skip("live weights", "live", "there are no weights")
        return
    chunking = (subject.settled, 1, subject.rest(subject.settled + 1, 2), None)
    n = total_length(chunking)
    kept = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        stream = subject.make()
        play(stream, subject.signal(n), chunking)
        try:
            for weight in weights:
                weight.mul_(1.25).add_(0.01)
            changed = Subject(**{**{f: getattr(subject, f) for f in _FIELDS}, "typical": max(n, subject.typical)})
            failure = walk(changed, stream, chunking)
            if failure is not None and walk(changed, subject.make(), chunking) is None:
                raise VerificationError("live", f"the stream does not see changed weights: {failure.detail}", chunking)
            if failure is not None:
                raise VerificationError("live", f"with changed weights {failure.detail}", chunking)
        finally:
            for weight, value in zip(weights, kept, strict=True):
                weight.copy_(value)
    recorder.ran("live weights", "live", 1)


_FIELDS = (
    "make",
    "reference",
    "module",
    "rows",
    "channels",
    "dtype",
    "device",
    "tolerance",
    "domain",
    "knows_length",
    "seed",
    "thorough",
    "multiple",
)


def _check_spoiled(subject: Subject, x: Tensor, leaves: List[Tensor]) -> None:
    # Gradients of the first outputs, after later calls without gradients, which may write in place.
    half = subject.settled
    stream = subject.make()
    y = stream(x[..., :half])
    with torch.no_grad():
        for chunk, _ in split_signal(subject.signal(60), even_chunks(60, 1)):
            stream(chunk)
    if y is None or not y.requires_grad:
        return
    whole = subject.reference(x.clone())[..., : y.shape[-1]]
    mask = _mask(y)
    try:
        found = _gradients((y * mask).sum(), leaves)
    except RuntimeError as error:
        raise VerificationError(
            "trainable", f"later calls without gradients spoil the backward pass: {error}"
        ) from error
    _compare(subject, found, _gradients((whole * mask).sum(), leaves), (half,))


def _mask(y: Tensor) -> Tensor:
    steps = torch.arange(y.numel(), dtype=torch.float64, device=y.device).reshape(y.shape)
    return torch.cos(steps * 1.7 + 0.3).to(y.dtype)


def _gradients(loss: Tensor, inputs: List[Tensor]) -> List[Tensor]:
    found = torch.autograd.grad(loss, inputs, allow_unused=True)
    return [torch.zeros_like(one) if grad is None else grad for one, grad in zip(inputs, found, strict=True)]


def _compare(subject: Subject, found: List[Tensor], wanted: List[Tensor], chunking: Chunking) -> None:
    tops = [float(each[each.isfinite()].abs().max()) if bool(each.isfinite().any()) else 0.0 for each in wanted]
    for i, (grad, expected) in enumerate(zip(found, wanted, strict=True)):
        # One that is 0, as of a bias that a softmax takes away again, is rounding errors of the others.
        top = max(tops[i], 1e-5 * max(tops))
        wrong = difference(grad, expected, top if top > 0 else 1.0)
        if wrong > subject.tolerance:
            weight = i - 1 if subject.differentiable else i
            of = "the input" if weight < 0 else f"weight {weight}, shape {tuple(expected.shape)},"
            raise VerificationError(
                "trainable",
                f"the gradient of {of} differs from the offline one by {wrong:.2g} of its scale, "
                f"{subject.tolerance:.0e} is allowed",
                chunking,
            )
