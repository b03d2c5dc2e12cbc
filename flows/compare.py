"""The main job: two models on one dataset or several, checked, scored, tested, stored and shown.

Each dataset is a run of its own with a task: to transcribe (word error rate) or to
classify (label accuracy). The models are loaded once for all of them. Order and
policy only; what each step means is in ``grym.compare``.

Run: ``python -m flows compare --a wav2vec2-mini --b gama-mini --dataset digits --dataset sounds``
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import polars as pl
from filelock import Timeout
from prefect import flow, runtime
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import quote

from expectations.gate import judge
from expectations.loader import suites_digest
from flows.progress import tell
from grym.batching import Batch
from grym.compare.arms import needs_probe, read_task
from grym.compare.plan import Refused, Usable, distinct, fingerprint, group_id, make_plan, refusals, run_key
from grym.compare.session import ARMS, Arm, Session, start_arms, stop_arms, with_names
from grym.compare.task import Task
from grym.config import DatasetSpec, Settings, TaskName, load_settings
from grym.corpus.manifest import Dataset
from grym.environment import hardware, versions
from grym.errors import ConfigError
from grym.memory.features import FeatureStore
from grym.parts import disk
from grym.quality import Judgement
from grym.scratch import scratch_folder
from grym.store import Store
from grym.worker import Worker
from grym.worker.decoder import DecodeAll, Decoder
from reports import VIEWS
from tasks import policies
from tasks.audio import CHUNK, check_audio
from tasks.compare import look, score_and_test
from tasks.infer import infer, measure_latency, measure_noise, probe, warm_up
from tasks.report import report, report_together
from tasks.store import publish

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Result:
    """What the run on one dataset leaves.

    Attributes:
        run_id: the run.
        dataset: name of the dataset.
        task: what was asked: ``transcribe`` or ``classify``.
        resumed: whether an unfinished run was finished.
        verdict: who is better.
        sentence: the verdict in one sentence.
        report: the HTML page of the run.
    """

    run_id: str
    dataset: str
    task: TaskName
    resumed: bool
    verdict: str
    sentence: str
    report: str


@dataclass(frozen=True, slots=True)
class Compared:
    """What a comparison leaves.

    Attributes:
        runs: one result for each dataset, in the order in which they were asked for.
        warehouse: the DuckDB file.
        report: the HTML page: of the run, or of all of them together.
        task_runs: how many task runs the server has to know about.
        flow_run_id: id of the flow run in Prefect.
        left_out: stored parts that cannot be read and are missing from the warehouse, each with its reason.
    """

    runs: tuple[Result, ...]
    warehouse: str
    report: str
    task_runs: int
    flow_run_id: str
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Asked:
    """One dataset, what models are asked about it, and the settings that name it."""

    name: str
    spec: DatasetSpec
    dataset: Dataset
    training: Dataset | None
    task: Task
    settings: Settings


@dataclass(frozen=True, slots=True)
class _Checked:
    """What the check of the clips of one dataset found."""

    asked: _Asked
    usable: list[Usable]
    refused: list[Refused]
    judgements: list[Judgement]


# Told the result as soon as everything is stored: Prefect hands it on only if its server lives to record the end.
finished: ContextVar[Callable[[Compared], None] | None] = ContextVar("finished", default=None)


def _flow_run_name() -> str:
    given = runtime.flow_run.parameters
    settings = load_settings()
    a, b = (given.get(arm) or getattr(settings.compare, arm) for arm in ARMS)
    return f"{a} vs {b} on {', '.join(chosen(settings, given.get('dataset') or '', given.get('datasets')))}"


def chosen(settings: Settings, dataset: str = "", datasets: Sequence[str] | None = None) -> tuple[str, ...]:
    """The datasets of a comparison: those that were named, else the default ones of grym.toml, each once."""
    named = [*([dataset] if dataset else []), *(datasets or ())]
    return tuple(dict.fromkeys(named or settings.compare.datasets or (settings.compare.dataset,)))


@flow(
    name="compare",
    flow_run_name=_flow_run_name,
    task_runner=ThreadPoolTaskRunner(max_workers=2),  # type: ignore[arg-type]
    persist_result=False,
    validate_parameters=True,
)
def compare(
    a: str = "",
    b: str = "",
    dataset: str = "",
    *,
    datasets: list[str] | None = None,
    task: Literal["", "transcribe", "classify"] = "",
    new: bool = False,
    stop_early: bool = False,
    repeats: int = 0,
) -> Compared:
    """Compare two registered models on a dataset, or on several, and publish the verdicts.

    Args:
        a: registered name of the first model; default: that of grym.toml.
        b: registered name of the second model.
        dataset: registered name, or path of a folder, a CSV or a JSONL manifest; default: those of grym.toml.
        datasets: further ones; each is a run of its own, and one page shows all of them.
        task: what is asked about all of them, if not what grym.toml says.
        new: start other runs even if unfinished ones with the same question exist.
        stop_early: answer clips in a seeded random order and stop as soon as a confidence sequence decides; where
            labels are asked for, all clips are answered.
        repeats: how often each clip of the latency sample is transcribed for the noise floor; 0 or 1 is none.

    Returns:
        Where the results are.

    Raises:
        GrymError: nothing could be compared; bad clips alone never raise.
    """
    general = load_settings()
    counter = _Counter()
    asked = [
        _read(name, general, task or None, a=a, b=b, stop_early=stop_early, repeats=repeats)
        for name in chosen(general, dataset, datasets)
    ]
    settings = asked[0].settings
    names = {letter: getattr(settings.compare, letter) for letter in ARMS}
    with (
        scratch_folder(settings.home, "compare") as scratch,
        Decoder(settings.worker, scratch / "decode") as decoder,
        _starting(settings, names, scratch) as starting,
    ):
        checked = [_check(one, counter, decoder, several=len(asked) > 1) for one in asked]
        arms = starting.result()
        fitting = [_fitting(one, arms, counter) for one in checked]
        keys = [
            run_key(
                one.usable,
                {letter: arm.facts for letter, arm in own.items()},
                one.asked.settings,
                suites_digest(),
                one.asked.task.identity,
            )
            for one, own in zip(checked, fitting, strict=True)
        ]
        store = Store(settings.home)
        with ExitStack() as locks:
            for key in dict.fromkeys(sorted(keys)):
                locks.enter_context(_only_one(store, key))
            sessions = _plan(checked, fitting, keys, store, decoder, new=new)
            result = _run(sessions, checked, arms, counter)
            if (see := finished.get()) is not None:
                see(result)
            return result


def _read(name: str, general: Settings, task: TaskName | None, **changes: object) -> _Asked:
    """A dataset with the settings of its run; only transcribing may stop early."""
    settings = with_names(general, dataset=name, **{key: value or None for key, value in changes.items()})
    spec, found, training, own = read_task(name, settings, task)
    if settings.compare.stop_early and not own.words:
        settings = with_names(settings, stop_early=False)
    return _Asked(name, spec, found, training, own, settings)


def _fitting(one: _Checked, arms: Mapping[str, Arm], counter: _Counter) -> dict[str, Arm]:
    """The arms for a task: a model that cannot name labels answers through a probe on its features."""
    found = dict(arms)
    for letter, arm in arms.items():
        asked = one.asked
        if needs_probe(arm, asked.task, asked.spec):
            counter.add(1)
            options = {**policies.inference(arm.device_tag, 1), "task_run_name": f"probe {arm.card.name}"}
            tell(f"{letter} probe on {asked.spec.train}", 0, 1)
            found[letter] = probe.with_options(**options)(
                _as_is(arm),
                _as_is(asked.spec),
                _as_is(cast("Dataset", asked.training)),
                _as_is(one.usable),
                asked.settings,
            )
            tell(f"{letter} probe on {asked.spec.train}", 1, 1)
    return found


def _plan(
    checked: Sequence[_Checked],
    arms: Sequence[dict[str, Arm]],
    keys: Sequence[str],
    store: Store,
    decode: DecodeAll,
    *,
    new: bool,
) -> list[Session]:
    done = _complete(store)
    plans = [
        make_plan(one.usable, key, one.asked.settings.compare, store, new=new, complete=done)
        for one, key in zip(checked, keys, strict=True)
    ]
    group = group_id([plan.run.id for plan in plans]) if len(plans) > 1 else ""
    return [
        Session(
            settings=one.asked.settings,
            plan=plan,
            arms=own,
            store=store,
            memory=FeatureStore(store.home),
            judge=judge,
            dataset=one.asked.dataset.name,
            decode=decode,
            task=one.asked.task,
            group=group,
        )
        for one, plan, own in zip(checked, plans, arms, strict=True)
    ]


def _run(
    sessions: Sequence[Session], checked: Sequence[_Checked], arms: Mapping[str, Arm], counter: _Counter
) -> Compared:
    """Every run to its verdict, then the stores and pages for all of them."""
    verdicts = [_to_verdict(session, one, arms, counter) for session, one in zip(sessions, checked, strict=True)]
    counter.add(1 + len(sessions) + (len(sessions) > 1))
    steps = 1 + len(sessions)
    store = sessions[0].store
    published = publish(store, VIEWS)
    tell("tables, pages", 1, steps)
    results, pages = [], []
    for place, (session, verdict) in enumerate(zip(sessions, verdicts, strict=True), start=2):
        plan = session.plan
        entries = {clip.clip_id: clip.entry for clip in plan.clips}
        page = report(store, plan.run, session.settings, _as_is(entries))
        tell("tables, pages", place, steps)
        pages.append(page)
        results.append(
            Result(
                run_id=plan.run.id,
                dataset=session.dataset,
                task=session.task.name,
                resumed=plan.resumed,
                verdict=str(verdict["verdict"]),
                sentence=str(verdict["sentence"]),
                report=str(page),
            )
        )
    if len(sessions) > 1:
        pages.append(report_together(store, [session.plan.run for session in sessions], sessions[0].group))
    return Compared(
        runs=tuple(results),
        warehouse=str(published.path),
        report=str(pages[-1]),
        task_runs=counter.value,
        flow_run_id=str(runtime.flow_run.id or ""),
        left_out=tuple(f"{part.path.relative_to(store.home)}: {part.reason}" for part in published.skipped),
    )


def _to_verdict(session: Session, one: _Checked, arms: Mapping[str, Arm], counter: _Counter) -> dict[str, object]:
    """Answer, measure, score and test one run."""
    facts = {
        "versions": versions(),
        "hardware": hardware(),
        "dataset_fingerprint": fingerprint(session.plan.clips),
        "flow_run_id": str(runtime.flow_run.id or ""),
    }
    for arm in arms.values():  # the peak of this run, not of the one before or of a probe's training
        cast("Worker", arm.worker).forget_peak()
    session.open(one.refused, one.judgements, facts)
    _answer(session, counter)
    if session.needs_latency():
        counter.add(1 + len(ARMS))
        for letter in ARMS:  # also after a resume, when this process has not asked the models anything yet
            _warm_up(session, letter)
        measure_latency.with_options(**policies.inference(session.arms["a"].device_tag, 1))(_as_is(session))
    if session.needs_repeats():
        counter.add(1)
        measure_noise.with_options(**policies.inference(session.arms["a"].device_tag, 1))(_as_is(session))
    counter.add(1)
    verdict = score_and_test(_as_is(session))
    session.close(facts)
    return verdict


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


def _check(asked: _Asked, counter: _Counter, decode: DecodeAll, *, several: bool) -> _Checked:
    found = asked.dataset
    chunks = [found.entries[i : i + CHUNK] for i in range(0, len(found.entries), CHUNK)]
    counter.add(len(chunks))
    futures = [check_audio.submit(_as_is(chunk), asked.settings.audio, _as_is(decode)) for chunk in chunks]
    usable: list[Usable] = []
    judgements: list[Judgement] = []
    refused = refusals(found)
    for done, future in enumerate(futures, start=1):
        tell(f"clips{f' of {found.name}' if several else ''} checked, in chunks", done, len(futures))
        good, bad, judged = future.result()
        usable += good
        refused += bad
        judgements += judged
    usable, twins = distinct(usable)
    if not usable:
        reasons = sorted({item.error.code for item in [*refused, *twins]})
        msg = f"No clip of {found.name} can be used: {', '.join(reasons)}."
        raise ConfigError(msg, code="no-usable-clips", hint="See the messages above and mend the dataset.")
    return _Checked(asked, usable, [*refused, *twins], judgements)


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
            what = f"{letter} {arm.card.name}" + (f" on {session.dataset}" if session.group else "")
            tell(what, done, len(pending))
            update_progress_artifact(artifact_id=progress, progress=100 * done / len(pending))


def _warm_up(session: Session, letter: str) -> None:
    card, tag = session.arms[letter].card, session.arms[letter].device_tag
    warm_up.with_options(tags=[tag], task_run_name=f"warm up {card.name}")(_as_is(session), letter)


def _complete(store: Store) -> frozenset[str]:
    """Runs whose last step, the report, is done; of a comparison on several datasets, that of all of them."""
    pages = {path.stem for path in (store.home / "reports").glob("*.html")}
    ended = store.runs()
    if "run_group" in ended.columns:
        ended = ended.filter(pl.col("state") == "finished").select("run_id", "run_group")
        pages -= {str(run) for run, group in ended.iter_rows() if group and group not in pages}
    return frozenset(pages)


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
