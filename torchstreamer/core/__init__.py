"""The contract of a stream, what it remembers, and how streams are made."""

from .. import handlers as _handlers  # whoever comes in by this room finds all of them

del _handlers
