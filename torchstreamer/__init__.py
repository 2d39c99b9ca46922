"""Exact streaming of PyTorch networks: feed a signal in pieces, get what the network gives on the whole.

import torchstreamer as pts

stream = pts.create_stream(net.eval())
for chunk in microphone:
    y = stream(chunk)      # every output that no later sample can change, or None
y = stream.flush()         # the rest
"""

import typing as _typing

__version__ = "0.1.0"

if _typing.TYPE_CHECKING:
    from .facade import *  # noqa: F403
else:
    # Torch takes seconds to import, and the command line answers --help without it. So the names are loaded when the
    # first of them is used (PEP 562), all together.
    _ROOMS = {"containers", "core", "data", "deploy", "errors", "graph", "layers", "ragged"}

    def _load():
        from importlib import import_module

        if "__all__" not in globals():
            facade = import_module(".facade", __name__)
            globals().update({name: getattr(facade, name) for name in facade.__all__}, __all__=facade.__all__)

    def __getattr__(name):
        from importlib import import_module
        from importlib.util import find_spec

        if name == "models":  # not needed by the rest, and said by its name
            return import_module(".models", __name__)
        # Modules that are imported by their own names, as the handlers are by the rooms, need no others.
        public = name == "__all__" or not name.startswith("_")
        if public and (name in _ROOMS or find_spec(f"{__name__}.{name}") is None):
            _load()
            if name in globals():  # another thread may have loaded them
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        _load()
        return sorted(globals())
