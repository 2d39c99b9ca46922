"""The real torchaudio as a reference: its Python files, with a stand-in for its compiled library.

The library of torchaudio 2.11 does not load with the torch of these checks, but most of what the package computes is
written in Python. Install it without what it asks for: ``pip install --no-deps -c constraints.txt torchaudio``.
"""

import functools
import importlib
import importlib.util
import sys
import types
import warnings
from typing import Any

import pytest

__all__ = ["torchaudio"]

# What the files import of the compiled library; nothing of it is used here.
_EXTENSION = {
    "fail_if_no_align": lambda function: function,
    "lazy_import_sox_ext": None,
    "_IS_ALIGN_AVAILABLE": False,
    "_IS_RNNT_AVAILABLE": False,
    "_IS_TORCHAUDIO_EXT_AVAILABLE": False,
}


def torchaudio(part: str = "functional") -> Any:
    """A module of torchaudio, such as ``"functional"``, ``"transforms"`` or ``"compliance.kaldi"``.

    The test that asks is skipped, with the reason, where torchaudio is not installed.
    """
    found = _module(part)
    if isinstance(found, str):
        pytest.skip(found)
    return found


@functools.cache
def _module(part: str) -> Any:
    package = sys.modules.get("torchaudio") or _package()
    if package is None:
        return "torchaudio is not installed: pip install --no-deps -c constraints.txt torchaudio"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they tell that the package is in maintenance
            return importlib.import_module(f"torchaudio.{part}")
    except Exception as error:
        return f"torchaudio's own Python does not run with this torch: {type(error).__name__}: {error}"


def _package() -> Any:
    spec = importlib.util.find_spec("torchaudio")
    if spec is None or spec.submodule_search_locations is None:
        return None
    package, extension = types.ModuleType("torchaudio"), types.ModuleType("torchaudio._extension")
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    vars(extension).update(_EXTENSION)
    package._extension = extension  # type: ignore[attr-defined]
    sys.modules.update({"torchaudio": package, "torchaudio._extension": extension})
    return package
