"""The proofs import their neighbours by bare name: they are plain functions, and take no fixtures."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
