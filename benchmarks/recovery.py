"""``python -m benchmarks.recovery chaos.xml …``: what the chaos suite measured, as the table of docs/failures.md.

    make chaos                                   # writes var/chaos.xml
    python -m benchmarks.recovery var/chaos.xml  # prints the table; --write puts it into the page

Reads the properties that tests recorded: seconds until a run was finished again, until
a fallback had answered, until a slot was free. A test that failed gives no number.
"""

from __future__ import annotations

import argparse
import os
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "failures.md"
BEGIN, END = "<!-- measured: python -m benchmarks.recovery -->", "<!-- /measured -->"
WORDS: Final = {
    "test_killed_at_random_moments": "the command, killed at random moments, five times in a row",
    "test_real_models_killed_at_random_moments": "the same with wav2vec2-mini in fp32 and int8, three times",
    "test_killed_at_exact_points": "the command, killed at twelve exact points",
    "test_killed_while_it_publishes_again": "the command, killed while it publishes over an older warehouse",
    "test_the_server_is_killed_during_a_run": "the Prefect server, killed: until it answers again",
    "test_a_named_server_is_killed_during_a_run": "a server named by PREFECT_API_URL, stopped: the repeated command",
    "test_everything_is_killed_at_once": "command, workers and server at once",
    "test_everything_is_killed_at_once_with_real_models": "the same with wav2vec2-mini",
    "test_a_file_system_that_fills_up_under_a_run_and_its_server": "a full disk, once there is space",
    "test_a_slot_comes_back_when_its_holder_and_the_server_are_killed": "a slot, by its lease: until it is free",
    "test_the_next_command_puts_right_what_killed_ones_left": "runs and slots, by the next command, start included",
    "test_a_silent_flow_run_is_crashed_by_the_server": "a silent run, by the automation set to 75 s",
    "test_the_next_model_answers_and_everything_is_on_record": "a model's process",
}  # fmt: skip
KINDS: Final = {
    "recovery_seconds": "",
    "noticed_seconds": ", until it is noticed",
    "answered_seconds": ", until the next model has answered, at most",
}
UNDISTURBED: Final = ("two fake models", "wav2vec2-mini")


@dataclass(frozen=True, slots=True)
class Measured:
    """One number: what was disturbed, the variant of it, and the seconds it took."""

    what: str
    variant: str
    seconds: float


def read(files: Sequence[Path]) -> tuple[list[Measured], str]:
    """Numbers of the tests that passed, and a sentence about the machine meanwhile; later files win."""
    found: dict[tuple[str, str], Measured] = {}
    facts: dict[str, list[float]] = {}
    for file in files:
        for case in ET.parse(file).getroot().iter("testcase"):  # noqa: S314 - written by our own test run
            if case.find("failure") is not None or case.find("error") is not None:
                continue
            found |= {(one.what, one.variant): one for one in _numbers(case)}
            for fact in case.findall("properties/property"):
                if fact.get("name") in {"load", *UNDISTURBED}:
                    facts.setdefault(fact.get("name", ""), []).append(float(fact.get("value", "nan")))
    order = [*WORDS.values()]
    return sorted(found.values(), key=lambda one: (_place(order, one.what), one.variant)), _machine(facts)


def _machine(facts: Mapping[str, Sequence[float]]) -> str:
    load = facts.get("load", [])
    busy = f"The load average was {min(load):g} to {max(load):g} on {os.cpu_count()} cores. " if load else ""
    took = [f"{max(facts[name]):g} s with {name}" for name in UNDISTURBED if facts.get(name)]
    return busy + (f"An undisturbed comparison took {' and '.join(took)}." if took else "")


def _numbers(case: ET.Element) -> Iterator[Measured]:
    name, _, variant = case.get("name", "").partition("[")
    for found in case.findall("properties/property"):
        kind = found.get("name", "")
        if kind in KINDS:
            yield Measured(WORDS.get(name, name) + KINDS[kind], variant.rstrip("]"), float(found.get("value", "nan")))


def _place(order: Sequence[str], what: str) -> int:
    return next((place for place, words in enumerate(order) if what == words or what.startswith(f"{words},")), 99)


def table(measured: Iterable[Measured], machine: str) -> str:
    """Markdown: one row for each fault, its variants side by side, and a sentence."""
    rows: dict[str, list[str]] = {}
    for one in measured:
        said = f"{one.seconds:g}" if not one.variant else f"{one.variant}: {one.seconds:g}"
        rows.setdefault(one.what, []).append(said)
    lines = ["| fault | seconds |", "|---|---|", *(f"| {what} | {', '.join(said)} |" for what, said in rows.items())]
    return "\n".join([*lines, "", machine]).rstrip() + "\n"


def write(page: Path, text: str) -> None:
    """Replace what stands between the two marks of a page.

    Raises:
        ValueError: the page has no such marks.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        msg = f"{page.name} has no {BEGIN} … {END}."
        raise ValueError(msg)
    page.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")


def main() -> int:
    """Print or write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recovery", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="XML")
    parser.add_argument("--write", action="store_true", help=f"put it into {PAGE.name}")
    asked = parser.parse_args()
    text = table(*read(asked.files))
    if asked.write:
        write(PAGE, text)
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
