"""The strict way from ``suites/NAME.json`` to a suite that has all its rules.

Great Expectations drops a rule it does not know with a line in the log, and an
empty suite passes everything. Here each of these is an error: an unknown or
unreadable suite, no rule, an unregistered kind of rule, a rule without reason,
severity or a name of its own, no rule that refuses an empty frame, and a loaded
suite with fewer rules than the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from grym.errors import QualityError
from grym.quality import Severity

if TYPE_CHECKING:
    from collections.abc import Mapping

SUITES: Final = Path(__file__).parent / "suites"
_KEYS: Final = frozenset({"type", "kwargs", "meta", "notes", "severity"})
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_SENTENCE_MINIMUM: Final = 3  # words


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a suite.

    Attributes:
        name: stable name, unique in its suite.
        kind: registered type of the expectation.
        severity: critical, warning or info.
        reason: why the rule exists, as a sentence.
        kwargs: arguments of the expectation.
    """

    name: str
    kind: str
    severity: Severity
    reason: str
    kwargs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Suite:
    """A loaded suite: its rules, in order, and the library's object that evaluates them."""

    name: str
    purpose: str
    rules: tuple[Rule, ...]
    expectations: Any = field(repr=False, compare=False)


def suite_names(folder: Path = SUITES) -> tuple[str, ...]:
    """Names of the suites in a folder, sorted."""
    return tuple(sorted(path.stem for path in folder.glob("*.json")))


def load_suite(name: str, folder: Path = SUITES) -> Suite:
    """Load a suite with every rule that its file holds.

    Args:
        name: name of the suite, which is the file's name without ``.json``.
        folder: where the suites lie.

    Raises:
        QualityError: the suite is unknown, unreadable or empty, or a rule of it is incomplete or would be lost.
    """
    body = _read(name, folder)
    rules = tuple(_rule(name, number, entry) for number, entry in enumerate(body["expectations"], start=1))
    _check_suite(name, rules)
    return Suite(name, str(body.get("notes") or ""), rules, _build(name, body["expectations"], rules))


def quiet_library() -> None:
    """Tell Great Expectations to send nothing and to draw nothing; before its first import."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")


def _fail(message: str, code: str, hint: str) -> QualityError:
    return QualityError(message, code=code, hint=hint)


def _read(name: str, folder: Path) -> dict[str, Any]:
    known = suite_names(folder)
    if name not in known:
        msg = f"Unknown suite {name!r}; there are: {', '.join(known) or 'none'}."
        raise _fail(msg, "unknown-suite", "Use one of these or add its JSON file to expectations/suites.")
    try:
        body = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        detail = error.strerror if isinstance(error, OSError) else error  # an OSError's text holds the path
        msg = f"Suite {name} cannot be read: {detail}."
        raise _fail(msg, "unreadable-suite", "Mend the JSON file.") from error
    if not isinstance(body, dict) or body.get("name") != name or not isinstance(body.get("expectations"), list):
        msg = f"Suite {name} is not an object with its own name and a list of expectations."
        raise _fail(msg, "unreadable-suite", "Mend the JSON file.")
    if not body["expectations"]:
        msg = f"Suite {name} has no rule, so it would pass everything."
        raise _fail(msg, "empty-suite", "Add at least one rule or remove the file.")
    return body


def _rule(suite: str, number: int, entry: Any) -> Rule:
    """Check one rule of the file and read it."""
    fields = entry if isinstance(entry, dict) else {}
    meta, reason, severity = fields.get("meta"), fields.get("notes"), fields.get("severity")
    name = meta.get("rule") if isinstance(meta, dict) else None
    problems = [
        (set(fields) != _KEYS, f"has not exactly the keys {', '.join(sorted(_KEYS))}"),
        (not isinstance(name, str) or not _NAME.fullmatch(name), "has no kebab-case name in meta.rule"),
        (not isinstance(reason, str) or len(reason.split()) < _SENTENCE_MINIMUM, "gives no reason in notes"),
        (severity not in get_args(Severity), f"has severity {severity!r}, not {', '.join(get_args(Severity))}"),
        (not isinstance(fields.get("kwargs"), dict), "has no kwargs"),
    ]
    for broken, what in problems:
        if broken:
            msg = f"Rule {name or number} of suite {suite} {what}."
            raise _fail(msg, "bad-rule", "Complete the rule in the suite's JSON file.")
    return Rule(str(name), str(fields["type"]), fields["severity"], str(reason), fields["kwargs"])


def _check_suite(suite: str, rules: tuple[Rule, ...]) -> None:
    """Check what holds for a suite as a whole."""
    twice = [name for name, count in Counter(rule.name for rule in rules).items() if count > 1]
    if twice:
        msg = f"Suite {suite} has more than one rule named {', '.join(twice)}."
        raise _fail(msg, "bad-rule", "Give every rule a name of its own.")
    counted = any(
        rule.kind == "expect_table_row_count_to_be_between"
        and rule.severity == "critical"
        and (rule.kwargs.get("min_value") or 0) >= 1
        for rule in rules
    )
    if not counted:
        msg = f"Suite {suite} has no critical rule that wants at least one row, so an empty frame would pass."
        raise _fail(msg, "bad-rule", "Add expect_table_row_count_to_be_between with min_value 1.")


def _build(suite: str, entries: list[dict[str, Any]], rules: tuple[Rule, ...]) -> Any:
    """The library's suite, with as many rules as the file."""
    quiet_library()
    from great_expectations.core import ExpectationSuite
    from great_expectations.expectations.registry import list_registered_expectation_implementations

    import expectations.custom  # noqa: F401 - registers our expectations, which the library would else drop

    lost = sorted({rule.kind for rule in rules} - set(list_registered_expectation_implementations()))
    if lost:
        msg = f"Suite {suite} uses {', '.join(lost)}, which is not registered; the rule would be lost."
        raise _fail(msg, "lost-rule", "Correct the type or add the class to expectations/custom.py.")
    try:
        built = ExpectationSuite(name=suite, expectations=entries)
    except Exception as error:
        msg = f"Suite {suite} has a rule with wrong arguments: {' '.join(str(error).split())}."
        raise _fail(msg, "bad-rule", "Correct the kwargs in the suite's JSON file.") from error
    if len(built.expectations) != len(rules):
        msg = f"Suite {suite} has {len(rules)} rules in its file but {len(built.expectations)} were loaded."
        raise _fail(msg, "lost-rule", "Correct the rule that the library dropped.")
    return built


def suites_digest(folder: Path = SUITES) -> str:
    """Hash of all suites: a run is only resumed under the rules that it was started with."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.json")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
