"""Waiting lines and waits between starts."""

from __future__ import annotations

import threading

import pytest

from grym.errors import DeadlineError, ModelError, UnavailableError
from grym.worker.backoff import Backoff
from grym.worker.line import Line, _Waiter


def test_the_wait_grows_with_failures_in_a_row() -> None:
    """Nothing after one crash, then doubled; from the first start that fails; over with the first call that works."""
    now = [100.0]
    backoff = Backoff(1.0, 5.0, lambda: now[0])
    error = ModelError("No weights.", code="no-weights", metadata={"pid": 7})
    waits = []
    for starting in (False, False, False, True, True, True):
        backoff.failed(error, starting=starting)
        waits.append(backoff.remaining)
    assert waits == [0, 1, 2, 5, 5, 5]
    now[0] += 4
    again = backoff.error
    assert isinstance(again, ModelError)
    assert again is not error
    assert again.metadata == {"pid": 7, "retry_after_seconds": 1.0}
    backoff.succeeded()
    assert backoff.remaining == 0
    backoff.failed(error, starting=True)
    assert backoff.remaining == 1


def test_the_line_is_bounded_and_ordered() -> None:
    """Higher priorities first, then who came first; nobody waits beyond their time."""
    line = Line("toy", 1, 3)
    order: list[str] = []
    gate, inside = threading.Event(), threading.Event()

    def hold() -> None:
        with line.turn():
            inside.set()
            gate.wait(30)

    def wait(name: str, priority: int) -> None:
        with line.turn(priority):
            order.append(name)

    threads = [threading.Thread(target=hold)]
    threads[0].start()
    inside.wait(30)
    assert not line.pressed
    for place, (name, priority) in enumerate((("low", 0), ("high", 5), ("later", 5)), start=1):
        threads.append(threading.Thread(target=wait, args=(name, priority)))
        threads[-1].start()
        while line.waiting < place:
            threading.Event().wait(0.001)
    assert line.pressed
    with pytest.raises(UnavailableError) as refused, line.turn(0):
        pass
    assert refused.value.metadata["waiting"] == 3
    gate.set()
    for thread in threads:
        thread.join()
    assert order == ["high", "later", "low"]
    assert line.retry_after > 0
    with line.turn(), pytest.raises(DeadlineError) as late, line.turn(seconds=0.01):
        pass
    assert late.value.code == "queued-too-long"


def test_more_places_let_more_in_at_once() -> None:
    """A line that is widened serves those that wait already."""
    line = Line("toy", 1, 0)
    entered = threading.Event()

    def enter() -> None:
        with line.turn():
            entered.set()

    with line.turn():
        thread = threading.Thread(target=enter)
        thread.start()
        while not line.waiting:
            threading.Event().wait(0.001)
        line.resize(2)
        assert entered.wait(30)
    thread.join()


@pytest.mark.parametrize("give", [False, True])
def test_an_interrupt_takes_its_place_along(give: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    """Ctrl-C while waiting leaves no waiter behind, and gives back a place that was given at the same moment."""
    line = Line("toy", 1, 16)

    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            del timeout
            if give:
                line.resize(2)
                line.resize(1)
            raise KeyboardInterrupt

    with line.turn(), monkeypatch.context() as patch:
        patch.setattr("grym.worker.line._Waiter", lambda *given: _Waiter(*given, woken=Interrupted()))
        with pytest.raises(KeyboardInterrupt), line.turn():
            pass
    assert line.waiting == 0
    with line.turn(seconds=0):
        pass
