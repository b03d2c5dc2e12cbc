"""How much a model is asked at once, what is remembered of it, and cheaper settings when memory is short."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from grym.config import ModelSpec
from grym.errors import ConfigError, DeadlineError, ResourceError
from grym.models.interface import Answer, AudioClip, Card, Options
from grym.models.memory import container_limit, free_bytes, gpu_peak_bytes, release
from grym.models.rungs import ladder
from grym.resilience.ladder import Ladder
from grym.resilience.ledger import Ledger, fit
from grym.resilience.memory import MemoryManager
from grym.resilience.state import States
from grym.worker.outcome import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PLENTY = 1e6


class Toy:
    """Takes 100 MB and 10 MB more for each second of audio; has as much as it is given."""

    memory_mb = 0.0
    resident_mb = 100.0
    pressed = False

    def __init__(self, spec: ModelSpec | None = None, room_mb: float = PLENTY) -> None:
        self.spec = spec or ModelSpec(name="toy", adapter="wav2vec2", options={"precision": "fp32"})
        self.room_mb, self.starts_with_mb = room_mb, 0.0
        self.calls: list[float] = []
        self.asked: list[Options] = []
        self.closed = 0

    @property
    def card(self) -> Card:
        """A card whose rung is the precision."""
        precision = str(self.spec.options.get("precision", "fp32"))
        return Card("toy", f"r-{precision}", "toy", ("transcribe",), parameters=4_000_000, rung=f"{precision}/cpu")

    def start(self) -> Card:
        """Refuses what does not fit."""
        if self.starts_with_mb > self.room_mb:
            raise ResourceError("It does not fit.", code="not-enough-memory")  # noqa: EM101, TRY003 - a test
        return self.card

    def process(
        self, clips: Sequence[AudioClip], options: Options, *, deadline: float | None = None
    ) -> tuple[list[Answer], Usage]:
        """Answers what fits."""
        assert deadline is None or deadline > 0
        seconds = sum(clip.seconds for clip in clips)
        self.calls.append(seconds)
        self.asked.append(options)
        peak = 100 + 10 * seconds
        if peak > self.room_mb:
            raise ResourceError("Too much.", code="out-of-memory")  # noqa: EM101, TRY003 - a test
        answers = [Answer(clip.id, "one", rung=self.card.rung) for clip in clips]
        return answers, Usage(1.0, 0.5, 0.4, peak, 7, peak)

    def close(self) -> None:
        """Counts."""
        self.closed += 1


def clips(*seconds: float) -> list[AudioClip]:
    """Silent clips of such lengths."""
    return [AudioClip(f"c{n}", np.zeros(int(s * 100), np.float32), 100) for n, s in enumerate(seconds)]


@pytest.fixture
def clock() -> list[float]:
    """The time, in seconds since 1970."""
    return [1e9]


@pytest.fixture
def manager(tmp_path: Path, clock: list[float]) -> MemoryManager:
    """A manager with plenty of free memory and its own home."""
    return MemoryManager(Ledger(States(tmp_path), 3600, lambda: clock[0]), lambda _: PLENTY)


def test_the_line_is_not_below_what_was_measured() -> None:
    """A guess without measurements, one point from the base, several by least squares lifted over all of them."""
    assert fit((), 80, 3).peak_mb(10) == pytest.approx(80 + 1.25 * 30)
    one = fit(((10, 200),), 100, 3)
    assert (one.base_mb, one.per_second_mb) == (100, 10)
    line = fit(((10, 210), (20, 290), (40, 500)), 0, 3)
    assert all(line.base_mb + line.per_second_mb * s >= mb for s, mb in ((10, 210), (20, 290), (40, 500)))
    assert line.most_seconds(line.peak_mb(30)) == pytest.approx(30)
    assert fit(((10, 200), (20, 190)), 0, 3).most_seconds(1e9) == math.inf


def test_a_batch_that_is_too_much_is_halved_and_remembered(manager: MemoryManager, clock: list[float]) -> None:
    """All are answered in order, the size is not tried again until it is forgotten, and answers say so."""
    toy = Toy(room_mb=200)  # ten seconds
    batch = clips(4, 4, 4, 4)
    told: list[ResourceError] = []
    answers, usage = manager.process(toy, batch, Options(), tell=told.append)
    assert [a.clip_id for a in answers] == ["c0", "c1", "c2", "c3"]
    assert toy.calls == [16, 8, 8]
    assert [error.code for error in told] == ["out-of-memory"]
    assert {a.rung for a in answers} == {"fp32/cpu batch=8s"}
    assert (usage.wall_seconds, usage.call_peak_mb, usage.pid) == (2.0, 180, 7)
    toy.calls.clear()
    manager.process(toy, batch, Options())
    assert toy.calls == [8, 8]
    clock[0] += 3601
    toy.calls.clear()
    manager.process(toy, batch, Options())
    assert toy.calls[0] == 16


def test_a_leak_is_asked_again_and_not_remembered(manager: MemoryManager) -> None:
    """The process was full before the call: a new one makes the same call, within what is left of the deadline."""

    class Leaky(Toy):
        leaks = 1
        load: Any = None

        def process(
            self, clips: Sequence[AudioClip], options: Options, *, deadline: float | None = None
        ) -> tuple[list[Answer], Usage]:
            if self.leaks:
                self.leaks -= 1
                facts = {"leaked": True, "resident_mb": 290}
                raise ResourceError("Too much.", code="out-of-memory", metadata=facts)  # noqa: EM101, TRY003 - a test
            return super().process(clips, options, deadline=deadline)

    toy = Leaky()
    answers, _ = manager.process(toy, clips(4, 4), Options(), deadline=5.0)
    assert [a.text for a in answers] == ["one", "one"]
    assert toy.calls == [8]
    assert manager.most_seconds(toy) > 1000
    toy.leaks = 2
    with pytest.raises(ResourceError):
        manager.process(toy, clips(4), Options())
    assert manager.process(toy, clips(4), Options())[0][0].text == "one"  # an honest size is not remembered as too much
    toy.leaks = 2
    toy.load = SimpleNamespace(workers=2)  # both full
    assert manager.process(toy, clips(4), Options())[0][0].text == "one"


def test_what_was_measured_decides_how_much_is_asked(manager: MemoryManager) -> None:
    """After small calls a large batch is planned within the free memory, without a failure; also with a limit."""
    toy = Toy()
    manager.process(toy, clips(2), Options())
    manager.process(toy, clips(8), Options())
    assert manager.most_seconds(toy) == pytest.approx(PLENTY * 0.8 / 12.5, rel=0.01)
    tight = MemoryManager(manager.ledger, lambda _: 125.0)  # 80 % of it is 100 MB: eight seconds with the margin
    toy.calls.clear()
    tight.process(toy, clips(5, 3, 4, 20), Options())
    assert toy.calls == [8, 4, 20]
    toy.memory_mb = 150  # failures and peaks of other limits are one thing, this one is in force
    assert manager.most_seconds(toy) == pytest.approx(4)
    toy.calls.clear()
    assert manager.process(toy, [], Options())[0] == []


def test_a_clip_that_is_too_much_alone_is_an_error_of_its_own(manager: MemoryManager) -> None:
    """The others are answered; it is not tried again; without any answer the error is raised; budgets are kept."""
    toy = Toy(room_mb=150)
    answers, _ = manager.process(toy, clips(1, 9, 2), Options())
    assert [a.error.code if a.error else a.text for a in answers] == ["one", "out-of-memory", "one"]
    toy.calls.clear()
    with pytest.raises(ResourceError, match="not shorter"):
        manager.process(toy, clips(9), Options())
    assert toy.calls == []
    with pytest.raises(DeadlineError):
        manager.process(toy, clips(1), Options(), deadline=0)
    toy.room_mb = 0
    with pytest.raises(ResourceError):
        manager.process(toy, clips(0.5, 0.5), Options())


def test_other_resource_errors_are_not_halved(manager: MemoryManager) -> None:
    """A full disk does not become better with fewer clips."""
    toy = Toy()
    toy.process = lambda *_, **__: (_ for _ in ()).throw(ResourceError("Full.", code="disk-full"))  # type: ignore[assignment]
    with pytest.raises(ResourceError) as caught:
        manager.process(toy, clips(1, 1), Options())
    assert caught.value.code == "disk-full"


def test_rungs_go_down_from_what_grym_toml_says() -> None:
    """Built-in ladders leave out what is so already; own ones replace them; options of calls are told apart."""
    names = [rung.name for rung in ladder(ModelSpec(name="a", adapter="wav2vec2", options={"precision": "bf16"}))]
    assert names[:2] == ["", "precision=int8"]
    own = ModelSpec(name="a", adapter="x", ladder=({"size": 2}, {"max_new_tokens": 8, "quality": "low"}))
    top, small, few = ladder(own)
    assert top.of(own) is own
    assert few.of(own).options == {"size": 2}
    asked, words = few.ask(Options())
    assert (asked.max_new_tokens, asked.quality, words) == (8, "low", "max_new_tokens=8 quality=low")
    assert few.ask(Options(max_new_tokens=4, quality="low"))[1] == ""
    assert small.ask(Options()) == (Options(), "")
    assert small.ask(Options(), pressed=True)[0].max_new_tokens == 64
    with pytest.raises(ConfigError, match="whole number"):
        ladder(ModelSpec(name="a", adapter="x", ladder=({"max_new_tokens": "few"},)))


def test_a_model_steps_down_until_it_fits_and_up_again_later(manager: MemoryManager, clock: list[float]) -> None:
    """Too much to load, then too much for a clip: the rung is in the answer, the same for the next process."""
    made: list[Toy] = []

    def make(spec: ModelSpec) -> Toy:
        toy = Toy(spec, room_mb=150)
        toy.starts_with_mb = 300 if spec.options["precision"] == "fp32" else 0
        toy.room_mb = 1000 if "window_seconds" in spec.options else 150
        made.append(toy)
        return toy

    spec = ModelSpec(name="toy", adapter="wav2vec2", options={"precision": "fp32"})
    model = Ladder(spec, make, manager)
    model.start()
    assert model.card.rung == "bf16/cpu"
    answers, _ = model.process(clips(1, 9), Options())  # int8 has no more room, shorter windows have
    assert {a.rung for a in answers} == {"int8/cpu window_seconds=15.0 overlap_seconds=2.0"}
    assert [toy.closed for toy in made] == [1, 1, 1, 0]
    other = Ladder(spec, make, manager)
    assert other.start().rung == "int8/cpu"
    assert "window_seconds" in other.rung.spec
    clock[0] += 1e6
    model.start()
    assert model.card.rung == "bf16/cpu"
    model.close()
    other.close()
    assert made[-1].closed == 1
    strict = Ladder(spec, make, manager, degrade=False)
    with pytest.raises(ResourceError):
        strict.start()


def test_calls_that_pile_up_ask_for_less(manager: MemoryManager) -> None:
    """While more wait than are served, answers are cut short and say so; on the lowest rung errors are raised."""
    toy = Toy()
    model = Ladder(toy.spec, lambda _: toy, manager)
    toy.pressed = True
    ((answer,), _) = model.process(clips(1), Options(), deadline=5)
    assert toy.asked[0].max_new_tokens == 64
    assert answer.rung == "fp32/cpu max_new_tokens=64 quality=low"
    assert model.pid is None
    toy.room_mb = 0
    with pytest.raises(ResourceError):
        model.process(clips(1), Options())


def test_a_rung_that_does_not_exist_here_is_passed_over(manager: MemoryManager) -> None:
    """Such as a precision that needs a GPU; what grym.toml itself says is not."""

    def make(spec: ModelSpec) -> Toy:
        toy = Toy(spec, room_mb=0)
        precision = spec.options["precision"]
        toy.starts_with_mb = 0 if precision == "int8" else 1
        if precision == "bf16":
            toy.start = lambda: (_ for _ in ()).throw(ConfigError("Needs a GPU."))  # type: ignore[method-assign]
        return toy

    spec = ModelSpec(name="toy", adapter="wav2vec2", options={"precision": "fp32"})
    assert Ladder(spec, make, manager).start().rung == "int8/cpu"
    bad = ModelSpec(name="bad", adapter="wav2vec2", options={"precision": "bf16"})
    with pytest.raises(ConfigError):
        Ladder(bad, make, manager).start()


def test_free_memory_knows_containers(tmp_path: Path) -> None:
    """Both versions of control groups; without a limit the machine's memory counts; there is no GPU in this process."""
    own = tmp_path / "cgroup"
    own.write_text("4:memory:/job\n0::/job\n")
    assert container_limit(tmp_path, own) == math.inf
    for place, name, value in (("memory/job", "memory.limit_in_bytes", 5000), ("job", "memory.max", 3000)):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / name).write_text(f"{value}\n")
        assert container_limit(tmp_path, own) == value
    (tmp_path / "job" / "memory.max").write_text("max\n")
    assert container_limit(tmp_path, own) == 5000
    assert 0 < free_bytes() < math.inf
    assert free_bytes("cuda") > 0
    assert gpu_peak_bytes(reset=True) == 0
    release()
