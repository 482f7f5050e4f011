"""Bounds on lists from clients, checked before anything is made of their elements.

msgspec makes all elements of a list before it compares their number with `max_length`: millions of
objects for a body of some megabytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, Raw, UnsetType

from gateway.front.a2a.errors import invalid

if TYPE_CHECKING:
    from collections.abc import Callable


def length_check(most: int) -> Callable[[Raw, str], None]:
    """Make a check that a JSON text, if it is a list, has at most so many elements; what else may
    be wrong with it is not looked at. The check raises InvalidRequest, naming the place."""
    # A list that msgspec decodes as an object with so many fields: it stops at the first one more.
    fields = [(f"at_{index}", Raw | UnsetType, UNSET) for index in range(most)]
    bounded = msgspec.defstruct("List", fields, array_like=True, forbid_unknown_fields=True)
    decode = msgspec.json.Decoder(bounded).decode

    def check(text: Raw, place: str) -> None:
        view = memoryview(text)
        if len(view) <= 2 * most or view[0] != ord("["):  # an element has a byte and a comma
            return
        try:
            decode(text)
        except msgspec.ValidationError:
            raise invalid(f"{place} has more than {most} elements", place) from None
        except (msgspec.DecodeError, RecursionError):
            return

    return check
