"""torch-streamer 0.0.2, the library whose API ours continues.

Its package has our package's name, so it is loaded from a folder of its own under another one.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

__all__ = ["load_peer"]

REQUIREMENT = "torch-streamer==0.0.2"
CACHE = Path(__file__).parent.parent / ".benchmarks" / "torch-streamer-0.0.2"
NAME = "torch_streamer_peer"


def load_peer(folder: Path | None = None) -> ModuleType:
    """The peer's package.

    Args:
        folder: where it is unpacked; without it, pip fetches it from PyPI once, with nothing that it depends on
    """
    if folder is None:
        folder = CACHE
        if not (folder / "torchstreamer").is_dir():
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
            if subprocess.run([*command, REQUIREMENT]).returncode != 0:
                raise SystemExit(f"{REQUIREMENT} could not be fetched; unpack it by hand and pass its folder as --peer")
    package = folder / "torchstreamer"
    spec = importlib.util.spec_from_file_location(
        NAME, package / "__init__.py", submodule_search_locations=[str(package)]
    )
    if spec is None or spec.loader is None or not package.is_dir():
        raise SystemExit(f"{folder} holds no package torchstreamer; fetch it with pip install --target")
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module  # TorchScript looks the source up by the module's name
    spec.loader.exec_module(module)
    return module
