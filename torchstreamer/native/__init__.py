"""A stream as one C++ file: values in rows, operations on them, and the text that a compiler takes.

This room knows no streams. What a stream computes is put into a `Program` by the room above, `deploy/native.py`.
"""

from .emit import written
from .program import Fault, Program, Ref, Value

__all__ = ["Fault", "Program", "Ref", "Value", "written"]
