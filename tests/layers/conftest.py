"""What several tests of layers share is in modules of its own, importable by name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
