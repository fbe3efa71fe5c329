"""Token ids in four bytes each: a tuple of Python integers takes about forty."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload


class TokenIds(Sequence[int]):
    """Ids that never change. They are equal to a tuple of the same ids, hash as it does, and are shown as it is."""

    __slots__ = ("_ids",)

    def __init__(self, ids: Iterable[int]) -> None:
        """Copy the ids.

        Raises:
            OverflowError: an id needs more than 31 bits.
        """
        self._ids = array("i", ids)

    def __len__(self) -> int:
        """Return the number of ids."""
        return len(self._ids)

    def __iter__(self) -> Iterator[int]:
        """Return the ids one by one."""
        return iter(self._ids)

    @overload
    def __getitem__(self, place: int) -> int: ...

    @overload
    def __getitem__(self, place: slice) -> "TokenIds": ...

    def __getitem__(self, place: int | slice) -> "int | TokenIds":
        """Return one id, or a part of them."""
        return TokenIds(self._ids[place]) if isinstance(place, slice) else self._ids[place]

    def __eq__(self, other: object) -> bool:
        """Compare with other ids, stored like these or as a tuple."""
        if isinstance(other, TokenIds):
            return self._ids == other._ids
        return tuple(self._ids) == other

    def __hash__(self) -> int:
        """Return the hash of the tuple."""
        return hash(tuple(self._ids))

    def __repr__(self) -> str:
        """Show every id, as a tuple does: digests of records are made of this."""
        return repr(tuple(self._ids))
