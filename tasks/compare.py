"""Tasks that turn outcomes into a verdict."""

from __future__ import annotations

from prefect import task

from grym.compare.session import Session
from tasks.policies import PLAIN


@task(name="score and test", tags=["cpu"], **PLAIN)
def score_and_test(session: Session) -> dict[str, object]:
    """Score the landed outcomes; returns the row with the verdict."""
    return session.compare()


@task(name="look", tags=["cpu"], **PLAIN)
def look(session: Session, number: int) -> bool:
    """Look at what has been answered after so many steps; true if the comparison is decided."""
    return session.look(number)
