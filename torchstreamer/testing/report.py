"""What a verification tells: the rule that was broken, or the checks that ran."""

from dataclasses import dataclass
from typing import Iterator, List, Optional, Tuple

from ..core.describe import samples
from .chunkings import Chunking, total_length

__all__ = ["Check", "VerificationError", "VerificationReport"]


_LONGEST = 2000  # characters of a detail


class VerificationError(AssertionError):
    """A stream breaks the contract. The message opens with the rule that it breaks.

    Args:
        rule: ``"exact"``, ``"prompt"``, ``"none"``, ``"final"``, ``"isolated"``, ``"safe"``, ``"bounded"``,
            ``"state"``, ``"scriptable"``, ``"trainable"``, ``"live"`` or ``"static"``
        detail: what came and what was expected
        chunking: the smallest chunking that shows it, if it depends on one

    Attributes:
        rule: the rule that is broken
        detail: what came and what was expected
        chunking: the smallest chunking that shows it, or ``None``

    Example:
        >>> from torchstreamer.testing import VerificationError
        >>> print(VerificationError("final", "5 of 6 samples came", (4, 1)))
        final: 5 of 6 samples came; smallest failing chunking of 5 samples: (4, 1)
    """

    def __init__(self, rule: str, detail: str, chunking: Optional[Chunking] = None) -> None:
        if len(detail) > _LONGEST:  # the text of an error may hold whole arrays
            detail = f"{detail[: _LONGEST // 2]} … {detail[-_LONGEST // 2 :]}"
        super().__init__(rule, detail, chunking)
        self.rule = rule
        self.detail = detail
        self.chunking = chunking

    def __str__(self) -> str:
        text = f"{self.rule}: {self.detail}"
        if self.chunking is not None:
            text += f"; smallest failing chunking of {samples(total_length(self.chunking))}: {self.chunking}"
        return text


@dataclass(frozen=True)
class Check:
    """One check: its name, the rule of the contract, how many cases it tried, and why it was skipped, if it was."""

    name: str
    rule: str
    cases: int
    skipped: str = ""

    def __str__(self) -> str:
        outcome = f"skipped, {self.skipped}" if self.skipped else f"{self.cases} cases"
        return f"{self.rule:>10}  {self.name}: {outcome}"


@dataclass(frozen=True)
class VerificationReport:
    """The checks that a stream passed. Iterates over `Check`, and prints as a table.

    Attributes:
        checks: the checks, in the order in which they ran
    """

    checks: Tuple[Check, ...]

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks)

    def __str__(self) -> str:
        return "\n".join(str(check) for check in self.checks)

    def cases(self, name: str) -> int:
        """How many cases the checks of this name tried; 0 if they were skipped or there are none."""
        return sum(check.cases for check in self.checks if check.name == name)

    @property
    def skipped(self) -> Tuple[Check, ...]:
        """The checks that did not run."""
        return tuple(check for check in self.checks if check.skipped)


class Recorder:
    """Collects checks while they run."""

    def __init__(self) -> None:
        self.checks: List[Check] = []

    def ran(self, name: str, rule: str, cases: int) -> None:
        assert cases > 0, f"check {name!r} tried nothing"
        self.checks.append(Check(name, rule, cases))

    def skip(self, name: str, rule: str, reason: str) -> None:
        self.checks.append(Check(name, rule, 0, reason))

    def report(self) -> VerificationReport:
        return VerificationReport(tuple(self.checks))
