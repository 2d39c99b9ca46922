"""The model of the algebra is a module of its own, importable by name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
