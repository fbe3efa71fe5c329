"""The fuzz tests import their strategies by bare name, as hypothesis needs them before any fixture exists."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
