"""The models and helpers of other tests are modules of their own, importable by name."""

import sys
from pathlib import Path

for folder in ("deploy", "graph", "models"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
