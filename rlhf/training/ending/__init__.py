"""What ends a run before its last step, takes it back to a checkpoint, or chooses the step that is its result.

`course.py` holds all of it for the loop; the other files have one rule each.
"""
