"""Streams as people read them: with the user's own names."""

from typing import Any, Iterable, List, Tuple

from torch import nn

__all__ = ["described"]


def described(module: nn.Module) -> str:
    """The tree of a stream, as ``repr`` gives it, but for captured models, whose parts bear the model's own names."""
    parts: Any = getattr(module, "named_parts", None)
    if not any(hasattr(child, "named_parts") for child in module.modules()):
        return repr(module)
    children: Iterable[Tuple[str, Any]] = module._modules.items() if parts is None else parts()
    extra = module.extra_repr()
    lines: List[str] = extra.split("\n") if extra else []
    for name, child in children:
        text = described(child) if isinstance(child, nn.Module) else str(child)
        lines.append(f"({name}): " + text.replace("\n", "\n  "))
    return f"{type(module).__name__}(\n  " + "\n  ".join(lines) + "\n)"
