"""A module whose start function is an export: it is called, and not run by instantiating it.

Instantiation can't be left in its middle. A start function that is called like any other has a
timeout, gives way to others, and finds a memory that its host calls can reach.

What wasmtime checks of a start section it does not check of an export: that is done here. A call
of a function that takes or gives values, as one that does neither, would end the process.
"""

from __future__ import annotations

from wasm_middleware.engines.module_info import (
    ExternKind,
    ModuleFormatError,
    ModuleInfo,
    Reader,
)
from wasm_middleware.engines.sections import (
    EXPORT,
    ORDER,
    START as START_SECTION,
    join_sections,
    read_sections,
    sized,
    unsigned,
)

#: What it is exported as. No toolchain makes such a name, and no module may have it.
START: str = "wasm-middleware start"

_AFTER_EXPORTS = ORDER[ORDER.index(EXPORT) + 1 :]


def export_start(wasm: bytes, info: ModuleInfo) -> bytes:
    """The module with its start function exported as `START`; the same bytes if it has none.

    Raises `ModuleFormatError` if it can't be read, or has no business with that name or function.
    """
    if any(export.name == START for export in info.exports):
        raise ModuleFormatError(f"it exports {START!r}, a name that is not for modules")

    if info.start is None:
        return wasm

    if info.start != ">":
        raise ModuleFormatError("its start function has parameters or results")

    try:
        sections = read_sections(wasm)
    except IndexError as error:
        raise ModuleFormatError("the file is damaged or cut short") from error

    # The body of the section is the function's number, as an export has it too.
    (start,) = [body for number, body in sections if number == START_SECTION]
    export = sized(START.encode()) + bytes([ExternKind.FUNCTION]) + start
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
