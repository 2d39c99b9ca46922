"""The libraries that ours is compared with, each in a folder of its own.

torch-streamer 0.0.2, whose API ours continues, has our package's name, so it is loaded under another one.
torchstream-lib 1.0.2 streams any model as a black box. Those that stream convolutions stand in `peers.py`.
"""

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

__all__ = ["FOLDERS", "fetch", "load_black_box", "load_loader", "load_peer"]

FOLDERS = Path(__file__).parent.parent / ".benchmarks"
REQUIREMENT = "torch-streamer==0.0.2"
CACHE = FOLDERS / "torch-streamer-0.0.2"
NAME = "torch_streamer_peer"
BLACK_BOX = "torchstream-lib==1.0.2"
BLACK_BOX_CACHE = FOLDERS / "torchstream-lib-1.0.2"
LOADER = "pytorch-stream-dataloader==1.0"
LOADER_CACHE = FOLDERS / "pytorch-stream-dataloader-1.0"
# What the black box imports besides torch, by module; fetched where it is not installed.
BLACK_BOX_NEEDS = {
    "numpy": "numpy",
    "scipy": "scipy",
    "z3": "z3-solver",
    "opentelemetry": "opentelemetry-api",
    "typing_extensions": "typing_extensions",
    "colorama": "colorama",
}


def fetch(folder: Path, *requirements: str) -> bool:
    """Let pip put packages from PyPI into a folder, with nothing that they depend on, torch above all.

    Returns:
        whether it could
    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    return subprocess.run([*command, *requirements]).returncode == 0


def load_peer(folder: Path | None = None) -> ModuleType:
    """The peer's package.

    Args:
        folder: where it is unpacked; without it, pip fetches it from PyPI once, with nothing that it depends on
    """
    if folder is None:
        folder = CACHE
        if not (folder / "torchstreamer").is_dir() and not fetch(folder, REQUIREMENT):
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


def load_black_box(folder: Path | None = None) -> ModuleType | None:
    """The package of torchstream-lib, or ``None``, with a message, where it cannot be had.

    Args:
        folder: where it and what it needs are unpacked; without it, pip fetches them from PyPI once
    """
    if folder is None:
        folder = BLACK_BOX_CACHE
        if not (folder / "torchstream").is_dir():
            needed = [name for module, name in BLACK_BOX_NEEDS.items() if importlib.util.find_spec(module) is None]
            fetch(folder, BLACK_BOX, *needed)
    if not (folder / "torchstream").is_dir():
        print(f"without {BLACK_BOX}: it could not be fetched; unpack it by hand and pass its folder as --peer")
        return None
    sys.path.append(str(folder))  # behind everything else, so that it shadows nothing
    try:
        return importlib.import_module("torchstream")
    except ImportError as error:
        print(f"without {BLACK_BOX}: {error}; install it into {folder} with pip install --no-deps --target")
        return None


def load_loader(folder: Path | None = None) -> ModuleType:
    """pytorch-stream-dataloader 1.0, with its two classes in one module.

    Args:
        folder: where it is unpacked; without it, pip fetches it from PyPI once, with nothing that it depends on
    """
    if folder is None:
        folder = LOADER_CACHE
        if not (folder / "pytorch_stream_dataloader").is_dir() and not fetch(folder, LOADER):
            raise SystemExit(f"{LOADER} could not be fetched; unpack it by hand and pass its folder as --peer")
    sys.path.insert(0, str(folder))
    both = ModuleType("pytorch_stream_dataloader_both")
    both.StreamDataset = importlib.import_module("pytorch_stream_dataloader.stream_dataset").StreamDataset
    both.StreamDataLoader = importlib.import_module("pytorch_stream_dataloader.stream_dataloader").StreamDataLoader
    return both
