"""`rlhf watch`: the report of a run that is going on, on this machine alone.

Belongs here: when the page is made again, and who gets it. Not here: what it shows.
"""
