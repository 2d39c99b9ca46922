"""The models are modules of their own, importable by name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
