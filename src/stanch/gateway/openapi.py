"""The OpenAPI 3.1 document of the endpoints, made from the structures that requests are read into."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from stanch import __version__
from stanch.gateway.app import Endpoint
from stanch.gateway.problem import statuses

_SCHEMA = "#/components/schemas/{name}"
_RULES = {
    "ChatRequest": (("stream_options", "stream"), ("top_logprobs", "logprobs")),
    "CompletionRequest": (("stream_options", "stream"),),
}
"""Fields that say nothing unless another one is true, by the request that has them."""

_PROBLEM = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["type", "code", "message", "incident"],
            "properties": {name: {"type": "string"} for name in ("type", "code", "message", "incident")},
        }
    },
}


def describe_endpoints(endpoints: Mapping[str, Endpoint]) -> dict[str, Any]:
    """Return the document. A request that it allows is read; what the policies and budgets say is another matter."""
    kinds = [endpoint.request for endpoint in endpoints.values()]
    _, schemas = msgspec.json.schema_components(kinds, ref_template=_SCHEMA)
    for name, pairs in _RULES.items():
        schemas[name]["allOf"] = [_needs(*pair) for pair in pairs]
    schemas["ResponsesRequest"]["properties"]["store"]["const"] = False
    paths: dict[str, Any] = {}
    for target, endpoint in endpoints.items():
        method, _, path = target.partition(" ")
        paths[path] = {method.lower(): _operation(endpoint)}
    keys = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        "certificate": {"type": "mutualTLS"},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "stanch gateway", "version": __version__},
        "security": [{name: []} for name in keys],
        "paths": paths,
        "components": {"schemas": dict(_translated(schemas)) | {"Problem": _PROBLEM}, "securitySchemes": keys},
    }


def _needs(field: str, other: str) -> dict[str, Any]:
    """Return the rule that a field may stand only where another one is true."""
    said = {"properties": {field: {"not": {"type": "null"}}}, "required": [field]}
    return {"if": said, "then": {"properties": {other: {"const": True}}, "required": [other]}}


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    forms = ("application/json",) if endpoint.speech is None else ("application/json", "text/event-stream")
    problem = {"application/json": {"schema": {"$ref": _SCHEMA.format(name="Problem")}}}
    request = {"application/json": {"schema": {"$ref": _SCHEMA.format(name=endpoint.request.__name__)}}}
    answers = {str(status): {"description": meaning, "content": problem} for status, meaning in statuses().items()}
    return {
        "operationId": endpoint.dialect,
        "summary": f"Ask a model in the dialect {endpoint.dialect}.",
        "requestBody": {"required": True, "content": request},
        "responses": {"200": {"description": "The answer.", "content": {form: {} for form in forms}}} | answers,
    }


def _translated(schemas: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each schema in the words of JSON Schema: its regular expressions are those of ECMA-262."""

    def translate(value: Any) -> Any:  # noqa: ANN401 - JSON
        if isinstance(value, dict):
            return {
                name: part.replace(r"\Z", "$") if name == "pattern" and isinstance(part, str) else translate(part)
                for name, part in value.items()
            }
        return [translate(part) for part in value] if isinstance(value, list) else value

    for name, schema in schemas.items():
        yield name, translate(schema)
