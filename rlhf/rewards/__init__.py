"""What scores a response, asked within its deadline, checked, cached, its failures sorted.

At home here: one reward and its answer. Several rewards become one score in `rlhf/ppo/scoring/`.
"""
