"""What a published model must have to be taken for what it is, without its package."""

from typing import Any, Optional, Sequence

from torch import nn

from ..errors import StreamInputError

__all__ = ["ensure", "found"]


def found(model: Any, path: str) -> Any:
    """What stands at a path of attributes, such as ``"config.sampling_rate"``; ``None`` if nothing does."""
    at = model
    for name in path.split("."):
        at = at.get(name) if isinstance(at, dict) else getattr(at, name, None)
        if at is None:
            return None
    return at


def ensure(model: Any, name: str, needed: Sequence[str], expected: str, example: Optional[str] = None) -> None:
    """Refuse what is not the model that a function takes.

    Args:
        model: what came
        name: of the function
        needed: paths of attributes that it must have
        expected: which classes have them
        example: what to do instead

    Raises:
        StreamInputError: ``unknown_published_model``
    """
    lacking = [path for path in needed if found(model, path) is None]
    if isinstance(model, nn.Module) and not lacking:
        return
    what = f"a {type(model).__name__}" + (f" without {lacking[0]}" if isinstance(model, nn.Module) else "")
    raise StreamInputError(
        f"unknown_published_model: models.{name} got {what}; {expected} was expected; "
        f"{example or 'pass the model itself, or stream its parts with pts.create_stream(part, example=…)'}"
    )
