"""Looks at one domain or at all of this user's, again and again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from pylocks import errors
from pylocks.observe.looks import Looks
from pylocks.observe.model import Snapshot, plain
from pylocks.observe.people import People
from pylocks.observe.places import Place, anonymous_places, named_places, place_of
from pylocks.observe.snap import snapshot

__all__ = ["Seen", "Survey", "plain_survey"]

_SEARCH_EVERY_S = 5.0
"""Domains without a name are found by going through all descriptors of all processes."""


@dataclass(frozen=True)
class Seen:
    """What was found at a place: a domain, or why it is none that can be read."""

    place: Place
    domain: Snapshot | None
    error: Exception | None

    @property
    def label(self) -> str:
        """How to name it on the command line."""
        return self.domain.label if self.domain is not None else (self.place.name or self.place.path)


class Survey:
    """One domain, or all that belong to this user."""

    def __init__(self, domain: str | None = None) -> None:
        """ValueError, UnknownDomainError if one is named that can't be."""
        self._one = place_of(domain) if domain is not None else None
        self._people, self._looks = People(), Looks()
        self._anonymous: list[Place] = []
        self._search_at = 0.0

    def look(self) -> list[Seen]:
        """Look once; a domain that can't be read is a row with an error."""
        if self._one is not None:
            return [self._look_at(self._one)]
        if time.monotonic() >= self._search_at:
            self._anonymous = anonymous_places()
            self._search_at = time.monotonic() + _SEARCH_EVERY_S
        seen = [self._look_at(place) for place in named_places()]
        # What is gone, or was never a domain, says nothing of this user's domains.
        nameless = [self._look_at(place) for place in self._anonymous]
        return seen + [row for row in nameless if not isinstance(row.error, _NOTHING)]

    def _look_at(self, place: Place) -> Seen:
        try:
            return Seen(place, self._looks.add(snapshot(place, self._people)), None)
        except (errors.DomainError, OSError) as error:
            return Seen(place, None, error)


_NOTHING = (errors.ForeignFileError, errors.UnknownDomainError)


def plain_survey(seen: list[Seen]) -> dict[str, Any]:
    """As JSON has it."""
    return {
        "domains": [plain(row.domain) for row in seen if row.domain is not None],
        "errors": [
            {
                "domain": row.place.name,
                "path": row.place.path,
                "kind": type(row.error).__name__,
                "error": str(row.error),
            }
            for row in seen
            if row.error is not None
        ],
    }
