"""Plain dataclasses read from JSON strictly, written back, and described as a JSON Schema.

One walk over the type hints serves all three, so that code and schema cannot drift apart. Known
types: str, int, float, bool, None, Literal, ``X | None``, ``tuple[X, ...]``, ``tuple[X, Y]``,
``dict[str, X]``, ``Any`` (any JSON), dataclasses, and unions of dataclasses that a literal field
``type`` tells apart. ``Annotated[str, pattern]`` and ``Annotated[X, range]`` narrow a type.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pylon_zoo.errors import ManifestError

__all__ = ["decode", "encode", "json_schema", "parse_json"]

_UNIONS = (Union, types.UnionType)
_SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean"}


def parse_json(text: str) -> Any:
    """Parse JSON, refusing what Python's parser lets through: repeated keys, NaN, Infinity.

    Raises:
        ValueError: the text is not such JSON.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in items]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"the field {key!r} comes twice")
        return dict(items)

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is not a number that JSON knows")

    return json.loads(text, object_pairs_hook=pairs, parse_constant=constant)


def decode(hint: Any, value: Any, where: str) -> Any:
    """Make a ``hint`` of parsed JSON.

    Args:
        hint: a type, see the module's docstring.
        value: parsed JSON.
        where: path of the value, for messages, e.g. ``"checkpoints[0].sha256"``.

    Raises:
        ManifestError: wrong type, unknown or missing field, value out of its pattern or range.
    """
    if hint is Any:
        return value
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _narrow(decode(args[0], value, where), args[1], where)
    if origin is Literal:
        if value not in args or type(value) is not type(args[0]):
            raise _wrong(where, value, " or ".join(json.dumps(arg) for arg in args))
        return value
    if origin in _UNIONS:
        return _decode_union(args, value, where)
    if dataclasses.is_dataclass(hint):
        return _decode_dataclass(hint, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(where, value, "a list")
        hints = (args[0],) * len(value) if args[-1] is Ellipsis else args
        if len(hints) != len(value):
            raise _wrong(where, value, f"a list of {len(hints)} values")
        return tuple(
            decode(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(hints, value, strict=True))
        )
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong(where, value, "an object")
        return {key: decode(args[1], v, f"{where}.{key}") for key, v in value.items()}
    return _decode_scalar(hint, value, where)


def _decode_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is type(None) and value is None:
        return None
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint or (hint is float and not math.isfinite(value)):
        raise _wrong(where, value, f"a {_SCALARS.get(hint, 'null')}")
    return value


def _decode_union(args: tuple[Any, ...], value: Any, where: str) -> Any:
    if type(None) in args:
        if value is None:
            return None
        (hint,) = (arg for arg in args if arg is not type(None))
        return decode(hint, value, where)
    by_type = {get_args(_hints(arg)["type"])[0]: arg for arg in args}
    kind = value.get("type") if isinstance(value, dict) else None
    if kind not in by_type:
        raise _wrong(where, value, f"an object whose type is {' or '.join(sorted(by_type))}")
    return decode(by_type[kind], value, where)


def _decode_dataclass(cls: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(where, value, "an object")
    hints = _hints(cls)
    for key in value:
        if key not in hints:
            raise ManifestError(f"{where}.{key}: unknown field. Known: {', '.join(hints)}.")
    for key in hints:
        if key not in value:
            raise ManifestError(f"{where}.{key}: this field is missing.")
    fields = {key: decode(hint, value[key], f"{where}.{key}") for key, hint in hints.items()}
    try:
        return cls(**fields)
    except ManifestError as error:
        raise ManifestError(f"{where}.{error}") from error


def _narrow(value: Any, limit: Any, where: str) -> Any:
    if isinstance(limit, str) and not re.fullmatch(limit, value):
        raise _wrong(where, value, f"a string like {limit}")
    if isinstance(limit, range) and not limit.start <= value < limit.stop:
        raise _wrong(where, value, f"{limit.start} or more")
    return value


def _wrong(where: str, value: Any, expected: str) -> ManifestError:
    received = json.dumps(value)
    received = received if len(received) <= 80 else received[:77] + "..."
    return ManifestError(f"{where}: expected {expected}; got {received}.")


def _hints(cls: Any) -> dict[str, Any]:
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def encode(value: Any) -> Any:
    """The JSON of a dataclass, the reverse of :func:`decode`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: encode(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(v) for v in value]
    return value


def json_schema(hint: Any, title: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what :func:`decode` accepts, cross-checks aside."""
    definitions: dict[str, Any] = {}
    body = _schema(hint, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **body,
        "$defs": definitions,
    }


def _schema(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if hint is Any:
        return {}
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        narrow = {"pattern": args[1]} if isinstance(args[1], str) else {"minimum": args[1].start}
        return {**_schema(args[0], definitions), **narrow}
    if origin is Literal:
        return {"enum": list(args)}
    if origin in _UNIONS:
        return {"anyOf": [_schema(arg, definitions) for arg in args]}
    if dataclasses.is_dataclass(hint):
        name = str(getattr(hint, "__name__", hint))
        if name not in definitions:
            definitions[name] = {}
            hints = _hints(hint)
            definitions[name] = {
                "type": "object",
                "description": (hint.__doc__ or "").strip().splitlines()[0],
                "properties": {key: _schema(h, definitions) for key, h in hints.items()},
                "required": list(hints),
                "additionalProperties": False,
            }
        return {"$ref": f"#/$defs/{name}"}
    if origin is tuple and args[-1] is Ellipsis:
        return {"type": "array", "items": _schema(args[0], definitions)}
    if origin is tuple:
        items = [_schema(arg, definitions) for arg in args]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(args[1], definitions)}
    return {"type": "null" if hint is type(None) else _SCALARS[hint]}
