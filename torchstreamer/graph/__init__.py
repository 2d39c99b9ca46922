"""Any exportable model as a stream: captured as a graph of ATen operations, each lowered to a stream on prefixes."""

from .. import handlers as _handlers  # whoever comes in by this room finds all of them

del _handlers
