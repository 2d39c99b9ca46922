"""The pin: what streams say of their geometry and what they keep, to be compared before and after a change.

    python tests/geometry/pin.py write FILE.json
    python tests/geometry/pin.py compare BEFORE.json AFTER.json

`write` describes 400 random layers, 120 random networks and the models of `tests/models`, of the package that Python
finds; another checkout is described with ``PYTHONPATH=CHECKOUT``. `compare` lists what differs, and exits with 1 if
anything does that ``--expect`` does not name.
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Optional, Sequence

import torch

sys.path.insert(0, str(Path(__file__).parent))

from differences import common_groups, differences, report
from layers import layers
from networks import models, networks
from subjects import Subject
from tables import tables_of

import torchstreamer as pts

GROUPS: Dict[str, Callable[[], Iterable[Subject]]] = {"layers": layers, "networks": networks, "models": models}


def describe(subjects: Iterable[Subject], progress: Callable[[str], None] = lambda name: None) -> Dict[str, Any]:
    """The tables of subjects, by name."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for subject in subjects:
            progress(subject.name)
            found[subject.name] = {"kind": subject.kind, "tables": tables_of(subject)}
    return found


class Progress:
    """Tells on stderr which subject is at work, at most twice a second."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.count = 0
        self.start = time.monotonic()
        self.told = self.start - 0.5

    def __call__(self, name: str) -> None:
        self.count += 1
        now = time.monotonic()
        if now - self.told >= 0.5 or self.group == "models":
            self.told = now
            print(f"{now - self.start:6.1f} s  {self.group} {self.count}: {name}", file=sys.stderr, flush=True)


def write(path: str, groups: Sequence[str]) -> None:
    torch.set_num_threads(1)
    print(f"torchstreamer of {Path(pts.__file__).parent}", file=sys.stderr)
    pin: Dict[str, Any] = {"torch": torch.__version__, "groups": {}}
    for group in groups:
        pin["groups"][group] = describe(GROUPS[group](), Progress(group))
    Path(path).write_text(json.dumps(pin, indent=0, separators=(",", ":")))
    counts = ", ".join(f"{len(found)} {group}" for group, found in pin["groups"].items())
    print(f"{counts} written to {path}", file=sys.stderr)


def compare(before: str, after: str, patterns: Sequence[str]) -> int:
    one, other = (json.loads(Path(path).read_text()) for path in (before, after))
    if one["torch"] != other["torch"]:
        print(f"note: written with torch {one['torch']} and {other['torch']}")
    groups = common_groups(one, other)
    print("compared: " + ", ".join(f"{len(one['groups'][group])} {group}" for group in groups))
    text, unexpected = report(differences(one, other), patterns)
    print(text)
    return 1 if unexpected else 0


def main(arguments: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write", help="describe the package that Python finds")
    writing.add_argument("file")
    writing.add_argument("--only", nargs="+", choices=list(GROUPS), default=list(GROUPS), help="some groups only")
    comparing = commands.add_parser("compare", help="list what differs between two files")
    comparing.add_argument("before")
    comparing.add_argument("after")
    comparing.add_argument(
        "--expect",
        nargs="+",
        default=[],
        metavar="TABLE[@KIND]",
        help="patterns of tables, or of tables of a kind, that may differ: repr 'static.*.lag@linear'",
    )
    given = parser.parse_args(arguments)
    if given.command == "write":
        write(given.file, given.only)
        return 0
    return compare(given.before, given.after, given.expect)


if __name__ == "__main__":
    sys.exit(main())
