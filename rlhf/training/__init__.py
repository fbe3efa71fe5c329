"""What the supervised stages and PPO share: checkpoints, metrics, the run directory, signals and randomness."""
