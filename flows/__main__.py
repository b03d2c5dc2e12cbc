"""The command line: ``python -m flows VERB``.

Starts quickly: Prefect, DuckDB and LanceDB are imported by the verb that needs
them. An error that a person can mend is one sentence on stderr and exit code 2.
"""

from __future__ import annotations

import importlib
import os
import shlex
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flows.corpus import commands
from flows.terminal import styled, terminal
from grym.errors import GrymError

app = typer.Typer(
    name="flows",
    help="grym-synth: run audio models side by side and decide which is better.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
# A pipe has no width of its own, and a table that is cut helps nobody.
out = terminal(width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "120")))
HEAVY = ("great_expectations", "lancedb", "altair", "vl_convert")


def _import_heavy(names: Iterable[str]) -> None:
    for name in names:
        importlib.import_module(name)


@contextmanager
def _session(home: Path, needs: Iterable[str] = HEAVY) -> Iterator[Any]:
    """A Prefect server for the flow, with a quiet terminal; the run's log is in the UI."""
    from flows.server import server
    from flows.trouble import explained

    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_INTERNAL_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("TQDM_DISABLE", "1")
    # Their imports take seconds, which pass while the server starts. Prefect itself has to wait for its address.
    threading.Thread(target=_import_heavy, args=(needs,), daemon=True).start()
    with explained(home):
        with out.status("Starting the Prefect server", spinner="dots"):
            entered = server(home, guard=True)
            found = entered.__enter__()
        try:
            with explained(home, found):
                yield found
        finally:
            entered.__exit__(None, None, None)


@app.command()
def compare(
    a: Annotated[str | None, typer.Option(help="First model, a name in grym.toml.")] = None,
    b: Annotated[str | None, typer.Option(help="Second model.")] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(help="A name in grym.toml, a folder, a CSV or a JSONL manifest; may be repeated."),
    ] = None,
    task: Annotated[
        str, typer.Option(help="transcribe or classify, if not what grym.toml says about the datasets.")
    ] = "",
    repeats: Annotated[int, typer.Option(help="Ask the latency sample so many times, for a noise floor.")] = 0,
    *,
    new: Annotated[bool, typer.Option("--new", help="Start another run even if an unfinished one exists.")] = False,
    stop_early: Annotated[
        bool, typer.Option("--stop-early", help="Walk clips in random order and stop as soon as it is decided.")
    ] = False,
) -> None:
    """Compare two models on a dataset, or on several: checked, scored, tested, stored, shown."""
    from grym.compare.arms import check_task, read_task
    from grym.config import ensure_home, load_settings
    from grym.models.registry import check_model
    from grym.store import Store

    settings = load_settings()
    names = {"a": a or settings.compare.a, "b": b or settings.compare.b}
    datasets = dataset or list(settings.compare.datasets) or [settings.compare.dataset]
    # Whatever a person can have typed wrong is said before a server is started.
    for name in names.values():
        check_model(settings.model(name))
    asked = check_task(task)
    for name in datasets:
        read_task(name, settings, asked or None)
    ensure_home(settings)
    store = Store(settings.home)
    store.check_unlocked()
    with _session(settings.home) as server:
        from flows.compare import Compared, finished
        from flows.compare import compare as compare_flow
        from flows.progress import shown
        from flows.server import drain
        from flows.show import show_verdict

        stored: list[Compared] = []
        finished.set(stored.append)
        try:
            with shown(out):
                result = compare_flow(
                    a=names["a"],
                    b=names["b"],
                    datasets=datasets,
                    task=asked,
                    new=new,
                    stop_early=stop_early,
                    repeats=repeats,
                )
        except Exception:  # everything is stored by then; only the server missed the end, as the last line says
            if not stored:
                raise
            result = stored[0]
        with out.status("Waiting until the server has recorded every task run"):
            recorded = drain(server.url, result.flow_run_id, result.task_runs)
    show_verdict(out, store, result)
    for part in result.left_out:
        say = f"Left out of the warehouse: {part}. Delete this file; what it held needs a new run."
        out.print(say, style="yellow", markup=False, highlight=False, soft_wrap=True)
    if recorded < result.task_runs:
        out.print(f"The server recorded {recorded} of {result.task_runs} task runs.", style="yellow", highlight=False)


@app.command("convert-gama")
def convert_gama(
    stage_file: Annotated[Path, typer.Argument(help="Published pytorch_model.bin of stage 4 (GAMA) or 5 (GAMA-IT).")],
    llama: Annotated[Path, typer.Argument(help="Folder of meta-llama/Llama-2-7b-chat-hf with safetensors weights.")],
    target: Annotated[Path, typer.Argument(help="Folder to make.")],
    stage: Annotated[str, typer.Option(help="4 or 5, if you know it.")] = "",
) -> None:
    """Convert a published GAMA checkpoint into a folder that the adapter 'gama' reads."""
    from grym.models.gama.convert_process import run_conversion

    with out.status("Converting", spinner="dots"):
        done = run_conversion(stage_file, llama, target, stage=stage)
    say = f"{target}: {done['parameters']:,} parameters; {done['live']} tensors of the stage file used, "
    out.print(f"{say}{len(done['dead'])} left out that nothing depends on.", markup=False, highlight=False)


@app.command()
def train(  # noqa: PLR0913 - an option each
    scale: Annotated[float, typer.Option(help="Factor on every number of steps, for quick trials.")] = 1.0,
    seed: Annotated[
        int | None, typer.Option(help="Seed of everything that is drawn; default the recipe's own.")
    ] = None,
    voices: Annotated[int, typer.Option(help="Synthetic training voices.")] = 464,
    name: Annotated[
        str, typer.Option(help="Folder below HOME/training; wav2vec2-mini and gama-mini name their recipe.")
    ] = "wav2vec2-mini",
    architecture: Annotated[
        Literal["auto", "wav2vec2-mini", "gama-mini"], typer.Option(help="Whose recipe; auto is that of the name.")
    ] = "auto",
    manifest: Annotated[str, typer.Option(help="Further clips to train on, CSV or JSONL.")] = "",
    measure_on: Annotated[str, typer.Option(help="Dataset to measure on instead of the test splits.")] = "",
    *,
    leave_one_out: Annotated[
        bool, typer.Option("--leave-one-out", help="Also measure on real speakers that were left out, one by one.")
    ] = False,
    folds: Annotated[int, typer.Option(help="How many speakers are left out, by name; 0 is all.")] = 0,
    install: Annotated[bool, typer.Option("--install", help="Replace the bundled checkpoint.")] = False,
) -> None:
    """Train wav2vec2-mini or gama-mini, or go on where a killed training stopped, and measure it."""
    from grym.config import ensure_home, load_settings

    settings = load_settings()
    ensure_home(settings)
    with _session(settings.home) as server:
        from flows.progress import shown, tell
        from flows.server import drain
        from flows.train import train as train_flow
        from grym.models.training_process import listener

        def hear(event: Mapping[str, Any]) -> None:
            if event["event"] == "step":
                tell(f"stage {event['stage']}, steps", int(event["step"]), int(event["steps"]))
            elif event["event"] == "data":
                out.print("Making the training data; this takes minutes.", highlight=False)

        listener.set(hear)
        with shown(out):
            result = train_flow(
                scale=scale,
                seed=seed,
                voices=voices,
                name=name,
                architecture=architecture,
                manifest=manifest,
                measure_on=measure_on,
                leave_one_out=leave_one_out,
                folds=folds,
                install=install,
            )
        drain(server.url, result.flow_run_id, result.task_runs)
    for title, rate in result.rates.items():
        out.print(f"{title}: {100 * rate:.2f} %" if title.startswith("Right") else f"{title}: WER {100 * rate:.2f} %")
    out.print(f"Checkpoint: {result.folder}")


@app.command()
def finetune(  # noqa: PLR0913, PLR0917 - the options of the command
    model: Annotated[str, typer.Argument(help="A registered model: wav2vec2, seq2seq, audio_lm or gama.")],
    dataset: Annotated[str, typer.Option(help="What is trained on: a name in grym.toml, a folder or a manifest.")],
    name: Annotated[str, typer.Option(help="Name of the new model.")],
    method: Annotated[str, typer.Option(help="lora, or full for every weight.")] = "lora",
    steps: Annotated[int, typer.Option(help="Optimizer steps.")] = 200,
    learning_rate: Annotated[float, typer.Option(help="Peak of the schedule.")] = 1e-3,
    batch_clips: Annotated[int, typer.Option(help="Clips in a step.")] = 8,
    rank: Annotated[int, typer.Option(help="Rank of LoRA.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of everything that is drawn.")] = 20261128,
    instruction: Annotated[str, typer.Option(help="What generative models are asked; empty: to transcribe.")] = "",
    language: Annotated[str, typer.Option(help="Code of two letters for models of several languages.")] = "",
    measure_on: Annotated[str, typer.Option(help="Dataset to measure on instead of held-out clips.")] = "",
    held_out: Annotated[float, typer.Option(help="Share of the dataset that is measured on, not trained on.")] = 0.2,
    *,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory for activations, more time.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a model that was made this way before.")] = False,
) -> None:
    """Fine-tune a registered model, measure it before and after, register the result."""
    from grym.config import ensure_home, load_settings
    from grym.corpus.loaders import load_dataset
    from grym.models.finetune.checking import check_finetune
    from grym.models.training_process import listener

    settings = load_settings()
    recipe = {
        "method": method, "steps": steps, "learning_rate": learning_rate, "batch_clips": batch_clips, "rank": rank,
        "seed": seed, "instruction": instruction, "language": language,
        "gradient_checkpointing": gradient_checkpointing,
    }  # fmt: skip
    check_finetune(model, name, recipe, settings, replace=replace)
    for chosen in filter(None, (dataset, measure_on)):
        load_dataset(chosen, settings)
    ensure_home(settings)

    with _session(settings.home, ()) as server:
        from flows.finetune import finetune as finetune_flow
        from flows.progress import shown, tell
        from flows.server import drain

        def hear(event: Mapping[str, Any]) -> None:
            if event["event"] == "step":
                tell(f"{event['stage']}, steps", int(event["step"]), int(event["steps"]))

        listener.set(hear)
        with shown(out):
            done = finetune_flow(
                model=model,
                dataset=dataset,
                name=name,
                recipe=recipe,
                measure_on=measure_on,
                held_out=held_out,
                replace=replace,
            )
        drain(server.url, done.flow_run_id, done.task_runs)
    say = f"{done.name}: WER {100 * done.after:.2f} % on {done.measured} clips, {100 * done.before:.2f} % before; "
    out.print(f"{say}trained on {done.clips} clips.", highlight=False)
    out.print(f"Compare: python -m flows compare --a {done.name} --b {model}", highlight=False, soft_wrap=True)


@app.command()
def search(
    clip: Annotated[str, typer.Argument(help="Content id (or its beginning), name in the manifest, or an audio file.")],
    k: Annotated[int, typer.Option("-k", help="How many neighbours.")] = 5,
    model: Annotated[str | None, typer.Option(help="Whose features; default: the first model of [compare].")] = None,
    where: Annotated[list[str] | None, typer.Option(help="Filter such as speaker=theo; may be repeated.")] = None,
) -> None:
    """List the clips that sound most alike, with scores."""
    from flows.show import show_matches
    from grym.config import load_settings
    from grym.memory.search import search as find

    show_matches(out, find(clip, load_settings(), k=k, model=model, where=where or []))


@app.command()
def score(  # noqa: PLR0913, PLR0917 - the options of the command
    references: Annotated[Path, typer.Option(help="What was said: NIST trn, .csv or .jsonl.")],
    system: Annotated[list[str], typer.Option(help="NAME=FILE with the answers of one system; may be repeated.")],
    json_file: Annotated[str | None, typer.Option("--json", help="Write all numbers to a file; - is stdout.")] = None,
    page: Annotated[Path | None, typer.Option("--report", help="Write an HTML page that opens offline.")] = None,
    normalizer: Annotated[str, typer.Option(help="none, basic or english, for references and answers.")] = "none",
    speaker: Annotated[
        str, typer.Option(help="auto (column, or the id up to - or _), none, or a regular expression: '(.{3})'.")
    ] = "auto",
    by: Annotated[list[str] | None, typer.Option(help="Column of the references to slice by; may be repeated.")] = None,
    margin: Annotated[float, typer.Option(help="Equivalence margin of the WER as a fraction; 0 is none.")] = 0.005,
    confidence: Annotated[float, typer.Option(help="Level of the intervals.")] = 0.95,
    *,
    repeat: Annotated[
        list[str] | None, typer.Option(help="NAME=FILE with another run of a system, for its noise floor; repeatable.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of numbers in the answers: COLUMN[:mean|p95][:lower][:margin=0.02]; or correct; repeatable."
        ),
    ] = None,
    ignore_case: Annotated[bool, typer.Option("--ignore-case", help="Upper and lower case are the same.")] = False,
    evidence: Annotated[
        bool, typer.Option("--evidence", help="Also fragility of each verdict, blame list and reference radar.")
    ] = False,
) -> None:
    """Score transcripts that exist already and test every pair of systems."""
    from flows.score import named_repeats, named_systems, show, write_json
    from grym.compare.scoreboard import Rules, score_files
    from grym.compare.systems import Options

    rules = Rules(normalizer=normalizer, ignore_case=ignore_case, speaker=speaker, by=by or ())
    board = score_files(
        references,
        named_systems(system),
        rules,
        Options(confidence=confidence, margin=margin),
        evidence=evidence,
        repeats=named_repeats(repeat or ()),
        metrics=metric or (),
    )
    if json_file != "-":
        show(out, board)
    if json_file:
        write_json(board, json_file)
    if page:
        from reports.scoreboard import render_scoreboard

        made = render_scoreboard(board, page.expanduser(), command=shlex.join(["python", "-m", "flows", *sys.argv[1:]]))
        if json_file != "-":
            out.print(f"Report: {made}", highlight=False, markup=False, soft_wrap=True)


@app.command("live-wer")
def live_wer(
    answers: Annotated[Path, typer.Option(help="Answers to all calls: NIST trn, .csv or .jsonl.")],
    other: Annotated[Path, typer.Option(help="A second model's answers to the same calls.")],
    references: Annotated[Path, typer.Option(help="What was said in a random few hundred of them.")],
    normalizer: Annotated[str, typer.Option(help="none, basic or english, for all texts.")] = "none",
    speaker: Annotated[
        str, typer.Option(help="auto (column, or the id up to - or _), none, or a regular expression: '(.{3})'.")
    ] = "auto",
    confidence: Annotated[float, typer.Option(help="Level of the interval.")] = 0.95,
    json_file: Annotated[str | None, typer.Option("--json", help="Write all numbers to a file; - is stdout.")] = None,
    *,
    ignore_case: Annotated[bool, typer.Option("--ignore-case", help="Upper and lower case are the same.")] = False,
) -> None:
    """Estimate the word error rate of live calls from few references and a second model's answers to all of them."""
    from flows.live_wer import as_json, show
    from flows.score import write_text
    from grym.experiment.live_wer import live_wer_of_files

    found = live_wer_of_files(
        answers,
        other,
        references,
        normalizer=normalizer,
        ignore_case=ignore_case,
        speaker=speaker,
        confidence=confidence,
    )
    if json_file != "-":
        show(out, found)
    if json_file:
        write_text(as_json(found), json_file)


@app.command()
def experiment(
    name: Annotated[str, typer.Argument(help="A file of the folder experiments, without .toml.")],
    action: Annotated[str, typer.Argument(help="status, decide, replay, start, ramp, stop or resume.")] = "status",
    coverage: Annotated[float | None, typer.Option(help="Step of the ramp to go to, for start and ramp.")] = None,
    reason: Annotated[str, typer.Option(help="Why it is stopped, for people.")] = "",
    looks: Annotated[int, typer.Option(help="Moments at which the page says what the decision would have been.")] = 16,
    *,
    act: Annotated[bool, typer.Option("--act", help="decide: stop it at once if INVALID or ROLLBACK.")] = False,
) -> None:
    """Say how a live experiment stands, decide on it, replay its decisions, start, ramp, stop or resume it."""
    from flows.experiment_command import check_action, run_action

    check_action(action, coverage)
    if action == "decide":
        from grym.config import ensure_home, load_settings
        from grym.experiment.ledger import check_registered
        from grym.experiment.loading import find_experiment
        from grym.store import Store

        settings = load_settings()
        ensure_home(settings)
        check_registered(Store(settings.home), find_experiment(settings.root, name))
        with _session(settings.home, ("altair", "vl_convert")) as server:
            from flows.experiment import experiment as experiment_flow
            from flows.experiment_command import show_decided
            from flows.server import drain

            decided = experiment_flow(name=name, looks=looks, act=act)
            drain(server.url, decided.flow_run_id, decided.task_runs)
        show_decided(out, decided)
    elif not run_action(out, name, action, coverage=coverage, reason=reason, looks=looks):
        raise typer.Exit(1)


@app.command()
def audit(
    name: Annotated[str, typer.Argument(help="The experiment whose configuration is audited.")] = "mini-int8",
    replicates: Annotated[int, typer.Option(help="Simulated experiments.")] = 1_000,
    units: Annotated[int, typer.Option(help="Units in each of them.")] = 1_000,
    looks: Annotated[int, typer.Option(help="Looks at each of them.")] = 20,
    seed: Annotated[int | None, typer.Option(help="Seed of everything that is drawn; default: the date.")] = None,
) -> None:
    """Simulate experiments with identical arms and measure how often a difference is found."""
    from grym.config import ensure_home, load_settings
    from grym.experiment.loading import find_experiment

    settings = load_settings()
    ensure_home(settings)
    find_experiment(settings.root, name)
    with _session(settings.home, ()) as server:
        from flows.audit import audit as audit_flow
        from flows.server import drain

        done = audit_flow(name=name, replicates=replicates, units=units, looks=looks, seed=seed)
        drain(server.url, done.flow_run_id, done.task_runs)
    for rate in done.audit.rates:
        out.print(rate.sentence, style="" if rate.kept else "yellow", highlight=False, soft_wrap=True)


@app.command()
def report(run: Annotated[str | None, typer.Argument(help="Run id; default: all of them.")] = None) -> None:
    """Publish the warehouse and render reports again from what is stored."""
    from flows.show import render_again
    from grym.config import load_settings

    settings = load_settings()
    for page in render_again(settings, run):
        out.print(str(page))


@app.command()
def ask(
    name: Annotated[str | None, typer.Argument(help="Name of a question; without it all of them are listed.")] = None,
    variable: Annotated[
        list[str] | None, typer.Option("--set", help="Variable of the question, such as run=ID; may be repeated.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the rows to this file as CSV.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the rows and their meaning to this file as JSON.")] = None,
    *,
    sql: Annotated[bool, typer.Option("--sql", help="Print the query instead of its answer.")] = False,
) -> None:
    """Answer one of the analysts' questions from the warehouse, or list them."""
    from flows.ask import show_answer, show_questions, show_sql

    if name is None:
        show_questions(out)
    elif sql:
        show_sql(out, name)
    else:
        show_answer(out, name, variable or [], csv=csv, json=json)


app.add_typer(commands(out), name="datasets")


@app.command()
def maintain(
    min_parts: Annotated[int, typer.Option(help="Tables of complete runs with so many parts become one part.")] = 16,
    keep_versions_hours: Annotated[float, typer.Option(help="Older versions of the feature store go.")] = 24.0,
) -> None:
    """Publish what has landed, put small parts together, tend the feature store, remove what dead processes left."""
    from grym.config import ensure_home, load_settings

    settings = load_settings()
    ensure_home(settings)
    with _session(settings.home, ("lancedb",)) as server:
        from flows.maintain import maintain as maintain_flow
        from flows.server import drain
        from grym.maintain import lines

        done = maintain_flow(min_parts=min_parts, keep_versions_hours=keep_versions_hours)
        drain(server.url, done.flow_run_id, done.task_runs)
    for step, said in lines(done).items():
        out.print(f"{step}: {said}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def health(
    models: Annotated[list[str] | None, typer.Argument(help="Names in grym.toml; default: all.")] = None,
    *,
    cached: Annotated[bool, typer.Option("--cached", help="A check within the interval of [health] counts.")] = False,
) -> None:
    """Say which models answer a known clip rightly and in time; exit code 1 if one does not."""
    from flows.health import health as say
    from grym.config import ensure_home, load_settings

    settings = load_settings()
    ensure_home(settings)
    raise typer.Exit(0 if say(out, settings, models or (), cached=cached) else 1)


@app.command()
def watch(
    model: Annotated[list[str] | None, typer.Option(help="A name in grym.toml; may be repeated; default: all.")] = None,
    *,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Ask also models that were checked within the interval.")
    ] = False,
) -> None:
    """Check the health of all models, mirror what changed since the last time, publish."""
    from grym.config import ensure_home, load_settings

    settings = load_settings()
    ensure_home(settings)
    for name in model or ():
        settings.model(name)
    with _session(settings.home, ()) as server:
        from flows.server import drain
        from flows.watch import watch as watch_flow

        done = watch_flow(models=model, fresh=fresh)
        drain(server.url, done.flow_run_id, done.task_runs)
    for check in done.checks:
        said = "healthy" if check.healthy else f"not healthy: {check.message} {check.hint}"
        out.print(f"{check.model}: {said}", highlight=False, markup=False, soft_wrap=True)
    for row in done.recovered:
        said = f"{row['recovered']} of {row['failed calls']} failed calls ({row['category']}) recovered"
        out.print(f"{row['model']}: {said}", highlight=False, markup=False, soft_wrap=True)
    out.print(f"{done.changes} change(s) told to Prefect.", highlight=False)


@app.command()
def deploy(
    *,
    check: Annotated[
        bool, typer.Option("--check", "--dry-run", help="Only read prefect.yaml and print what would be deployed.")
    ] = False,
    snapshot: Annotated[bool, typer.Option("--snapshot", help="Only renew docs/deployments.md.")] = False,
) -> None:
    """Put work pools, limits and the deployments of prefect.yaml on the Prefect server."""
    from flows.deployments import ROOT, read_deployments
    from grym.config import ensure_home, load_settings

    if check or snapshot:
        from flows.snapshot import PAGE, renew
        from flows.snapshot import snapshot as page_of

        page = page_of(read_deployments(), load_settings(ROOT / "grym.toml"))
        if check:
            print(page, end="")
        else:
            out.print(f"{'Renewed' if renew(page) else 'Up to date'}: {PAGE.relative_to(ROOT)}")
        return
    settings = load_settings()
    ensure_home(settings)
    plan = read_deployments()
    with _session(settings.home, ()) as server:
        from flows.deploy import deploy as put
        from flows.deploy import show

        with out.status("Deploying"):
            deployed = put(plan)
        show(out, deployed, server)


@app.command()
def ui() -> None:
    """Serve the Prefect UI on the home's database until Ctrl-C."""
    from flows.server import serve_ui
    from grym.config import load_settings

    serve_ui(load_settings().home)


@app.command()
def doctor() -> None:
    """Say in plain words what is missing."""
    from flows.doctor import report as say

    raise typer.Exit(say())


def main() -> None:
    """Run a verb; an error with a typed cause becomes one sentence."""
    try:
        app()
    except GrymError as error:
        said = styled("error:", "bold red", f" {error}")
        terminal(stderr=True).print(said, highlight=False, soft_wrap=True)
        if error.code.startswith("server-"):
            sys.stdout.flush()
            os._exit(2)  # at a usual exit Prefect tries for minutes to tell a server that is gone
        sys.exit(2)


if __name__ == "__main__":
    main()
