"""What the numbers of a run say: a verdict, and warnings with their evidence.

Belongs here: judging a PPO run by its files. `detectors.py` lists the detectors.
They describe what happened; none predicts.
"""
