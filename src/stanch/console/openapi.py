"""The OpenAPI 3.1 document of the control API, made from the table of routes and its structures."""

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from stanch import __version__
from stanch.console.route import API, Route

_REF = "#/components/schemas/{name}"


class Problem(Struct, frozen=True, omit_defaults=True):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    why: str = ""
    next: str = ""


def describe(routes: Iterable[Route]) -> dict[str, Any]:
    """Return the document of all routes that programs may use."""
    shown = [route for route in routes if route.for_programs]
    kinds = list(dict.fromkeys([Problem, *(kind for route in shown for kind in (route.asks, route.answers))]))
    _, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in shown:
        paths.setdefault(API + route.path, {})[route.method.lower()] = _operation(route, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "stanch control API", "version": __version__},
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, components: dict[str, Any]) -> dict[str, Any]:
    told = (route.handler.__doc__ or "").strip().partition("\n")[0]
    problem = {"application/problem+json": {"schema": {"$ref": _REF.format(name="Problem")}}}
    parameters = [
        {"name": word, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for word in route.words
    ]
    operation: dict[str, Any] = {
        "operationId": route.name.replace(".", "_"),
        "summary": told,
        "x-cedar-actions": list(route.actions),
        "parameters": parameters,
        "responses": {
            "200": {
                "description": "Done.",
                "content": {"application/json": {"schema": {"$ref": _REF.format(name=route.answers.__name__)}}},
            },
            **{
                status: {"description": text, "content": problem}
                for status, text in (
                    ("400", "The request is malformed."), ("401", "Who asks could not be established."),
                    ("403", "Not permitted."), ("404", "Not there, or not to be seen."), ("409", "It does not hold."),
                )
            },
        },
    }  # fmt: skip
    if route.method == "GET":
        for name, schema in components[route.asks.__name__].get("properties", {}).items():
            parameters.append({"name": name, "in": "query", "schema": schema})
    else:
        body = {"application/json": {"schema": {"$ref": _REF.format(name=route.asks.__name__)}}}
        operation["requestBody"] = {"required": True, "content": body}
        key = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"}
        parameters.append({"name": "Idempotency-Key", "in": "header", "schema": key})
    return operation
