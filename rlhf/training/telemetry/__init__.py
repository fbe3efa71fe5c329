"""What a run tells about itself: metrics, progress, time by phase, memory, the speed of the machine.

At home here: measuring and showing. Nothing here changes what is trained.
"""
