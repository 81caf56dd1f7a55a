"""The schema for editors, against a validator of just the keywords that it uses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
import yaml

from wasm_middleware.config import json_schema

from .test_settings import EVERY_FIELD, LOOM_PAGES

SCHEMA = json_schema()

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
ANNOTATIONS = {"title", "description", "default", "$schema", "definitions"}


def complaints(value: object, schema: dict) -> Iterator[str]:  # type: ignore[type-arg]
    """Give what draft-07 finds wrong with a value."""
    for keyword, argument in schema.items():
        if keyword in ANNOTATIONS or (keyword == "items" and not isinstance(value, list)):
            continue

        match keyword, value:
            case "$ref", _:
                name = argument.removeprefix("#/definitions/")
                yield from complaints(value, SCHEMA["definitions"][name])  # type: ignore[index]
            case "allOf", _:
                for part in argument:
                    yield from complaints(value, part)
            case "anyOf", _:
                if all(list(complaints(value, part)) for part in argument):
                    yield f"{value!r} is none of {argument}"
            case "type", _:
                names = [argument] if isinstance(argument, str) else argument
                known = tuple(kind for name in names for kind in TYPES[name])

                if not isinstance(value, known) or (isinstance(value, bool) and bool not in known):
                    yield f"{value!r} is no {argument}"
            case "enum", _:
                if value not in argument:
                    yield f"{value!r} is not in {argument}"
            case "pattern", str():
                if not re.search(argument, value):
                    yield f"{value!r} does not match {argument}"
            case (("minimum" | "maximum"), int()):
                if value < argument if keyword == "minimum" else value > argument:
                    yield f"{value} is out of bounds"
            case "required", dict():
                yield from (f"{key} is missing" for key in argument if key not in value)
            case "properties", dict():
                for key in value.keys() & argument.keys():
                    yield from complaints(value[key], argument[key])
            case "additionalProperties", dict():
                for key in value.keys() - schema.get("properties", {}).keys():
                    if argument is False:
                        yield f"{key} is unknown"
                    else:
                        yield from complaints(value[key], argument)
            case "propertyNames", dict():
                for key in value:
                    yield from complaints(key, argument)
            case "items", list():
                for item in value:
                    yield from complaints(item, argument)
            case (("minItems" | "minLength"), (list() | str())):
                if len(value) < argument:
                    yield f"{value!r} is too short"
            case "uniqueItems", list():
                if len({json.dumps(item) for item in value}) < len(value):
                    yield f"{value!r} repeats itself"
            case (
                ("pattern" | "minimum" | "maximum" | "minItems" | "uniqueItems" | "minLength"),
                _,
            ):
                pass
            case (("required" | "properties" | "additionalProperties" | "propertyNames"), _):
                pass
            case _:
                raise AssertionError(f"the schema uses a keyword unknown to this test: {keyword}")


@pytest.mark.parametrize("text", [EVERY_FIELD, *LOOM_PAGES, "plugins: []"])
def test_files_as_users_write_them_are_accepted(text: str) -> None:
    assert list(complaints(yaml.safe_load(text), SCHEMA)) == []


def test_references_are_accepted_where_numbers_will_be() -> None:
    text = "plugins: [{name: '${A}', path: '${A}', priority: '${A}', timeout: '${A:-5s}'}]"
    assert list(complaints(yaml.safe_load(text), SCHEMA)) == []


@pytest.mark.parametrize(
    "text",
    [
        "plugins: [{name: a}]",
        "plugins: [{name: a, path: b, priorty: 5}]",
        "plugins: [{name: a, path: b, timeout: 50}]",
        "plugins: [{name: a, path: b, memory_limit: 16 parsecs}]",
        "plugins: [{name: a, path: b, phase: on_request}]",
        "plugins: [{name: a, path: b, phase: []}]",
        "plugins: [{name: a, path: b, url: c}]",
        "plugins: [{name: a, path: b, instances: {max: 0}}]",
        "plugins: [{name: a b, path: b}]",
        "routes: [{path: private}]",
        "routes: [{path: /, plugins: a}]",
        "defaults: {name: a}",
        "engine: v8",
        "upstreams: http://127.0.0.1:9000",
    ],
)
def test_mistakes_are_marked_in_the_editor(text: str) -> None:
    assert list(complaints(yaml.safe_load(text), SCHEMA))


def test_every_field_is_described() -> None:
    definitions = SCHEMA["definitions"]
    assert isinstance(definitions, dict)

    for schema in [SCHEMA, *definitions.values()]:
        assert schema["additionalProperties"] is False
        assert all(field.get("description") for field in schema["properties"].values())


def test_defaults_are_shown_as_they_are_written() -> None:
    fields = SCHEMA["definitions"]["PluginSettings"]["properties"]  # type: ignore[index]
    assert {name: fields[name]["default"] for name in fields if "default" in fields[name]} == {
        "mandatory": False,
        "phase": [
            "on_request_headers",
            "on_request_body",
            "on_response_headers",
            "on_response_body",
            "on_log",
        ],
        "priority": 0,
        "config": "",
        "compile": "in_process",
        "memory_limit": "16MB",
        "timeout": "50ms",
        "request_timeout": "none",
        "log_rate": 1000,
        "pause_timeout": "30s",
        "body_limit": "10MB",
        "bodies": "auto",
        "type": "http",
        "isolation": "shared",
        "ticks": "singleton",
        "allow_on_headers_stop_iteration": False,
        "log_level": "info",
        "failure_policy": "fail_closed",
        "environment": {},
        "root_id": "",
        "vm_id": "",
        "vm_config": "",
    }


def test_the_schema_is_plain_json_of_draft_07() -> None:
    text = json.dumps(SCHEMA)
    assert json.loads(text) == SCHEMA
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert "$defs" not in text
    assert "prefixItems" not in text
