"""What a run was made with."""

from __future__ import annotations

import json

from grym.environment import hardware, versions


def test_versions_and_hardware_are_json_objects() -> None:
    """The libraries that can change a result are named with their versions, and the machine is described."""
    found = json.loads(versions())
    assert found["torch"].startswith("2.")
    assert "missing" not in found.values()
    machine = json.loads(hardware())
    assert machine["cores"] >= 1
    assert machine["memory_gib"] > 0
    assert machine["processor"]
