"""Every error code of the package, read from its source."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torchstreamer as pts
from torchstreamer.testing import VerificationError

__all__ = ["codes_of_package", "rules_of_verifier"]

_CODE = "[a-z]+(?:_[a-z]+)*"
_OPENS = re.compile(rf"({_CODE}): ")
_MADE = re.compile(rf"({_CODE}_)$")  # of an f-string: what stands before the name of an argument


@cache
def codes_of_package() -> set[str]:
    """All codes; ``invalid_…`` for those that end in the name of an argument."""
    found = set()
    for path in sorted(Path(pts.__file__).parent.rglob("*.py")):
        checks = "testing" in path.parts
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and _name(node.exc) != "VerificationError":
                found |= set(_opening(node))
            elif isinstance(node, ast.Call) and not checks:
                found |= set(_named(node))
            elif isinstance(node, (ast.Return, ast.Assign)) and not checks:
                found |= set(_opening(node))
    return found - rules_of_verifier()


@cache
def rules_of_verifier() -> set[str]:
    """The rules with which a `VerificationError` opens."""
    found = set(re.findall(rf'``"({_CODE})"``', VerificationError.__doc__ or ""))
    for path in sorted((Path(pts.__file__).parent / "testing").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and _name(node) == "VerificationError"
                and isinstance(node.args[0], ast.Constant)
            ):
                found.add(node.args[0].value)
    return found


def _name(call: ast.AST | None) -> str:
    if not isinstance(call, ast.Call):
        return ""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _opening(statement: ast.AST) -> Iterator[str]:
    """Codes that open a message inside a statement."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            match = _OPENS.match(node.value)
        elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
            match = _OPENS.match(node.values[0].value)
            made = _MADE.match(node.values[0].value)
            if made and len(node.values) > 2 and str(getattr(node.values[2], "value", "")).startswith(": "):
                yield made[1] + "…"
        else:
            continue
        if match:
            yield match[1]


def _named(call: ast.Call) -> Iterator[str]:
    """The code among the arguments of an error, or of what makes one."""
    if "rror" in _name(call) or "refus" in _name(call).lower():
        for argument in call.args[:3]:
            if isinstance(argument, ast.Constant) and re.fullmatch(_CODE, str(argument.value)):
                yield str(argument.value)
                break
        for argument in call.args[:1]:
            yield from _opening(argument)
