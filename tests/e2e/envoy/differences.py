"""What differs between two observations, as text, and what shall differ."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: By the name of what was observed: lines of Envoy alone after `-`, lines of ours alone after `+`.
Differences = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Decision:
    """A difference that is meant, with its reason for users, and exactly what shows it.

    `shows` is a text: under a line `CASE: NAME` the lines that differ there. It covers nothing
    else: whatever more differs in such a case fails.
    """

    id: str
    reason: str
    shows: str

    def differences(self, case: str) -> Differences:
        """What shows it in a case; nothing in most."""
        return self.by_case().get(case, {})

    def by_case(self) -> Mapping[str, Differences]:
        cases: dict[str, dict[str, tuple[str, ...]]] = {}
        names: dict[str, tuple[str, ...]] = {}
        name = ""

        for line in self.shows.strip().splitlines():
            if line[:2] in ("- ", "+ "):
                names[name] = (*names[name], line)
            else:
                case, _, name = line.partition(": ")
                names = cases.setdefault(case, {})
                names[name] = ()

        return cases


def differences(
    envoy: Mapping[str, Sequence[str]], ours: Mapping[str, Sequence[str]]
) -> Differences:
    found = {}

    for name in sorted({*envoy, *ours}):
        theirs, mine = envoy.get(name, ()), ours.get(name, ())

        if theirs != mine:
            lines = difflib.ndiff(theirs, mine)
            found[name] = tuple(line for line in lines if line[:2] in ("- ", "+ "))

    return found
