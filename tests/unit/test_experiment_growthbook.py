"""GrowthBook's algorithm agrees with GrowthBook's public cases.

Six sections of them lie in tests/fixtures/growthbook. Set ``GRYM_CONFORMANCE`` to a folder with a copy of
``cases.json`` (or of the repository) and the whole file is read instead, the section ``run`` too.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from grym.experiment import growthbook as gb

FIXTURE = Path(__file__).parents[1] / "fixtures/growthbook/cases.json"
PLACES = ("cases.json", "growthbook/cases.json", "packages/sdk-js/test/cases.json")
HOME = os.environ.get("GRYM_CONFORMANCE", "")
WHOLE = next((path for path in (Path(HOME) / place for place in PLACES) if HOME and path.is_file()), None)
CASES: dict[str, Any] = json.loads((WHOLE or FIXTURE).read_text(encoding="utf-8"))
PLAIN = {"key", "variations", "weights", "coverage", "namespace", "seed", "hashVersion", "ranges", "hashAttribute"}


def section(name: str) -> list[Any]:
    """The cases of a section, with an id."""
    return [pytest.param(*case, id=f"{name}-{number}") for number, case in enumerate(CASES.get(name, []))]


def pairs(ranges: Any) -> list[tuple[float, float]]:
    """Ranges of a case, rounded as its authors round."""
    return [(round(start, 6), round(end, 6)) for start, end in ranges]


@pytest.mark.parametrize(("seed", "value", "version", "expected"), section("hash"))
def test_hash(seed: str, value: str, version: int, expected: float | None) -> None:
    """A value's bucket, one at a time and in a batch; an unknown version has none."""
    assert gb.bucket(seed, value, version) == expected
    if expected is not None:
        assert gb.bucket_many(seed.encode(), [value.encode(), b""], version)[0] == expected


@pytest.mark.parametrize(("name", "arguments", "expected"), section("getBucketRange"))
def test_bucket_ranges(name: str, arguments: list[Any], expected: list[list[float]]) -> None:
    """Coverage is clamped, weights that do not fit become equal ones."""
    count, coverage, weights = arguments
    assert pairs(gb.bucket_ranges(count, 1.0 if coverage is None else coverage, weights)) == pairs(expected)


@pytest.mark.parametrize(("name", "value", "ranges", "expected"), section("chooseVariation"))
def test_choose(name: str, value: float, ranges: list[list[float]], expected: int) -> None:
    """A range holds its start and not its end."""
    assert gb.choose(value, [(start, end) for start, end in ranges]) == expected


@pytest.mark.parametrize(("count", "expected"), section("getEqualWeights"))
def test_equal_weights(count: int, expected: list[float]) -> None:
    """Each variation has the same weight; none for a count that is not positive."""
    assert [round(weight, 8) for weight in gb.equal_weights(count)] == expected


@pytest.mark.parametrize(("name", "value", "namespace", "expected"), section("inNamespace"))
def test_namespace(name: str, value: str, namespace: list[Any], expected: bool) -> None:  # noqa: FBT001 - the case's
    """A user lies in one slice of a namespace."""
    assert gb.in_namespace(value, *namespace) is expected


@pytest.mark.parametrize(("name", "context", "documents", "feature", "expected", "after"), section("stickyBucket"))
def test_sticky_bucket(
    name: str, context: Any, documents: list[Any], feature: str, expected: Any, after: dict[str, Any]
) -> None:
    """What a user was given before is used, upgraded, reset or blocked, and what is remembered afterwards."""
    rule, attributes = context["features"][feature]["rules"][0], context["attributes"]
    known = {
        (d["attributeName"], d["attributeValue"]): dict(d["assignments"])
        for d in documents
        if attributes.get(d["attributeName"]) == d["attributeValue"]
    }
    found = sticky_result(rule, attributes, known, feature)
    assert found == (expected and (expected["variationId"], expected["stickyBucketUsed"], expected["bucket"]))
    said = {"||".join(place): assignments for place, assignments in known.items()}
    assert said == {key: document["assignments"] for key, document in after.items()}


def sticky_result(rule: Any, attributes: Any, known: Any, feature: str) -> tuple[int, bool, float] | None:
    """Variation, whether it was remembered, and bucket, as a client finds them; ``known`` is brought up to date."""
    names = (rule.get("hashAttribute", "id"), rule.get("fallbackAttribute", ""))
    places = [(name, attributes.get(name, "")) for name in names]
    place = next(p for p in places if p[1])
    key, version = rule.get("key", feature), rule.get("bucketVersion", 0)
    enabled = not rule.get("disableStickyBucketing", False)
    keys = [meta["key"] for meta in rule.get("meta", [])]
    sticky = gb.sticky_variation(
        gb.remembered(known, *places) if enabled else {},
        key,
        keys,
        bucket_version=version,
        min_bucket_version=rule.get("minBucketVersion", 0),
    )
    if sticky.blocked:
        return None
    bucket = gb.bucket(rule.get("seed", key), place[1], rule.get("hashVersion", 1))
    assert bucket is not None
    ranges = gb.bucket_ranges(len(rule["variations"]), rule.get("coverage", 1.0), rule.get("weights"))
    variation = sticky.variation if sticky.variation >= 0 else gb.choose(bucket, ranges)
    if enabled:
        chosen = keys[variation] if keys else str(variation)
        known.setdefault(place, {})[gb.sticky_key(key, version)] = chosen
    return variation, sticky.variation >= 0, bucket


@pytest.mark.skipif(WHOLE is None, reason="GRYM_CONFORMANCE names no copy of GrowthBook's cases.json")
def test_whole_experiments_that_only_assign() -> None:
    """Every case of the section ``run`` that has to do with assignment alone ends in the same variation."""
    cases = [case for case in CASES["run"] if set(case[2]) <= PLAIN and set(case[1]) <= {"attributes"}]
    assert len(cases) >= 40
    for name, context, experiment, value, inside, _ in cases:
        assert (value, inside) == run(context.get("attributes", {}), experiment), name


def run(attributes: Any, experiment: Any) -> tuple[Any, bool]:
    """The value a client would show and whether the user is in the experiment."""
    variations = experiment["variations"]
    value = attributes.get(experiment.get("hashAttribute", "id")) or ""
    namespace = experiment.get("namespace")
    inside = bool(value) and len(variations) > 1 and (not namespace or gb.in_namespace(value, *namespace))
    bucket = gb.bucket(experiment.get("seed", experiment["key"]), value, experiment.get("hashVersion", 1))
    assert bucket is not None
    ranges = experiment.get("ranges") or gb.bucket_ranges(
        len(variations), experiment.get("coverage", 1.0), experiment.get("weights")
    )
    index = gb.choose(bucket, ranges) if inside else -1
    return variations[max(0, index)], index >= 0


@pytest.mark.parametrize("text", ["", "a", "foobar", "größer", "聲音", "🎧", "\0", "x" * 300])
def test_fnv_is_the_published_function_on_utf8(text: str) -> None:
    """One at a time and in a batch give the same, zero bytes and long texts too."""
    raw = text.encode()
    expected = 0x811C9DC5
    for byte in raw:
        expected = (expected ^ byte) * 0x01000193 % 2**32
    assert gb.fnv1a(raw) == expected
    assert gb.fnv1a_many([b"other", raw, raw + b"\0"]).tolist() == [gb.fnv1a(b"other"), expected, gb.fnv1a(raw + b"\0")]


def test_fnv_has_its_published_values() -> None:
    """Two of the test vectors of its authors."""
    assert (gb.fnv1a(b""), gb.fnv1a(b"foobar")) == (0x811C9DC5, 0xBF9CF968)
    assert gb.fnv1a_many([]).tolist() == []
