"""Reports: SQL views, frames, templates, rendering."""

from __future__ import annotations

from pathlib import Path
from typing import Final

VIEWS: Final = Path(__file__).parent / "sql"
"""Folder of the views that every warehouse gets, one ``.sql`` file each."""

QUESTIONS: Final = VIEWS / "questions"
"""Folder of the questions that analysts ask, one ``.sql`` file each."""
