"""The JSON schema of a configuration file, for editors.

Editors' YAML language servers read draft-07. Pydantic writes 2020-12, which differs in what is
used here by the name of one key, and in that draft-07 ignores whatever stands beside a `$ref`.
"""

from __future__ import annotations

from pydantic.json_schema import GenerateJsonSchema

from wasm_middleware.config.settings import Settings

__all__ = ["json_schema"]


class _Generator(GenerateJsonSchema):
    """Pydantic's generator without the titles it makes up from names."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


def json_schema() -> dict[str, object]:
    """Describe the file that `load_settings` reads, in JSON Schema draft-07."""
    schema = Settings.model_json_schema(
        ref_template="#/definitions/{model}", schema_generator=_Generator
    )
    definitions = schema.pop("$defs")
    schema["title"] = "wasm-middleware configuration"
    head = {"$schema": "http://json-schema.org/draft-07/schema#"}
    return _mapping_as_draft_07({**head, **schema, "definitions": definitions})


def _as_draft_07(schema: object) -> object:
    if isinstance(schema, list):
        return [_as_draft_07(item) for item in schema]

    return _mapping_as_draft_07(schema) if isinstance(schema, dict) else schema


def _mapping_as_draft_07(schema: dict[str, object]) -> dict[str, object]:
    result = {key: _as_draft_07(value) for key, value in schema.items()}

    if result.get("default", "") is None or "$ref" in result:
        # The default of a mapping is that of its keys; null is not written by anybody.
        result.pop("default", None)

    if "$ref" in result and len(result) > 1:
        result["allOf"] = [{"$ref": result.pop("$ref")}]

    return result
