"""What differs between two pins, grouped by table and by kind of layer."""

from fnmatch import fnmatchcase
from typing import Any, Dict, List, Sequence, Tuple

Pin = Dict[str, Any]
Difference = Tuple[str, str]  # the subject, and what differs

EXAMPLES = 3
_MISSING = "(none)"


def differences(before: Pin, after: Pin) -> Dict[Tuple[str, str], List[Difference]]:
    """Differences of the groups of subjects that both pins have, by table and kind."""
    found: Dict[Tuple[str, str], List[Difference]] = {}
    for group in common_groups(before, after):
        one, other = before["groups"][group], after["groups"][group]
        for name in {**one, **other}:
            if name not in one or name not in other:
                kind = (one.get(name) or other[name])["kind"]
                found.setdefault(("subject", kind), []).append((name, "gone" if name in one else "new"))
                continue
            a, b, kind = one[name]["tables"], other[name]["tables"], one[name]["kind"]
            for table in {**a, **b}:
                if a.get(table, _MISSING) != b.get(table, _MISSING):
                    told = first_difference(a.get(table, _MISSING), b.get(table, _MISSING))
                    found.setdefault((table, kind), []).append((name, told))
    return found


def common_groups(before: Pin, after: Pin) -> List[str]:
    return [group for group in before["groups"] if group in after["groups"]]


def first_difference(before: Any, after: Any) -> str:
    """The first place at which two tables differ, and what stands there."""
    if isinstance(before, list) and isinstance(after, list) and before and after:
        at = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), None)
        if at is None:
            return f"{len(before)} entries -> {len(after)}"
        return f"[{at}] {first_difference(before[at], after[at])}"
    return f"{_short(before)} -> {_short(after)}"


def _short(value: Any) -> str:
    text = value.strip() if isinstance(value, str) else str(value)
    return text if len(text) <= 100 else text[:97] + "..."


def expected(table: str, kind: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern names the table, or ``table@kind``."""
    return any(fnmatchcase(table, pattern) or fnmatchcase(f"{table}@{kind}", pattern) for pattern in patterns)


def report(found: Dict[Tuple[str, str], List[Difference]], patterns: Sequence[str]) -> Tuple[str, int]:
    """The differences as a text, and how many of them no pattern names."""
    lines: List[str] = []
    unexpected = 0
    tables: Dict[str, int] = {}
    for (table, kind), all_of_them in sorted(found.items()):
        known = expected(table, kind, patterns)
        unexpected += 0 if known else len(all_of_them)
        if table not in tables:
            tables[table] = sum(len(each) for (other, _), each in found.items() if other == table)
            lines.append(f"{table}: {tables[table]}")
        lines.append(f"  {kind}: {len(all_of_them)}{' (expected)' if known else ''}")
        lines += [f"    {name}: {told}" for name, told in all_of_them[:EXAMPLES]]
    total = sum(tables.values())
    lines.append(f"{total} differences, {unexpected} of them unexpected")
    return "\n".join(lines), unexpected
