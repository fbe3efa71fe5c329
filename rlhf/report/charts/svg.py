"""SVG text: elements with escaped attributes and text."""

from collections.abc import Sequence

from markupsafe import Markup, escape

from rlhf.printable import visible


def element(name: str, *children: Markup | str, **attributes: str | float) -> Markup:
    """Return an element; `class_` is the attribute `class`, `text_anchor` is `text-anchor`. Plain text is escaped."""
    shown = "".join(f' {_name(key)}="{escape(_value(value))}"' for key, value in attributes.items())
    inside = "".join(str(child if isinstance(child, Markup) else escape(visible(child))) for child in children)
    return Markup(f"<{name}{shown}>{inside}</{name}>" if inside else f"<{name}{shown}/>")  # noqa: S704 - escaped above


def path(points: Sequence[tuple[float, float]], *, closed: bool = False) -> str:
    """Return the `d` of a path through points."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + ("Z" if closed else "")


def _name(key: str) -> str:
    return {"class_": "class", "viewBox": "viewBox"}.get(key, key.replace("_", "-"))


def _value(value: str | float) -> str:
    return visible(value) if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
