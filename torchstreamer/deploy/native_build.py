"""The system's compiler, and libraries that it makes of C++, each once for a source, a compiler and a machine."""

import functools
import hashlib
import os
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import List, Optional, Tuple

from .exported_file import read_sealed
from .files import LIBRARY_SEAL, replacing, seal

__all__ = ["build", "built", "compiler", "features", "missing_features"]

# Strict about nan and inf, and no longer than it pays: see "Run it without Python".
_FLAGS = ("-std=gnu++17", "-O3", "-march=native", "-fPIC", "-shared")
_COMPILERS = ("g++", "clang++", "c++")

# Of a compiler's macros those that say which instructions it takes, and what Linux calls these.
_FEATURES = ("avx", "avx2", "fma", "f16c", "bmi2", "avx512f", "avx512bw", "avx512dq", "avx512vl")

_KEPT_BYTES = 1 << 30  # of all libraries in the cache
_STALE_SECONDS = 86400.0  # after which what a build left behind is nobody's


def compiler() -> Optional[Tuple[str, ...]]:
    """The command of the system's compiler: what ``CXX`` says, or g++ or clang++; ``None`` if there is none."""
    told = shlex.split(os.environ.get("CXX", ""))
    if told:
        return tuple(told) if shutil.which(told[0]) else None
    return next(((name,) for name in _COMPILERS if shutil.which(name)), None)


def _required() -> Tuple[str, ...]:
    found = compiler()
    if found is None:
        told = os.environ.get("CXX")
        came = f"CXX={told!r} names none" if told else "none of g++, clang++ and c++ is on the PATH"
        raise RuntimeError(
            f"no_compiler: {came}; a compiler of C++17 was expected; install g++ or clang, or say in CXX where it is"
        )
    return found


@functools.cache
def _macros(command: Tuple[str, ...], path: str, changed: float) -> str:
    # Which compiler it is and what it takes this machine for. Another one in its place is asked anew.
    asked = [*command, "-march=native", "-dM", "-E", "-x", "c++", os.devnull]
    found = subprocess.run(asked, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if found.returncode:
        raise RuntimeError(_failed(asked, found.stderr))
    return found.stdout


def _described(command: Tuple[str, ...]) -> str:
    path = shutil.which(command[0]) or command[0]
    return _macros(command, path, os.stat(path).st_mtime)


def features() -> List[str]:
    """Instructions beyond the usual ones that a library for this machine may have."""
    defined = set(re.findall(r"^#define __(\w+)__ ", _described(_required()), re.MULTILINE))
    return [name for name in _FEATURES if name.upper() in defined]


def missing_features(wanted: List[str]) -> List[str]:
    """Those of such instructions that this machine lacks, as far as it tells."""
    if not os.path.exists("/proc/cpuinfo"):
        return []
    found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
    return [] if found is None else sorted(set(wanted) - set(found[1].split()))


def build(source: str, target: Path) -> None:
    """Compile C++ to a library.

    Args:
        source: the text
        target: the library

    Raises:
        RuntimeError: there is no compiler, or it failed
    """
    command = _required()
    with tempfile.TemporaryDirectory(prefix="torchstreamer-") as folder:
        written = Path(folder) / "net.cpp"
        written.write_text(source, encoding="utf-8")
        asked = [*command, *_FLAGS, str(written), "-o", str(target)]
        done = subprocess.run(asked, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(_failed(asked, done.stderr))


def _failed(asked: List[str], said: str) -> str:
    lines = said.strip().splitlines()
    reason = next((line for line in lines if "error" in line), lines[0] if lines else "it said nothing")
    return (
        f"compiler_failed: {shlex.join(asked)} gave: {reason[:300]}; a library was expected; try another compiler, "
        "named in CXX"
    )


def built(source: str) -> Path:
    """A library of C++, which is compiled where no process of this user has done so before.

    Args:
        source: the text

    Raises:
        RuntimeError: there is no compiler, or it failed
    """
    command = _required()
    told = "\0".join([source, *command, *_FLAGS, _described(command)])
    place = _folder() / f"{hashlib.sha256(told.encode()).hexdigest()[:40]}.so"
    if not _whole(place):
        # Whoever is first, or last: all of them are alike, and none is seen before it is whole.
        with replacing(place, ".so") as new:
            build(source, new)
            seal(new)
        _prune(place)
    os.utime(place)
    return place


def _whole(place: Path) -> bool:
    try:
        read_sealed(place, LIBRARY_SEAL)
    except (OSError, ValueError):
        return False
    return True


def _folder() -> Path:
    told = os.environ.get("TORCHSTREAMER_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(told or os.path.join(base, "torchstreamer")) / "native"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if _is_ours(folder):
            return folder
    except OSError:
        pass
    return Path(_own_folder(os.getpid()).name)


def _is_ours(folder: Path) -> bool:
    # Nobody else may put code there that this process would run.
    found = os.stat(folder)
    mine = found.st_uid == os.getuid() if hasattr(os, "getuid") else True
    return mine and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and os.access(folder, os.W_OK)


@functools.cache
def _own_folder(process: int) -> "tempfile.TemporaryDirectory[str]":
    # Where there is no home that can be written to: for this process alone.
    return tempfile.TemporaryDirectory(prefix="torchstreamer-")


def _prune(newest: Path) -> None:
    # Forget what was used longest ago, and what builds left behind that were ended.
    found = []
    for entry in newest.parent.iterdir():
        try:
            about = entry.stat()
        except OSError:
            continue
        if entry.suffix == ".so":
            found.append((about.st_mtime, about.st_size, entry))
        elif entry.name.startswith(".torchstreamer-") and time.time() - about.st_mtime > _STALE_SECONDS:
            shutil.rmtree(entry, ignore_errors=True)
    total = 0
    for _, size, entry in sorted(found, reverse=True):
        total += size
        if total > _KEPT_BYTES and entry != newest:
            entry.unlink(missing_ok=True)
