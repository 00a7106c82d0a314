"""Which class a name means: of a folder, of an option, of a field of the page. One rule for all.

First the name as it is written; then whatever its case, where only one class is left that fits.
Accents have one form (Unicode's NFC), so that a folder from a Mac is the class of everybody else.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def normal_name(name: str) -> str:
    """Return a class name with its accents in one form, without spaces around it."""
    return unicodedata.normalize("NFC", name).strip()


def match_classes(names: Sequence[str], classes: Sequence[str]) -> list[int | None]:
    """Return the place of each name in classes; None for a name that fits none.

    A class that a name is written exactly like is no other name's.

    Args:
        names: each different from the others.
        classes: what they may mean.

    Raises:
        ValueError: a name that differs in case only from several classes, or several names that
            differ in case only from one.
    """
    exact = {normal_name(name): place for place, name in reversed(list(enumerate(classes)))}
    found = [exact.get(normal_name(name)) for name in names]
    taken = set(found)
    alike: dict[str, list[int]] = {}
    for place, name in enumerate(classes):
        if place not in taken:
            alike.setdefault(_any_case(name), []).append(place)
    claims: dict[int, str] = {}
    for number, name in enumerate(names):
        places = alike.get(_any_case(name), []) if found[number] is None else []
        if len(places) > 1:
            several = " or ".join(classes[place] for place in places)
            raise ValueError(f"{name!r} could be {several}: write it as one of them")
        for place in places:
            if place in claims:
                raise ValueError(
                    f"{claims[place]!r} and {name!r} differ in case only, and both could "
                    f"be {classes[place]!r}: rename one of them"
                )
            claims[place], found[number] = name, place
    return found


def find_class(name: str, classes: Sequence[str]) -> int | None:
    """Return the place of one name in classes, as `match_classes`."""
    return match_classes([name], classes)[0]


def _any_case(name: str) -> str:
    return unicodedata.normalize("NFC", normal_name(name).casefold())
