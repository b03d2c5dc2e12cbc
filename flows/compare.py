"""The main job: two models on one dataset, checked, scored, tested, stored and shown.

Order and policy only; what each step means is in ``grym.compare``.

Run: ``python -m flows compare --a wav2vec2-mini --b wav2vec2-mini-int8 --dataset digits``
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from filelock import Timeout
from prefect import flow, runtime
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import quote

from expectations.gate import judge
from expectations.loader import suites_digest
from flows.progress import tell
from grym.batching import Batch
from grym.compare.plan import Refused, Usable, distinct, fingerprint, make_plan, refusals, run_key
from grym.compare.session import ARMS, Arm, Session, start_arms, stop_arms, with_names
from grym.config import Settings, load_settings
from grym.corpus.loaders import load_dataset
from grym.corpus.manifest import Dataset
from grym.environment import hardware, versions
from grym.errors import ConfigError
from grym.memory.features import FeatureStore
from grym.parts import disk
from grym.quality import Judgement
from grym.scratch import scratch_folder
from grym.store import Store
from grym.worker.decoder import DecodeAll, Decoder
from reports import VIEWS
from tasks import policies
from tasks.audio import CHUNK, check_audio
from tasks.compare import look, score_and_test
from tasks.infer import infer, measure_latency, measure_noise, warm_up
from tasks.report import report
from tasks.store import publish

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Compared:
    """What a comparison leaves.

    Attributes:
        run_id: the run.
        resumed: whether an unfinished run was finished.
        verdict: who is better.
        sentence: the verdict in one sentence.
        warehouse: the DuckDB file.
        report: the HTML page.
        task_runs: how many task runs the server has to know about.
        flow_run_id: id of the flow run in Prefect.
        left_out: stored parts that cannot be read and are missing from the warehouse, each with its reason.
    """

    run_id: str
    resumed: bool
    verdict: str
    sentence: str
    warehouse: str
    report: str
    task_runs: int
    flow_run_id: str
    left_out: tuple[str, ...] = ()


# Told the result as soon as everything is stored: Prefect hands it on only if its server lives to record the end.
finished: ContextVar[Callable[[Compared], None] | None] = ContextVar("finished", default=None)


@flow(
    name="compare",
    flow_run_name="{a} vs {b} on {dataset}",
    task_runner=ThreadPoolTaskRunner(max_workers=2),  # type: ignore[arg-type]
    persist_result=False,
    validate_parameters=True,
)
def compare(
    a: str = "wav2vec2-mini",
    b: str = "wav2vec2-mini-int8",
    dataset: str = "digits",
    *,
    new: bool = False,
    stop_early: bool = False,
    repeats: int = 0,
) -> Compared:
    """Compare two registered models on a dataset and publish the verdict.

    Args:
        a: registered name of the first model.
        b: registered name of the second model.
        dataset: registered name, or path of a folder, a CSV or a JSONL manifest.
        new: start another run even if an unfinished one with the same question exists.
        stop_early: answer clips in a seeded random order and stop as soon as a confidence sequence decides.
        repeats: how often each clip of the latency sample is answered for the noise floor; 0 or 1 is none.

    Returns:
        Where the results are.

    Raises:
        GrymError: nothing could be compared; bad clips alone never raise.
    """
    settings = with_names(
        load_settings(), a=a, b=b, dataset=dataset, stop_early=stop_early or None, repeats=repeats or None
    )
    counter = _Counter()
    found = load_dataset(dataset, settings)
    with (
        scratch_folder(settings.home, "compare") as scratch,
        Decoder(settings.worker, scratch / "decode") as decoder,
        _starting(settings, {"a": a, "b": b}, scratch) as starting,
    ):
        usable, refused, judgements = _check(found, settings, counter, decoder)
        arms = starting.result()
        facts = {letter: f"{arms[letter].card.revision} {arms[letter].card.rung}" for letter in ARMS}
        key = run_key(usable, facts, settings, suites_digest())
        store = Store(settings.home)
        with _only_one(store, key):
            done = _complete(settings.home)
            plan = make_plan(usable, key, settings.compare, store, new=new, complete=done)
            session = Session(settings, plan, arms, store, FeatureStore(settings.home), judge, found.name, decoder)
            result = _run(session, refused, judgements, counter)
            if (see := finished.get()) is not None:
                see(result)
            return result


def _run(session: Session, refused: Sequence[Refused], judgements: Sequence[Judgement], counter: _Counter) -> Compared:
    settings, plan, store = session.settings, session.plan, session.store
    facts = {
        "versions": versions(),
        "hardware": hardware(),
        "dataset_fingerprint": fingerprint(plan.clips),
        "flow_run_id": str(runtime.flow_run.id or ""),
    }
    session.open(refused, judgements, facts)
    _answer(session, counter)
    if session.needs_latency():
        counter.add(1 + len(ARMS))
        for letter in ARMS:  # also after a resume, when this process has not asked the models anything yet
            _warm_up(session, letter)
        measure_latency.with_options(**policies.inference(session.arms["a"].device_tag, 1))(_as_is(session))
    if session.needs_repeats():
        counter.add(1)
        measure_noise.with_options(**policies.inference(session.arms["a"].device_tag, 1))(_as_is(session))
    tell("latency, scores, report", 1, 4)
    counter.add(3)
    verdict = score_and_test(_as_is(session))
    session.close(facts)
    tell("latency, scores, report", 2, 4)
    published = publish(store, VIEWS)
    tell("latency, scores, report", 3, 4)
    page = report(store, plan.run, settings, _as_is({clip.clip_id: clip.entry for clip in plan.clips}))
    return Compared(
        run_id=plan.run.id,
        resumed=plan.resumed,
        verdict=str(verdict["verdict"]),
        sentence=str(verdict["sentence"]),
        warehouse=str(published.path),
        report=str(page),
        task_runs=counter.value,
        flow_run_id=facts["flow_run_id"],
        left_out=tuple(f"{part.path.relative_to(store.home)}: {part.reason}" for part in published.skipped),
    )


@contextmanager
def _starting(settings: Settings, names: dict[str, str], scratch: Path) -> Iterator[Future[dict[str, Arm]]]:
    """Load the models while the clips are checked; whatever was started is stopped at the end."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(start_arms, settings, names, scratch)
        try:
            yield future
        finally:
            if future.exception() is None:
                stop_arms(future.result())


def _as_is(value: T) -> T:
    """Hand an argument to a task without Prefect walking through it, which takes longer the larger the set is."""
    return cast("T", quote(value))


class _Counter:
    """How many task runs the server has to know about when the flow is done."""

    def __init__(self) -> None:
        self.value = 0

    def add(self, count: int) -> None:
        self.value += count


def _check(
    found: Dataset, settings: Settings, counter: _Counter, decode: DecodeAll
) -> tuple[list[Usable], list[Refused], list[Judgement]]:
    chunks = [found.entries[i : i + CHUNK] for i in range(0, len(found.entries), CHUNK)]
    counter.add(len(chunks))
    futures = [check_audio.submit(_as_is(chunk), settings.audio, _as_is(decode)) for chunk in chunks]
    usable: list[Usable] = []
    judgements: list[Judgement] = []
    refused = refusals(found)
    for done, future in enumerate(futures, start=1):
        tell("clips checked, in chunks", done, len(futures))
        good, bad, judged = future.result()
        usable += good
        refused += bad
        judgements += judged
    usable, twins = distinct(usable)
    if not usable:
        reasons = sorted({item.error.code for item in [*refused, *twins]})
        msg = f"No clip of {found.name} can be used: {', '.join(reasons)}."
        raise ConfigError(msg, code="no-usable-clips", hint="See the messages above and mend the dataset.")
    return usable, [*refused, *twins], judgements


def _answer(session: Session, counter: _Counter) -> None:
    """All batches, one arm after the other; or step by step, until a look decides."""
    if not session.plan.steps:
        for letter in ARMS:
            _throughput(session, letter, session.plan.batches, counter)
        return
    warm: set[str] = set()
    for number, step in enumerate(session.plan.steps, start=1):
        for letter in ARMS:
            _throughput(session, letter, step, counter, warm)
        counter.add(1)
        decided = look.with_options(task_run_name=f"look {number}")(_as_is(session), number)
        tell("looks, at most", number, len(session.plan.steps))
        if decided:
            return


def _throughput(
    session: Session, letter: str, batches: Sequence[Batch], counter: _Counter, warm: set[str] | None = None
) -> None:
    """Answer what is pending of some batches; ``warm`` holds the arms that need no warming up any more."""
    arm = session.arms[letter]
    options = policies.inference(arm.device_tag, session.settings.worker.attempts)
    pending = session.pending(letter, batches)
    if not pending:
        return
    counter.add(len(pending))
    if warm is None or letter not in warm:
        counter.add(1)
        _warm_up(session, letter)
    if warm is not None:
        warm.add(letter)
    stepwise = warm is not None  # then the looks tell how far it is
    progress: Any = None
    if not stepwise:
        progress = create_progress_artifact(progress=0.0, key=f"compare-{letter}", description=arm.card.name)
    for done, batch in enumerate(pending, start=1):
        name = f"{arm.card.name} {done}/{len(pending)}"
        infer.with_options(**options, task_run_name=name)(_as_is(session), letter, batch)
        if not stepwise:
            tell(f"{letter} {arm.card.name}", done, len(pending))
            update_progress_artifact(artifact_id=progress, progress=100 * done / len(pending))


def _warm_up(session: Session, letter: str) -> None:
    card, tag = session.arms[letter].card, session.arms[letter].device_tag
    warm_up.with_options(tags=[tag], task_run_name=f"warm up {card.name}")(_as_is(session), letter)


def _complete(home: Path) -> frozenset[str]:
    """Runs whose last step, the report, is done."""
    return frozenset(path.stem for path in (home / "reports").glob("*.html"))


@contextmanager
def _only_one(store: Store, key: str) -> Iterator[None]:
    """Hold the lock of a question, so that two processes never work on the same run; it names its holder."""
    with disk("The lock of the run"):
        lock = store.question_lock(key)
        held = Path(lock.lock_file)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            said = held.read_text(encoding="utf-8", errors="replace").strip()
            msg = f"The same comparison is already running on this home, in {said or 'another process'}."
            raise ConfigError(msg, code="already-running", hint="Wait for it, or stop it first.") from error
    try:
        with disk("The lock of the run"):
            held.write_text(f"process {os.getpid()}", encoding="utf-8")
        yield
    finally:
        lock.release()
