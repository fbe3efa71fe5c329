"""What a stranger may put in a file or a request: any JSON, a good one with a few things wrong, or no JSON at all.

`RLHF_FUZZ=long` (`make fuzz`) tries other values each time, and more of them; without it each run tries the same few.
"""

import copy
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

SECONDS = 20
"""What one example may take; it is far more than any needs."""
LONGER = 10
"""Times as many examples in a long run."""
_COMMON = {"deadline": SECONDS * 1000, "suppress_health_check": list(HealthCheck), "print_blob": False}
settings.register_profile("quick", derandomize=True, database=None, **_COMMON)
settings.register_profile("long", derandomize=False, **_COMMON)
PROFILE = os.environ.get("RLHF_FUZZ", "quick")


def trials(num: int) -> settings:
    """Return settings for `num` examples, more in a long run."""
    return settings(settings.get_profile(PROFILE), max_examples=num * (LONGER if PROFILE == "long" else 1))


NUMBERS = st.sampled_from([0, 1, -1, 2, 3, 1.5, -0.0, 1e308, float("nan"), float("inf"), 10**30, 10**400, -(10**30)])
TEXTS = st.sampled_from(
    ["", "a", "1", "null", "a b", "\0", "\ud800", "../x", "/etc/passwd", "a/b", "{{", "%", "\x1b[2J"]
)
SCALARS = st.none() | st.booleans() | NUMBERS | st.integers() | st.floats() | TEXTS | st.text(max_size=5)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
"""A value that JSON or YAML can hold."""
GARBAGE = st.binary(max_size=40) | st.sampled_from(
    [b"", b"[" * 20_000, b'{"a":' * 20_000, b"\xff\xfe", b"{}", b"[]", b"null", b"1", b"9" * 5000, b'"', b"\0"]
)
"""The bytes of a file that is something else."""


@st.composite
def damaged(draw: st.DrawFn, good: Any, keys: Sequence[str] = ()) -> Any:
    """Draw a copy of a JSON value with one to three places changed, removed or added; `keys` may be added anywhere."""
    value = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_containers(value))
        if not places:
            return draw(ANYTHING)
        place = draw(st.sampled_from(places))
        known = list(place) if isinstance(place, dict) else list(range(len(place)))
        added = list(keys) if isinstance(place, dict) else []
        if not known + added:
            continue
        key = draw(st.sampled_from(known + added))
        if key in known and draw(st.integers(0, 4)) == 0:
            del place[key]
        else:
            place[key] = draw(ANYTHING)
    return value


def file_content(good: Any, keys: Sequence[str] = ()) -> st.SearchStrategy[bytes]:
    """Draw the bytes of a JSON file that was good once."""
    return damaged(good, keys).map(as_json) | GARBAGE


def as_json(value: Any) -> bytes:
    """Return a value as Python writes it: NaN and half surrogate pairs included, which others refuse."""
    return json.dumps(value).encode()


def _containers(value: Any) -> Iterable[Any]:
    if isinstance(value, dict | list) and value:
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from _containers(item)
