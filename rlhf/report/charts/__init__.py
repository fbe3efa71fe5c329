"""Charts as SVG text: lines over steps, forest plots. Colours are classes, which the page or a style sheet defines.

Belongs here: drawing. Not here: what is drawn.
"""
