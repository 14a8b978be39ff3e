"""`JSONSchema`: its scale by hand, validity against the library, and what bounds it."""

import json
import pickle
import sys
import time

import numpy as np
import pytest

from textgym.episode import Episode, Instance, Turn
from textgym.rewards.json_schema import JSONSchema
from textgym.rewards.json_text import find_json

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")

FOX = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": "integer"},
        "den": {"type": "object", "required": ["x", "y"]},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
GARBAGE = [
    "",
    " \n",
    "\x00",
    "\ud800",
    "\ufffd",
    "[" * 1_000_000,
    '{"a":' * 1_000_000,
    '["' * 500_000,
    "[0," * 300_000,
    "```json\n" * 100_000,
    "`" * 1_000_000,
    "[" * 9_000,
    "[" * 2_000 + "]" * 2_000,
    "9" * 5_000,
    "{" + " " * 1_000_000 + "}",
]


def episode(text):
    ids = np.arange(3)
    return Episode(Instance("p"), ids, ids > 0, text, (Turn("agent", text),), "stop")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"name": "Ro", "age": 3}', 1.0),
        ('{"name": "Ro", "age": 3, "den": {"x": 1, "y": 2}}', 1.0),
        ('{"name": "Ro", "age": "3"}', 0.2 + 0.6 / 2),
        ('{"name": "Ro"}', 0.2 + 0.6 / 2),
        ("{}", 0.2 + 0.6 / 3),
        ('{"name": "", "age": null}', 0.2 + 0.6 / 3),
        ('{"name": "Ro", "age": 3, "tail": 1}', 0.2 + 0.6 / 2),
        # One wrong part, however much is wrong in it: an empty one is no better than none.
        ('{"name": "Ro", "age": 3, "den": {}}', 0.2 + 0.6 / 2),
        ('{"name": "Ro", "age": 3, "den": 7}', 0.2 + 0.6 / 2),
        ('{"a": 1, "b": 2, "c": 3}', 0.2 + 0.6 / 6),
        ("[]", 0.2),
        ('"Ro"', 0.2),
        ("null", 0.2),
        ('{"name": "Ro", "age": 3', 0.0),
        ("{'name': 'Ro'}", 0.0),
        ("a fox", 0.0),
    ],
)
def test_the_scale(text, expected):
    assert JSONSchema(FOX).value(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('So: {"a": 1}, or {"a": 2}', {"a": 1}),
        ("see [here]: [1, 2]", [1, 2]),
        ('[see {"a": 1}]', {"a": 1}),
        ("is \\boxed{x}: [3]", [3]),
        ('[{"a": 1}, {"b": ', None),
        ('{"a": [1, 2}', None),
        ('x {"a": 1}\n```json\n{"a": 2}\n```\n', {"a": 2}),
        ("```\n 7 \n```", 7),
        ("```JSON\n[7]\n```\n```json\n[8]\n```", [7]),
        ("```python\na = [1]\n```\n```json\n[8]\n```", [8]),
        ("```json\n[7\n``` [8]", None),
        ("```json\n[7]", [7]),
        ('{"a": "```json\\n1\\n```"}', {"a": "```json\n1\n```"}),
        ("it is 7", None),
        (" 7 ", 7),
    ],
)
def test_json_in_a_text(text, expected):
    if expected is None:
        with pytest.raises(ValueError, match=r".+"):
            find_json(text)
    else:
        assert find_json(text) == expected


def test_without_extraction_nothing_may_stand_around():
    reward = JSONSchema({"type": "array"}, extract=False)
    assert [reward.value(t) for t in ("[1]", " [1]\n", "so [1]", "```\n[1]\n```")] == [1, 1, 0, 0]


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "[NaN]",
        "[-Infinity]",
        '{"a": 1, "a": 1}',
        '[{"a": {"b": 1, "b": 2}}]',
        "[1e999]",
        "[" + "9" * 400 + "]",
        "[" * 33 + "]" * 33,
        "[01]",
        "[1,]",
        '["\n"]',
        "\ufeff[]",
    ],
)
def test_what_is_not_json(text):
    assert JSONSchema({}, extract=False).value(text) == 0


def test_depth_32_is_judged_whatever_the_schema():
    tree = {
        "anyOf": [{"type": "array", "items": {"$ref": "#"}}, {"allOf": [{"$ref": "#/$defs/n"}]}]
    }
    reward = JSONSchema({**tree, "$defs": {"n": {"type": "integer"}}})
    assert reward.value("[" * 31 + "[1]" + "]" * 31) == 1
    assert reward.value("[" * 31 + '["1"]' + "]" * 31) == 0.2


def random_schema(rng, depth=2):
    kinds = ["integer", "string", "boolean", "null", "number", "array", "object"]
    schema = {}
    for key, value in {
        "type": lambda: str(rng.choice(kinds)),
        "enum": lambda: [random_value(rng, 1) for _ in range(3)],
        "properties": lambda: {k: random_schema(rng, depth - 1) for k in "ab"},
        "required": lambda: ["a"],
        "items": lambda: random_schema(rng, depth - 1),
        "additionalProperties": lambda: bool(rng.integers(2)) or random_schema(rng, depth - 1),
        "patternProperties": lambda: {"^[bc]": random_schema(rng, depth - 1)},
        "pattern": lambda: "a+b?$",
        "uniqueItems": lambda: True,
        "minItems": lambda: 1,
        "maximum": lambda: 1,
        "anyOf": lambda: [random_schema(rng, depth - 1) for _ in range(2)],
    }.items():
        if depth > 0 and rng.random() < 0.2:
            schema[key] = value()
    return schema


def random_value(rng, depth=3):
    choices = [0, 1, 1.0, 2.5, "a", "ab", "b", True, False, None]
    if depth > 0 and rng.random() < 0.5:
        if rng.random() < 0.5:
            return [random_value(rng, depth - 1) for _ in range(rng.integers(4))]
        return {k: random_value(rng, depth - 1) for k in "abc" if rng.random() < 0.5}
    return choices[rng.integers(len(choices))]


def test_validity_agrees_with_the_library():
    rng = np.random.default_rng(0)
    valid = 0
    for _ in range(300):
        schema, value = random_schema(rng), random_value(rng)
        expected = jsonschema.Draft202012Validator(schema).is_valid(value)
        assert (JSONSchema(schema).value(json.dumps(value)) == 1) == expected, (schema, value)
        valid += expected
    assert 50 < valid < 250


def test_batched_is_single_and_garbage_is_data():
    reward = JSONSchema(FOX)
    texts = [*GARBAGE, "{}", '{"name": "Ro", "age": 3}']
    begun = time.process_time()
    values = reward([episode(text) for text in texts])
    assert time.process_time() - begun < 5
    assert values.dtype == np.float32
    assert values.tolist() == [np.float32(reward.value(text)) for text in texts]
    assert values[: len(GARBAGE)].tolist() == [0] * len(GARBAGE)
    assert values[-1] == 1


def test_alternatives_of_alternatives_end():
    either = [{"properties": {"l": {"$ref": "#"}, "op": {"const": op}}} for op in "+-"]
    reward = JSONSchema({"oneOf": [*either, {"type": "integer"}]})
    assert reward.value('{"op": "-", "l": {"op": "+"}}') == 1
    begun = time.process_time()
    assert reward.value('{"op": "-", "l": ' * 31 + "1" + "}" * 31) == 0.2
    assert time.process_time() - begun < 50
    assert reward.value('{"op": "-"}') == 1  # nothing is left over from the last one


def test_patterns_end():
    texts = ['["%s"]' % ("x" * 9000), '["a"]', '{"%s": 1}' % ("x" * 9000)]
    slow = "^(?:x+x+)+y"
    for schema, expected in [
        ({"items": {"pattern": slow}}, [0.2, 0.5, 1]),
        ({"patternProperties": {slow: False, "^a": False}}, [1, 1, 0.2]),
        ({"patternProperties": {slow: True}, "additionalProperties": False}, [1, 1, 0.2]),
    ]:
        reward = JSONSchema(schema)
        begun = time.process_time()
        assert [reward.value(text) for text in texts] == pytest.approx(expected)
        assert time.process_time() - begun < 30


def test_many_different_items_are_compared_in_time():
    reward = JSONSchema({"uniqueItems": True})
    items = [f"[{i}]" if i % 2 else f'"{i}"' for i in range(1200)]
    begun = time.process_time()
    assert reward.value("[" + ",".join(items) + "]") == 1
    assert reward.value("[" + ",".join([*items, items[5]]) + "]") == 0.5
    assert time.process_time() - begun < 2


@pytest.mark.parametrize(
    ("schema", "match"),
    [
        ({"type": "objct"}, "not valid"),
        ({"$ref": "http://example.com/x.json"}, "nothing is fetched"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "nothing is fetched"),
        ({"items": {"$ref": "#/$defs/none"}}, "not in it"),
        ({"$ref": "#"}, "itself without end"),
        ({"pattern": "("}, "pattern|regex"),
        ({"patternProperties": {"(": True}}, "pattern|regex"),
        ({"items": {"$schema": FOX["$schema"]}}, "of its own"),
        ({"unevaluatedProperties": False, "patternProperties": {"a": True}}, "not supported"),
        ("{", "not JSON"),
        ("schema.txt", r"path of a \.json file"),
        ("no/such/schema.json", "cannot be read"),
    ],
)
def test_a_bad_schema_is_named(schema, match):
    with pytest.raises(ValueError, match=match):
        JSONSchema(schema)


def test_nothing_is_fetched(monkeypatch):
    import socket

    def refuse(*_, **__):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(ValueError, match="nothing is fetched"):
        JSONSchema({"anyOf": [{"$ref": "https://json-schema.org/draft/2020-12/schema"}]})


def test_bad_arguments():
    with pytest.raises(TypeError, match="`schema` must be"):
        JSONSchema(3)
    with pytest.raises(ValueError, match="`max_characters`"):
        JSONSchema({}, max_characters=0)


def test_other_drafts():
    old = {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1}
    strict = JSONSchema({**old, "exclusiveMinimum": True})
    assert [strict.value("1"), strict.value("2")] == [0.5, 1]


def test_spec_arguments(tmp_path):
    file = tmp_path / "fox.json"
    file.write_text(json.dumps(FOX), encoding="utf-8")
    reward = JSONSchema.from_arguments(f"{file},extract=false")
    assert (reward.schema, reward.extract) == (FOX, False)
    reward = JSONSchema.from_arguments('{"type": "array", "items": {"type": "integer"}}')
    assert reward.value("[1, 2]") == 1
    assert pickle.loads(pickle.dumps(reward)).value('["1", 2]') == 0.5


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    monkeypatch.setitem(sys.modules, "jsonschema.validators", None)
    with pytest.raises(ImportError, match=r"textgym\[rewards\]"):
        JSONSchema({"title": "not made before"})
