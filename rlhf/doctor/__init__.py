"""`rlhf doctor`: what can be known to go wrong before a PPO run begins."""

from rlhf.doctor.examination import examine

__all__ = ["examine"]
