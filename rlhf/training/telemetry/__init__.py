"""What a run reports about itself: metrics, progress, time by phase, memory, the speed of the machine.

Belongs here: measuring and showing. Nothing here changes what is trained.
"""
