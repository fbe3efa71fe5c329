"""`python -m rlhf`, and what `accelerate launch -m rlhf` starts."""

import sys

from rlhf.cli import main

if __name__ == "__main__":
    sys.exit(main())
