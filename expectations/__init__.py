"""Great Expectations suites and the gate that applies them.

``judge`` says what a suite thinks of a frame, ``build_data_docs_from`` writes
a page that a person can read offline. Importing this package does not import
great_expectations; the first judgement does.
"""

from expectations.docs import build_data_docs_from
from expectations.gate import judge
from expectations.loader import Rule, Suite, load_suite, suite_names

__all__ = ["Rule", "Suite", "build_data_docs_from", "judge", "load_suite", "suite_names"]
