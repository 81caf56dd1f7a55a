"""A module whose start function is an export: it is called, and not run by instantiating it.

Instantiation can't be left in its middle. A start function that is called like any other has a
timeout, gives way to others, and finds a memory that its host calls can reach.
"""

from __future__ import annotations

from wasm_middleware.engines.module_info import ExternKind, ModuleFormatError, Reader
from wasm_middleware.engines.sections import (
    EXPORT,
    ORDER,
    START as START_SECTION,
    join_sections,
    read_sections,
    sized,
    unsigned,
)

#: What it is exported as. No toolchain makes such a name.
START: str = "wasm-middleware start"

_AFTER_EXPORTS = ORDER[ORDER.index(EXPORT) + 1 :]


def export_start(wasm: bytes) -> bytes:
    """The module with its start function exported as `START`; the same bytes if it has none.

    Raises `ModuleFormatError` if it can't be read.
    """
    try:
        sections = read_sections(wasm)
    except IndexError as error:
        raise ModuleFormatError("the file is damaged or cut short") from error

    starts = [body for number, body in sections if number == START_SECTION]

    if not starts:
        return wasm

    if len(starts) > 1 or not starts[0]:
        raise ModuleFormatError("it has more than one start section")

    # The body of the section is the function's number, as an export has it too.
    export = sized(START.encode()) + bytes([ExternKind.FUNCTION]) + starts[0]
    return join_sections(wasm, _moved(sections, export))


def _moved(sections: list[tuple[int, bytes]], export: bytes) -> list[tuple[int, bytes]]:
    moved = []
    exported = False

    for number, body in sections:
        if number == EXPORT:
            reader = Reader(body, 0, len(body))
            count = reader.number()
            moved.append((EXPORT, unsigned(count + 1) + body[reader.position :] + export))
            exported = True
            continue

        if number in _AFTER_EXPORTS and not exported:
            moved.append((EXPORT, b"\1" + export))
            exported = True

        if number != START_SECTION:
            moved.append((number, body))

    return moved
