"""`python -m rlhf`, and what `accelerate launch -m rlhf` starts."""

from rlhf.cli import console

if __name__ == "__main__":
    console()
