"""Workers with real child processes and real signals: isolation, deadlines, restarts, nothing left behind."""

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

import grym
from grym.config import ModelSpec, WorkerLimits
from grym.errors import AudioError, ConfigError, DeadlineError, ModelError, ResourceError, WorkerError
from grym.models import AudioClip, Options
from grym.worker import Exit, Worker, client, process, shared

SOURCE = Path(grym.__file__).parents[1]
ENTRY = SOURCE / "grym" / "worker" / "__main__.py"
TRANSCRIPT = Path(__file__).parents[2] / "docs" / "worker-protocol.md"
ONE = {"*": "one two"}
USAGE = {"seconds", "compute_seconds", "cpu_seconds", "peak_rss_mb", "call_peak_mb", "gpu_peak_mb", "pid"}
PLUGIN = '''
import fcntl, json, os, signal, stat, struct, subprocess, sys, time
from pathlib import Path
from grym.models.fake import FakeModel

def protocol_descriptor():
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        try:
            writes = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
            if fd > 2 and writes and stat.S_ISFIFO(os.fstat(fd).st_mode):
                return fd
        except OSError:
            pass

class Mirror(FakeModel):
    """Shows what it sees of the world."""
    def ping(self):
        Path("mark").write_text("here")
        return {"environ": dict(os.environ), "cwd": os.getcwd(), "path": sys.path, "torch": "torch" in sys.modules,
                "stdin": sys.stdin.read(), "modules": sorted(sys.modules), "group": os.getpgrp()}

class Rogue(FakeModel):
    """Speaks to the client behind the worker's back."""
    def process(self, batch, options):
        fd, what = protocol_descriptor(), batch[0].id
        header = json.dumps({"id": "other", "status": "success"}).encode()
        if what == "garbage":
            os.write(fd, b"\\xff" * 64)
        if what == "wrong-id":
            os.write(fd, struct.pack(">I", len(header)) + header)
        if what == "cut":
            os.write(fd, struct.pack(">I", len(header)) + header[:5])
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "closed":
            os.close(fd)
        time.sleep(60)

class Parent(FakeModel):
    """Has helpers of its own, one of which holds the pipes open."""
    def process(self, batch, options):
        helper = subprocess.Popen(["sleep", "600"])
        fork = os.fork()
        if fork == 0:
            time.sleep(600)
        Path("helpers").write_text(f"{helper.pid} {fork}")
        os.kill(os.getpid(), signal.SIGKILL)

class Stubborn(FakeModel):
    """Does not want to end."""
    def __init__(self, spec, options):
        super().__init__(spec, options)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    def close(self):
        time.sleep(600)

class Loud(FakeModel):
    """Says something and dies."""
    def process(self, batch, options):
        print("reading /srv/models/weights.bin failed")
        os.abort()
'''


def clip(name="a", seconds=0.5):
    """A clip of seeded noise at 16 kHz."""
    samples = np.random.default_rng(1).normal(scale=0.1, size=int(seconds * 16_000)).astype(np.float32)
    return AudioClip(name, samples, 16_000)


def spec(script=None, adapter="fake", **options):
    """A scripted model."""
    return ModelSpec(name="toy", adapter=adapter, options={"script": json.dumps(script or ONE), **options})


def alive(pid):
    """Whether a process runs; an orphan that nobody has reaped yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def eventually(condition, seconds=20.0):
    """Wait for something that another process does."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


def murder(pid, number=signal.SIGKILL):
    """Kill a child of this process and wait until all its threads are dead, without reaping it."""
    os.kill(pid, number)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


@pytest.fixture
def plugins(tmp_path):
    """A plugin folder with odd models."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "odd_models.py").write_text(PLUGIN)
    return folder


@pytest.fixture
def make(tmp_path, plugins):
    """Make workers that are closed after the test."""
    made = []

    def build(model, **limits):
        worker = Worker(model, WorkerLimits(**limits), tmp_path / "scratch", plugins=[plugins])
        made.append(worker)
        return worker

    yield build
    for worker in made:
        worker.close()


def test_a_worker_answers_and_says_what_it_took(make):
    """Card, answers, features, measurements and ping come through; usage is filled in."""
    script = {"*": "one two", "p": {"do": "print", "text": "loud"}, "f": {"do": "fail", "category": "audio"}}
    with make(spec(script)) as worker:
        assert (worker.card.name, worker.card.feature_dim) == ("toy", 8)
        answers, usage = worker.process([clip("a"), clip("p"), clip("f")], Options(features=True))
        assert [a.text for a in answers] == ["one two", "loud", None]
        assert answers[2].error.category == "audio"
        assert answers[0].segments[1].end == pytest.approx(0.5)
        assert 0 <= usage.compute_seconds <= usage.wall_seconds
        assert usage.cpu_seconds >= 0
        assert usage.peak_rss_mb > 10
        assert usage.pid == worker.pid != os.getpid()
        matrix, _ = worker.features([clip("a"), clip("b")])
        assert np.array_equal(matrix[0], answers[0].features)
        measured, _ = worker.analyze([clip()], "basic")
        assert measured[0]["seconds"] == 0.5
        assert worker.process([], Options())[0] == []
        assert worker.ping()["pid"] == worker.pid
        assert worker.load_seconds > 0
        assert worker.restarts == 0
        first = worker.pid
        assert worker.start() is worker.card
        assert worker.pid == first


def test_what_the_model_raises_is_a_typed_error_and_the_child_lives(make):
    """Typed errors keep their kind, bugs become model errors without folders, memory becomes a resource error."""
    script = {
        **ONE,
        "t": {"do": "raise", "category": "audio", "code": "odd", "retryable": True},
        "b": {"do": "bug"},
        "m": {"do": "memory"},
    }
    worker = make(spec(script))
    with pytest.raises(AudioError) as typed:
        worker.process([clip("a"), clip("t")], Options())
    assert (typed.value.code, typed.value.retryable, typed.value.hint) == ("odd", True, "Change it.")
    with pytest.raises(ModelError, match=r"ValueError: cannot read '…/weights\.bin'") as bug:
        worker.process([clip("b")], Options())
    assert "somebody" not in str(bug.value.record())
    with pytest.raises(ResourceError) as memory:
        worker.process([clip("m")], Options())
    assert memory.value.code == "out-of-memory"
    for deed in ("too-few", "wrong-id"):
        other = make(spec({"*": {"do": deed}}))
        with pytest.raises(ModelError) as garbled:
            other.process([clip()], Options())
        assert garbled.value.code == "garbled-answer"
        other.close()
    assert worker.process([clip()], Options())[0][0].text == "one two"
    assert worker.restarts == 0


def test_a_crash_stays_in_the_child_and_the_next_call_restarts_it(make, tmp_path):
    """SIGKILL in the middle of a call: a retryable error that names the signal; afterwards it answers."""
    model = spec({"a": {"do": "crash", "first": 2, "text": "back"}, "x": {"do": "exit"}}, state=str(tmp_path / "s"))
    worker = make(model)
    pids = set()
    for _ in range(2):
        with pytest.raises(WorkerError) as caught:
            worker.process([clip()], Options())
        assert (caught.value.code, caught.value.retryable) == ("worker-crashed", True)
        assert caught.value.metadata["signal"] == "SIGKILL"
        assert worker.pid is None
        pids.add(caught.value.metadata["pid"])
    assert len(pids) == 2
    assert worker.process([clip()], Options())[0][0].text == "back"
    with pytest.raises(WorkerError, match="exit code 3") as left:
        worker.process([clip("x")], Options())
    assert left.value.metadata["exit_code"] == 3
    assert worker.process([clip()], Options())[0][0].text == "back"
    assert worker.restarts == 3


def test_a_signal_from_outside_is_a_crash(make):
    """Killed during a call: WorkerError. Killed between two calls: the next one does not notice."""
    worker = make(spec({**ONE, "h": {"do": "hang"}}))
    worker.start()
    threading.Timer(0.3, os.kill, (worker.pid, signal.SIGKILL)).start()
    with pytest.raises(WorkerError) as caught:
        worker.process([clip("h")], Options(), deadline=60)
    assert caught.value.metadata["signal"] == "SIGKILL"
    worker.start()
    murder(worker.pid, signal.SIGTERM)
    assert worker.process([clip()], Options())[0][0].text == "one two"
    assert worker.restarts == 2


def test_a_deadline_is_kept_by_killing(make):
    """A sleeping and a stopped child are both killed; the next call works."""
    worker = make(spec({**ONE, "h": {"do": "hang"}}), call_seconds=0.3, call_seconds_per_audio_second=0.2)
    worker.start()
    pid = worker.pid
    with pytest.raises(DeadlineError) as caught:
        worker.process([clip("h", 1.0)], Options())
    assert caught.value.retryable
    assert caught.value.metadata["deadline_seconds"] == pytest.approx(0.5)
    assert not alive(pid)
    worker.start()
    pid = worker.pid
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(DeadlineError):
        worker.process([clip("h", 60.0)], Options(), deadline=0.2)  # more than a pipe holds: writing is late too
    assert not alive(pid)
    assert worker.process([clip()], Options(), deadline=30)[0][0].text == "one two"


def test_a_load_that_fails_says_why(make):
    """What the child said arrives as it is, its process is gone, and the next start tries again."""
    with pytest.raises(ConfigError, match="Unknown option 'speed' of model 'toy'"):
        make(spec(speed=1)).start()
    with pytest.raises(ConfigError, match="known are audio_lm"):
        make(spec(adapter="nobody")).start()
    broken = make(spec({"load": {"do": "raise", "code": "no-weights"}}))
    with pytest.raises(ModelError) as caught:
        broken.start()
    assert caught.value.code == "no-weights"
    assert broken.pid is None
    with pytest.raises(WorkerError, match="SIGKILL during load"):
        make(spec({"load": {"do": "crash"}})).start()
    with pytest.raises(DeadlineError, match="no answer to load within 1 s"):
        make(spec({"load": {"do": "hang"}}), start_seconds=1).start()


def test_a_restart_with_other_weights_is_refused(make):
    """One run never mixes two revisions of a model."""
    worker = make(spec())
    worker.start()
    murder(worker.pid)
    worker.spec = spec({"*": "three"})
    with pytest.raises(ModelError) as caught:
        worker.process([clip()], Options())
    assert caught.value.code == "revision-changed"
    assert worker.pid is None


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memory files")
def test_shared_memory_is_used_and_gone_with_either_end(make):
    """Much audio goes through it, more than it holds through the pipe; a kill of the child leaves no descriptor."""
    loud = AudioClip("loud", np.linspace(-1, 1, 200_000, dtype=np.float32), 16_000)
    huge = AudioClip("huge", np.full(shared.BYTES // 4 + 1, 0.5, np.float32), 16_000)
    worker = make(spec())
    nobody = open_memories(os.getpid())  # workers of others in this process
    worker.start()
    before = open_memories(os.getpid())
    assert before == nobody + 1
    assert open_memories(worker.pid) in {1, 2}  # what it inherited, and what its mapping keeps
    for batch in ([loud, clip("b")], [huge], [clip("b"), loud]):
        measured, _ = worker.analyze(batch)
        assert [m["peak"] for m in measured] == [pytest.approx(np.abs(c.samples).max()) for c in batch]
    murder(worker.pid)
    worker.process([loud], Options())
    assert open_memories(os.getpid()) == before
    worker.close()
    assert open_memories(os.getpid()) == nobody


def open_memories(pid):
    """How many descriptors of a process are memory files of ours."""
    links = list(Path(f"/proc/{pid}/fd").iterdir())  # one of them is this listing's own, gone by now
    return sum("grym-audio" in str(link.readlink()) for link in links if link.is_symlink())


def test_a_child_that_declines_shared_memory_gets_frames(make, monkeypatch):
    """A worker of another make that does not know the offer answers as before."""
    monkeypatch.setattr(process.ChildProcess, "offer", lambda _self: {})
    worker = make(spec())
    worker.process([AudioClip("a", np.zeros(100_000, np.float32), 16_000)], Options())
    assert open_memories(os.getpid()) == 0


def test_a_child_is_told_where_to_remember(tmp_path, plugins):
    """The cache folder is the client's, not the scratch folder."""
    model, folder = spec(adapter="odd_models:Mirror"), tmp_path / "cache"
    with Worker(model, WorkerLimits(), tmp_path / "scratch", plugins=[plugins], cache=folder) as worker:
        assert worker.ping()["environ"]["GRYM_CACHE"] == str(folder)


def test_a_child_sees_nothing_it_should_not(make, monkeypatch, tmp_path):
    """No secrets, its scratch folder as home and working directory, an empty input, no torch, its own group."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    seen = make(spec(adapter="odd_models:Mirror"), threads=3).ping()
    scratch = str(tmp_path / "scratch")
    environ = {k: v for k, v in seen["environ"].items() if not k.startswith("COVERAGE_")}
    ours = {"HOME", "TMPDIR", "OMP_NUM_THREADS", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", *process.COMPUTING}
    allowed = {*process.INHERITED, *ours}
    assert set(environ) - {"LC_CTYPE"} <= allowed  # Python adds LC_CTYPE itself under the C locale
    assert "secret" not in json.dumps(environ)
    assert (environ["HOME"], environ["TMPDIR"], seen["cwd"]) == (scratch, scratch, scratch)
    assert (environ["OMP_NUM_THREADS"], environ["HF_HUB_OFFLINE"], environ["CUDA_VISIBLE_DEVICES"]) == ("3", "1", "")
    assert (tmp_path / "scratch" / "mark").read_text() == "here"
    assert "/nowhere" not in seen["path"]
    assert seen["stdin"] == ""
    assert seen["torch"] is False
    assert seen["group"] == seen["pid"] != os.getpgrp()


@pytest.mark.parametrize(
    ("what", "code"),
    [("garbage", "oversized"), ("wrong-id", "wrong-id"), ("cut", "worker-crashed"), ("closed", "worker-crashed")],
)
def test_a_child_that_breaks_the_protocol_is_killed(make, what, code):
    """Each way has its code; the child is gone and the next call gets a new one."""
    worker = make(spec(adapter="odd_models:Rogue"))
    worker.start()
    pid = worker.pid
    with pytest.raises(WorkerError) as caught:
        worker.process([clip(what)], Options(), deadline=30)
    assert (caught.value.code, caught.value.retryable) == (code, True)
    assert not alive(pid)
    assert worker.ping()["status"] == "ok"


def test_helpers_of_a_child_end_with_it(make, tmp_path):
    """A helper that holds the pipe open neither hides the crash nor survives it."""
    worker = make(spec(adapter="odd_models:Parent"))
    with pytest.raises(WorkerError) as caught:
        worker.process([clip()], Options(), deadline=60)
    assert caught.value.code == "worker-crashed"
    helpers = [int(pid) for pid in (tmp_path / "scratch" / "helpers").read_text().split()]
    assert len(helpers) == 2
    assert eventually(lambda: not any(map(alive, helpers)))


def test_the_last_words_of_a_child_are_told_without_folders(make, tmp_path):
    """The log's tail is in the metadata; the log itself is in the scratch folder and does not grow for ever."""
    worker = make(spec(adapter="odd_models:Loud"))
    with pytest.raises(WorkerError, match="SIGABRT") as caught:
        worker.process([clip()], Options())
    assert "reading …/weights.bin failed" in caught.value.metadata["log"]
    assert str(tmp_path) not in str(caught.value.record())
    log = tmp_path / "scratch" / "toy.log"
    os.truncate(log, process.LOG_BYTES + 1)
    worker.ping()
    worker.ping()
    assert log.stat().st_size < process.LOG_BYTES


def test_a_request_that_is_too_large_harms_nobody(make):
    """It is refused before it is sent."""
    worker = make(spec())
    worker.start()
    pid = worker.pid
    with pytest.raises(WorkerError) as caught:
        worker.process([clip("a", 0.0)] * 5000, Options())
    assert (caught.value.code, caught.value.retryable) == ("oversized", False)
    assert worker.ping()["pid"] == pid


def test_an_interrupt_in_the_middle_of_a_call_leaves_no_stale_answer(make):
    """After KeyboardInterrupt the child is replaced, so the next question gets its own answer."""
    worker = make(spec({"a": "mine", "h": {"do": "hang"}}))
    worker.start()
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            worker.process([clip("h")], Options(), deadline=60)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert worker.pid is None
    assert worker.process([clip()], Options())[0][0].text == "mine"


def test_closing_is_final_and_can_be_repeated(make):
    """The child is gone, a second close does nothing, a call is a typed error."""
    worker = make(spec())
    worker.close()
    worker = make(spec())
    worker.start()
    pid = worker.pid
    worker.close()
    worker.close()
    assert not alive(pid)
    assert worker.pid is None
    with pytest.raises(WorkerError) as caught:
        worker.process([clip()], Options())
    assert (caught.value.code, caught.value.retryable) == ("worker-closed", False)


def test_closing_from_another_thread_cuts_off_the_call(make, monkeypatch):
    """The call ends with worker-closed, not with a crash that somebody would retry."""
    monkeypatch.setattr(client, "POLITE_SECONDS", 0.2)
    worker = make(spec({"*": {"do": "hang"}}))
    worker.start()
    pid = worker.pid
    threading.Timer(0.2, worker.close).start()
    with pytest.raises(WorkerError) as caught:
        worker.process([clip()], Options(), deadline=60)
    assert (caught.value.code, caught.value.retryable) == ("worker-closed", False)
    assert eventually(lambda: not alive(pid))


def test_a_child_that_does_not_want_to_end_is_killed(make, monkeypatch):
    """It ignores SIGTERM and hangs in close."""
    monkeypatch.setattr(client, "POLITE_SECONDS", 0.2)
    monkeypatch.setattr(client, "TERM_SECONDS", 0.2)
    worker = make(spec(adapter="odd_models:Stubborn"))
    worker.start()
    pid = worker.pid
    worker.close()
    assert not alive(pid)


def test_calls_from_many_threads_take_turns(make):
    """Every thread gets the answers to its own clips."""
    names = [f"clip-{n}" for n in range(12)]
    worker = make(spec({name: name for name in names}))
    got = {}

    def call(name):
        got[name] = worker.process([clip(name)], Options())[0][0].text

    threads = [threading.Thread(target=call, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {name: name for name in names}
    assert worker.restarts == 0


@pytest.mark.slow
def test_thirty_restarts_leave_no_zombie_and_no_descriptor(make):
    """After thirty killed children this process has as many descriptors and children as after the first."""
    worker = make(spec())
    worker.start()
    me = psutil.Process()
    before = me.num_fds()
    for _ in range(30):
        murder(worker.pid)
        worker.start()
    assert worker.restarts == 30
    assert me.num_fds() == before
    assert [child.pid for child in me.children() if child.status() == psutil.STATUS_ZOMBIE] == []
    worker.close()
    assert me.num_fds() < before


@pytest.mark.parametrize("busy", [True, False])
def test_a_child_ends_with_its_parent(tmp_path, busy):
    """The parent is killed with SIGKILL, during a call or between two: the child does not survive it."""
    call = "worker.process([AudioClip('a', np.zeros(9, np.float32), 16000)], Options(), deadline=300)"
    script = f"""
import sys, time
sys.path.insert(0, {str(SOURCE)!r})
from pathlib import Path
import numpy as np
from grym.config import ModelSpec, WorkerLimits
from grym.models import AudioClip, Options
from grym.worker import Worker
model = ModelSpec(name="toy", adapter="fake", options={{"script": '{{"a": {{"do": "hang"}}}}'}})
worker = Worker(model, WorkerLimits(), Path({str(tmp_path)!r}))
worker.start()
print(worker.pid, flush=True)
{call if busy else "time.sleep(300)"}
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert alive(pid)
        time.sleep(0.3)  # let the call begin
        parent.kill()
    assert eventually(lambda: not alive(pid))


def wire(header, frames=b""):
    """A message as another language would write it."""
    text = json.dumps(header).encode()
    return struct.pack(">I", len(text)) + text + frames


def read(stream):
    """A reply as another language would read it: header and frames."""
    (length,) = struct.unpack(">I", stream.read(4))
    header = json.loads(stream.read(length))
    return header, [stream.read(size) for size in header["frames"]]


def start_by_hand(*arguments, entry=("-I", str(ENTRY)), **options):
    """The worker as another program would start it."""
    pipe = subprocess.PIPE
    command = [sys.executable, *entry, *arguments]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, **options)


def test_the_documented_conversation_is_what_happens(tmp_path):
    """Replays the transcript of docs/worker-protocol.md byte by byte over pipes."""
    lines = re.search(r"```transcript\n(.*?)```", TRANSCRIPT.read_text(encoding="utf-8"), re.DOTALL)[1].splitlines()
    frames = [line.rpartition(" ")[2] for line in lines if " frame " in line[:9]]
    with start_by_hand(cwd=tmp_path) as child:
        turns = list(zip(*[iter(line for line in lines if line[2] == "{")] * 2, strict=True))
        assert len(turns) == 6
        for sent, expected in turns:
            request = json.loads(sent[2:])
            child.stdin.write(wire(request, b"".join(bytes.fromhex(frames.pop(0)) for _ in request.get("frames", []))))
            child.stdin.flush()
            reply, vectors = read(child.stdout)
            assert set(reply.pop("usage")) == USAGE
            if reply["status"] == "success":
                reply["result"].pop("load_seconds", None)
                reply["result"].pop("pid", None)
            assert reply == json.loads(expected[2:])
            for vector in vectors:
                shown = np.frombuffer(bytes.fromhex(frames.pop(0)), "<f4")
                assert np.frombuffer(vector, "<f4") == pytest.approx(shown)
    assert child.returncode == Exit.SHUTDOWN
    assert frames == []


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"", Exit.INPUT_CLOSED),
        (b"GET / HTTP/1.1", Exit.BAD_PROTOCOL),
        (b"\0\0", Exit.BAD_PROTOCOL),
        (wire({"id": "1", "operation": "load", "data": {}}), Exit.LOAD_FAILED),
        (wire({"id": "1", "operation": "shutdown", "data": {}}), Exit.SHUTDOWN),
    ],
)
def test_exit_codes_are_as_documented(sent, code, tmp_path):
    """For the end of the input, garbage, a failed load and shutdown."""
    child = start_by_hand(cwd=tmp_path)
    child.communicate(sent, timeout=60)
    assert child.returncode == code


def test_arguments_and_a_closed_output_have_their_codes_too(tmp_path):
    """It also runs as a module."""
    refused = start_by_hand("--spec", "x", entry=("-m", "grym.worker"), env={"PYTHONPATH": str(SOURCE)}, cwd=tmp_path)
    refused.communicate(timeout=60)
    assert refused.returncode == 2
    deaf = start_by_hand(cwd=tmp_path)
    deaf.stdout.close()
    deaf.stdin.write(wire({"id": "1", "operation": "ping"}))
    deaf.stdin.close()
    assert deaf.wait(60) == Exit.OUTPUT_CLOSED


def test_the_child_keeps_the_deadline_of_a_request_itself(tmp_path):
    """For clients that cannot kill: the kernel ends it with SIGALRM."""
    model = {"name": "toy", "adapter": "fake", "options": {"script": '{"ping": {"do": "hang"}}'}}
    child = start_by_hand(cwd=tmp_path)
    load = wire({"id": "1", "operation": "load", "data": {"spec": model}})
    child.communicate(load + wire({"id": "2", "operation": "ping", "deadline": 0.2}), timeout=60)
    assert child.returncode == -signal.SIGALRM


def test_a_worker_that_cannot_be_started_is_a_typed_error(tmp_path, monkeypatch):
    """For example when the interpreter is gone."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    with pytest.raises(WorkerError) as caught:
        Worker(spec(), WorkerLimits(), tmp_path / "scratch").start()
    assert caught.value.code == "no-start"


def test_the_documented_client_in_another_language_works(tmp_path):
    """docs/clients/worker.mjs talks to a worker: limits, load, audio in frames, features back, an error, the end."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no Node.js here")
    (tmp_path / "model.json").write_text(json.dumps(spec(ONE, feature_dim=2).model_dump(mode="json")))
    (tmp_path / "audio.f32").write_bytes(np.array([0, 0.5, -0.5, 0.25], "<f4").tobytes())
    script = TRANSCRIPT.parent / "clients" / "worker.mjs"
    command = [node, str(script), sys.executable, str(ENTRY), "model.json", "audio.f32", "8"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told.pop("kept")[0] == "open_files"
    assert told.pop("features") == pytest.approx([0.1728503, 0.9419833], abs=1e-5)  # as in the transcript
    assert told == {"model": "toy", "text": "one two", "refused": "wrong-option", "exit": Exit.SHUTDOWN}
