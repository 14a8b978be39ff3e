"""A validator of JSON under a schema that fetches nothing and takes a bounded time for any text."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

# Keywords of the schema looked at for one value: a schema that refers to itself in several
# alternatives takes time exponential in the depth of what is judged.
MAX_STEPS = 50_000
# Seconds for one match of a schema's `pattern`.
TIME_LIMIT = 0.1


class TooLongError(Exception):
    """The judgement takes too long."""


def errors(validator: Any, value: Any) -> Iterator[Any]:
    """What is wrong with `value`, each a `jsonschema.ValidationError`.

    Raises:
        TooLongError: where it takes too long to say.
    """
    _STEPS.left = MAX_STEPS
    try:
        yield from validator.iter_errors(value)
    except RecursionError as error:
        raise TooLongError from error


@cache
def make_validator(text: str) -> Any:
    """A validator of values under the schema whose JSON is `text`, for `errors`.

    It cannot be pickled; another call returns the same one.

    Raises:
        ImportError: where `jsonschema` is not installed.
        ValueError: where the schema is not valid, refers to what is not in it, or to itself without
            end.
    """
    try:
        import jsonschema.validators
        from referencing import Registry
        from referencing.jsonschema import specification_with
    except ImportError as error:
        raise ImportError(
            'the reward `json_schema` needs jsonschema. Install it: pip install "textgym[rewards]"'
        ) from error

    schema = json.loads(text)
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    # A part with a `$schema` would be judged without the bounds below.
    schema = {key: value for key, value in schema.items() if key != "$schema"}
    if '"unevaluatedProperties"' in text and '"patternProperties"' in text:
        # The one place where the library would match patterns itself, without a time limit.
        raise ValueError(
            "`unevaluatedProperties` is not supported in a schema with `patternProperties`. "
            "Use `additionalProperties`."
        )
    try:
        kind.check_schema(schema)
        specification = specification_with(kind.ID_OF(kind.META_SCHEMA))
        root = specification.create_resource(schema)
        _check_parts(root, Registry().resolver_with_root(root))
        # An empty registry fetches nothing.
        made = _bounded(kind)(schema, registry=Registry())
        next(errors(made, {}), None)
    except jsonschema.SchemaError as error:
        raise ValueError(f"the schema is not valid: {error.message}.") from error
    except (TooLongError, RecursionError) as error:
        raise ValueError("the schema refers to itself without end.") from error
    return made


def _check_parts(part: Any, resolver: Any) -> None:
    """Raise where `part` of a schema refers to what is not in it, or cannot be bounded."""
    import regex
    from referencing.exceptions import Unresolvable

    contents = part.contents if isinstance(part.contents, dict) else {}
    for key in ("$ref", "$dynamicRef"):
        if key in contents:
            try:
                resolver.lookup(contents[key])
            except Unresolvable as error:
                raise ValueError(
                    f"the schema refers to {contents[key]!r}, which is not in it, and nothing is "
                    "fetched. Put it under `$defs`."
                ) from error
    for pattern in (contents.get("pattern", ""), *contents.get("patternProperties", ())):
        try:
            regex.compile(pattern)
        except regex.error as error:
            raise ValueError(f"the schema's pattern {pattern!r} is wrong: {error}.") from error
    if "$schema" in contents:
        raise ValueError("a part of the schema has a `$schema` of its own, which it cannot have.")
    for inner in part.subresources():
        _check_parts(inner, resolver.in_subresource(inner))


class _Steps(threading.local):
    """How many keywords the judgement under way in this thread may still look at."""

    left = 0


_STEPS = _Steps()
_Keyword = Callable[[Any, Any, Any, Any], Iterator[Any] | None]


@cache
def _bounded(kind: Any) -> Any:
    """The validator class `kind`, but what a text can make it do is bounded."""
    from jsonschema.validators import extend

    own = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "uniqueItems": _unique_items,
    }
    return extend(kind, {key: _counted(f) for key, f in {**kind.VALIDATORS, **own}.items()})


def _counted(keyword: _Keyword) -> _Keyword:
    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        _STEPS.left -= 1
        if _STEPS.left < 0:
            raise TooLongError
        yield from keyword(validator, value, instance, schema) or ()

    return counted


def _matches(pattern: str, text: str) -> bool:
    import regex

    try:
        return regex.search(pattern, text, timeout=TIME_LIMIT) is not None
    except TimeoutError as error:
        raise TooLongError from error


def _error(message: str, path: Sequence[str] = ()) -> Any:
    from jsonschema import ValidationError

    return ValidationError(message, path=path)


def _pattern(_: Any, pattern: Any, instance: Any, __: Any) -> Iterator[Any]:
    if isinstance(instance, str) and not _matches(pattern, instance):
        yield _error("it does not match the pattern")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, _: Any) -> Iterator[Any]:
    if isinstance(instance, dict):
        for pattern, inner in patterns.items():
            for key, value in instance.items():
                if _matches(pattern, key):
                    yield from validator.descend(value, inner, path=key, schema_path=pattern)


def _additional_properties(validator: Any, inner: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if not isinstance(instance, dict):
        return
    for key, value in instance.items():
        if key not in schema.get("properties", {}) and not any(
            _matches(pattern, key) for pattern in schema.get("patternProperties", {})
        ):
            if inner is False:
                yield _error("it is not allowed", [key])
            else:
                yield from validator.descend(value, inner, path=key)


def _unique_items(_: Any, unique: Any, instance: Any, __: Any) -> Iterator[Any]:
    if unique and isinstance(instance, list):
        seen = {json.dumps(_plain(item), sort_keys=True) for item in instance}
        if len(seen) < len(instance):
            yield _error("its items are not unique")


def _plain(value: Any) -> Any:
    """`value` with 1.0 as 1, which are equal in JSON Schema."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
