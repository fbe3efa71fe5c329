"""What each section of the page shows, as records that the templates print.

Belongs here: choosing and wording. Not here: HTML, drawing, judging.
"""
