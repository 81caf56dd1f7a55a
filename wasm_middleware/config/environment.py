"""`${VAR}` in the configuration, as OpenTelemetry's declarative configuration has it.

    ${VAR}  ${env:VAR}     the variable; unset without a default is a mistake
    ${VAR:-default}        the default where the variable is unset or empty
    $$                     one dollar sign

It works on scalars after parsing, so a value can't bring YAML of its own, and the result is not
read again, so it can't bring references either. Keys are left alone. Values may be secrets: no
message here contains one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from wasm_middleware.config.problems import Mistake, Problem

__all__ = ["REFERENCE_PATTERN", "substitute"]

#: A scalar that holds a reference, for an editor.
REFERENCE_PATTERN: Final = r"\$\{"

_TOKEN: Final = re.compile(r"\$\$|\$\{(?P<inside>[^}\n]*)(?P<end>\}?)")
_INSIDE: Final = re.compile(r"(?:env:)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-.*)?")


def substitute(text: str, environ: Mapping[str, str]) -> str:
    """Replace every reference in `text`; raise `Mistake` with one problem for each bad one."""
    problems: list[Problem] = []

    def replacement(token: re.Match[str]) -> str:
        if token[0] == "$$":
            return "$"

        try:
            return _value(token, environ)
        except Mistake as mistake:
            problems.extend(mistake.problems)
            return ""

    replaced = _TOKEN.sub(replacement, text)

    if problems:
        raise Mistake(*problems)

    return replaced


def _value(token: re.Match[str], environ: Mapping[str, str]) -> str:
    reference = _INSIDE.fullmatch(token["inside"]) if token["end"] else None

    if reference is None:
        raise Mistake(
            Problem(
                "not a reference to an environment variable",
                "write ${NAME} or ${NAME:-default}, and $$ for a dollar sign",
            )
        )

    name, default = reference["name"], reference["default"]
    value = environ.get(name)

    if default is not None:
        return value or default[len(":-") :]

    if value is None:
        raise Mistake(
            Problem(
                f"the environment variable {name} is not set",
                f"set it, or write ${{{name}:-default}}",
            )
        )

    return value
