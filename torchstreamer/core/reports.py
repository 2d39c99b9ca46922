"""What `is_streamable` tells of a network."""

from dataclasses import dataclass
from typing import Iterator, Optional, Tuple

__all__ = ["ModuleReport", "OperationReport", "StreamabilityReport"]


@dataclass(frozen=True)
class ModuleReport:
    """One module of a network: its path, its type, and the stream that takes it, or the reason why none does.

    With a stream, a reason says what could not be verified without an example.
    """

    path: str
    module_type: str
    handler: Optional[str]
    reason: str

    def __str__(self) -> str:
        return f"{self.path or '(net)'}: {self.module_type} -> {self._outcome()}"

    def _outcome(self) -> str:
        return ", ".join(part for part in (self.handler or "refused", self.reason) if part)


@dataclass(frozen=True)
class OperationReport(ModuleReport):
    """One operation of a captured model: also its name and the line of the model's source that made it.

    ``path`` and ``module_type`` are those of the module in whose ``forward`` it stands.
    """

    operation: str
    source: str

    def __str__(self) -> str:
        where = f"{self.path or '(net)'}: {self.operation}"
        line = f"   [{self.source}]" if self.source else ""
        return f"{where} -> {self._outcome()}{line}"


@dataclass(frozen=True)
class StreamabilityReport:
    """What `is_streamable` found: true if the whole network can be streamed, and that could be verified; iterates over
    `ModuleReport`, or `OperationReport` for a captured model."""

    modules: Tuple[ModuleReport, ...]

    def __bool__(self) -> bool:
        return all(module.handler is not None and not module.reason for module in self.modules)

    def __iter__(self) -> Iterator[ModuleReport]:
        return iter(self.modules)

    def __str__(self) -> str:
        return "\n".join(str(module) for module in self.modules)
