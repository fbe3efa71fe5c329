"""`rlhf doctor`: finds what would go wrong in a PPO run before it begins."""

from rlhf.doctor.examination import examine

__all__ = ["examine"]
