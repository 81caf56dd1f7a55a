"""`make hostile`: play every case, or those whose names are given, and print what came of each.

    python -m tests.hostile [NAME ...]        those that have a NAME in their name

Exits with 1 if one was not contained, and with 2 for a name that no case has.
"""

from __future__ import annotations

import difflib
import sys

from .judge import problems
from .table import CASES
from .worker import Died, Worker


def main(names: list[str]) -> int:
    unknown = [name for name in names if not any(name in case for case in CASES)]

    for name in unknown:
        near = difflib.get_close_matches(name, CASES)
        # There are hundreds: the first words of them, where none is near.
        known = near or [f"{word}…" for word in sorted({case.split("-")[0] for case in CASES})]
        print(f"no such case: {name}; there are {', '.join(known)}", file=sys.stderr)

    if unknown:
        return 2

    worker = Worker()
    failed = played = 0

    try:
        for case in CASES.values():
            if names and not any(name in case.name for name in names):
                continue

            print(f"{case.name}: {case.does}\n    {case.ends.value}", flush=True)

            for policy in case.policies:
                played += 1
                label = f"    {policy:<12}"

                try:
                    seen = worker.play(case.name, policy)
                except Died as error:
                    failed += 1
                    print(f"{label} FAILED: {error}", flush=True)
                    continue

                wrong = problems(case, policy, seen)
                answer = seen.attack if seen.attack is not None else "not started"
                failed += bool(wrong)
                print(
                    f"{label} {'FAILED' if wrong else 'contained'}: {answer} after "
                    f"{1e3 * seen.seconds:.0f} ms, {seen.beside} requests beside it, held up for "
                    f"{1e3 * seen.stall:.1f} ms at most",
                    *(f"\n        {one}" for one in wrong),
                    flush=True,
                )
    finally:
        worker.close()

    print(f"{len(CASES)} modules in the table, {played} runs, {failed} not contained")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
