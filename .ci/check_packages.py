"""Compares a source distribution and a wheel with the files of the tree.

Run at the root of what was packed, as ``python .ci/check_packages.py SDIST WHEEL CLONE``. The clone, which may be the
same folder, says what is in version control; where it cannot, the tree is what is there.
"""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

MADE = {"PKG-INFO", "setup.cfg"}
LEFT_OUT = ("__pycache__", ".egg-info", "_cache", ".hypothesis", ".venv", ".benchmarks")


def tree(clone: str) -> set[str]:
    """The files that belong to the project."""
    try:
        command = ["git", "-C", clone, "ls-files", "-z"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = [Path(name) for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        names = [path for path in Path().rglob("*") if not any(part in path.as_posix() for part in LEFT_OUT)]
        found = [path for path in names if path.parts[0] not in ("build", "dist", "site", ".git")]
    files = {path.as_posix() for path in found if path.is_file()}
    # A link to a folder is packed as the files in it.
    return files | {file.as_posix() for path in found if path.is_symlink() for file in path.glob("*") if file.is_file()}


def main(sdist: str, wheel: str, clone: str) -> int:
    with tarfile.open(sdist) as archive:
        names = {member.name.split("/", 1)[1] for member in archive.getmembers() if member.isfile()}
    held = {name for name in names - MADE if ".egg-info/" not in name}
    wanted = tree(clone)
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = {name for name in wanted if name.startswith("torchstreamer/")}
    wrong = [f"the sdist lacks {name}" for name in sorted(wanted - held)]
    wrong += [f"the sdist has {name} too" for name in sorted(held - wanted)]
    wrong += [f"the wheel lacks {name}" for name in sorted(package - packed)]
    wrong += [f"the wheel has {name} too" for name in sorted(packed - package)]
    print("\n".join(wrong) or f"the sdist holds all {len(held)} files of the tree, the wheel {len(packed)}")
    return 1 if wrong or "torchstreamer/py.typed" not in packed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
