"""Limits of worker processes, kept for real: memory, processor time, processes, files, descriptors, places to write."""

import json
import os
import shutil
import socket
import threading

import numpy as np
import pytest

from grym.config import ModelSpec, WorkerLimits
from grym.errors import ModelError, ResourceError, UnavailableError, WorkerError
from grym.models import AudioClip, Options
from grym.resilience.ledger import Ledger
from grym.resilience.memory import MemoryManager
from grym.resilience.state import States
from grym.worker import Worker, landlock, privileges, watchdog
from tests.integration.test_worker import alive, clip, eventually, make, plugins, spec  # noqa: F401 - fixtures
from tests.support import ROOT

PROBE = '''
import os, resource, socket, subprocess, time
import numpy as np
from pathlib import Path
from grym.models.fake import FakeModel

def tried(deed):
    try:
        deed()
        return "done"
    except OSError as error:
        return type(error).__name__

def large():
    with open("large", "wb") as sink:
        sink.write(bytes(3_000_000))

class Probe(FakeModel):
    """Tries what it must not do, and says what came of it."""
    def ping(self):
        outside, port, parent = self._options.state.split("|")
        there = socket.socket()
        return {
            "outside": tried(lambda: Path(outside, "mark").write_text("x")),
            "inside": tried(lambda: Path("mark").write_text("x")),
            "shared": tried(lambda: Path("/dev/shm/grym-probe").write_text("x")),
            "read": tried(lambda: Path(outside, "readable").read_text()),
            "tcp": tried(lambda: there.connect(("127.0.0.1", int(port)))),
            "signal": tried(lambda: os.kill(int(parent), 0)),
            "large": tried(large),
            "files": resource.getrlimit(resource.RLIMIT_NOFILE),
            "core": resource.getrlimit(resource.RLIMIT_CORE),
            "descriptors": sorted(os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
                                  if os.path.exists(f"/proc/self/fd/{n}")),
            "environment": tried(lambda: Path(f"/proc/{parent}/environ").read_bytes()),
            "oom": int(Path("/proc/self/oom_score_adj").read_text()),
        }

class Honest(FakeModel):
    """Needs 8 MB for each second of audio, in blocks that the C library keeps, and frees all of them."""
    def process(self, batch, options):
        blocks = [np.ones(8_000_000, np.uint8) for _ in range(int(sum(clip.seconds for clip in batch)))]
        del blocks
        return super().process(batch, options)

class Cache(FakeModel):
    """Keeps 96 MB that its first calls fill."""
    kept = []
    def process(self, batch, options):
        if len(self.kept) < 12:
            self.kept.append(np.ones(8_000_000, np.uint8))
        return super().process(batch, options)

class Late(FakeModel):
    """Needs 200 MB from its fourth call on."""
    calls, kept = [], []
    def process(self, batch, options):
        self.calls.append(1)
        if len(self.calls) == 4:
            self.kept.append(np.ones(200_000_000, np.uint8))
        return super().process(batch, options)

class Forks(FakeModel):
    """Starts processes, one of them in a session of its own."""
    def process(self, batch, options):
        for number in range(6):
            made = subprocess.Popen(["sleep", "600"], start_new_session=number == 0)
            with Path("forks").open("a") as sink:
                sink.write(f"{made.pid} ")
        time.sleep(600)
'''
MB = 1_000_000


@pytest.fixture
def probes(plugins):  # noqa: F811
    """Plugin models that probe their limits."""
    (plugins / "probes.py").write_text(PROBE)
    return plugins


@pytest.fixture
def faulty(plugins):  # noqa: F811
    """Models that break in every way."""
    shutil.copy(ROOT / "tests" / "faulty_models.py", plugins / "tests_faulty.py")


def batch(count, seconds=1.0):
    """Clips of equal length."""
    return [AudioClip(f"c{n}", np.zeros(int(seconds * 16_000), np.float32), 16_000) for n in range(count)]


def test_a_child_may_do_only_what_it_needs(make, probes, tmp_path):  # noqa: F811
    """It writes to its own folder only, reaches no port and no other process, and inherits no open file."""
    (tmp_path / "readable").write_text("anybody")
    secret = os.open(tmp_path / "readable", os.O_RDONLY)
    os.set_inheritable(secret, True)  # noqa: FBT003 - the library's signature
    with socket.create_server(("127.0.0.1", 0)) as server:
        told = f"{tmp_path}|{server.getsockname()[1]}|{os.getpid()}"
        worker = make(spec(adapter="probes:Probe", state=told), open_files=256, file_mb=2)
        seen = worker.ping()
    os.close(secret)
    assert (seen["inside"], seen["read"]) == ("done", "done")
    assert seen["large"] == "OSError"
    assert (tmp_path / "scratch" / "large").stat().st_size <= 2 * MB
    assert seen["files"] == [256, 256]
    assert seen["core"] == [0, 0]
    assert seen["oom"] >= 600
    assert not [name for name in seen["descriptors"] if name.endswith("readable")]
    assert {"open_files", "file_mb"} <= set(worker.kept)
    abi = landlock.version()
    refused = {"writes": ["outside", "shared"], "tcp": ["tcp"], "signals": ["signal"], "privileges": ["environment"]}
    assert ("privileges" in worker.kept) == bool(privileges.held() & ~privileges.KEPT)
    assert (abi > 0) == ("writes" in worker.kept)
    for name, deeds in refused.items():
        if name in worker.kept:
            assert [seen[deed] for deed in deeds] == ["PermissionError"] * len(deeds)
    if not abi:
        pytest.skip("this kernel has no Landlock: nothing confines a worker's writes")


def test_memory_beyond_the_limit_is_an_error_and_the_child_lives(make):  # noqa: F811
    """The allocation fails inside the child; less works in the same process."""
    worker = make(spec(memory_mb_per_second=100), memory_mb=300)
    with pytest.raises(ResourceError) as caught:
        worker.process(batch(10), Options())
    assert caught.value.code == "out-of-memory"
    answers, usage = worker.process(batch(1), Options())
    assert answers[0].text == "one two"
    assert usage.call_peak_mb > 100
    assert worker.process(batch(1, 0.01), Options())[1].call_peak_mb < 100 < usage.peak_rss_mb
    assert worker.restarts == 0


def test_a_child_that_grows_too_large_is_killed(make):  # noqa: F811
    """Watched from outside where no limit of its own stops it: a share of the machine's memory."""
    share = 400 / watchdog.total_mb()
    worker = make(spec(memory_mb_per_second=100, latency_seconds=30), memory_share=share)
    with pytest.raises(ResourceError, match="MB are allowed") as caught:
        worker.process(batch(8), Options(), deadline=60)
    assert caught.value.code == "out-of-memory"
    assert caught.value.metadata["used_mb"] > caught.value.metadata["allowed_mb"]
    assert eventually(lambda: not alive(caught.value.metadata["pid"]))


@pytest.mark.parametrize("limits", [{"memory_mb": 300}, {"memory_share": 300 / watchdog.total_mb()}])
def test_a_leak_costs_a_restart_and_no_answer(make, faulty, tmp_path, limits):  # noqa: F811
    """A child that keeps 40 MB of every call is ended when it is nearly full; no call fails."""
    worker = make(spec({"*": "one two", "deed": "leak"}, adapter="tests_faulty:Faulty"), **limits)
    manager = MemoryManager(Ledger(States(tmp_path / "home"), 3600), lambda _: 1e6)
    for _ in range(20):
        answers, _ = manager.process(worker, [clip()], Options(), deadline=60)
        assert answers[0].text == "one two"
        assert worker.resident_mb < 320
    assert 2 <= worker.restarts <= 8


@pytest.mark.parametrize(("kind", "memory_mb", "seconds"), [("Honest", 280, (1, 18)), ("Cache", 260, (1, 1))])
def test_a_process_that_keeps_what_it_needs_is_left_alone(make, probes, kind, memory_mb, seconds):  # noqa: F811
    """Memory that the C library keeps for later, and caches that the first calls fill, are no leak."""
    worker = make(spec(adapter=f"probes:{kind}"), memory_mb=memory_mb)
    for length in seconds * 9:
        worker.process(batch(1, length), Options(), deadline=60)
    assert worker.restarts == 0


def test_ending_a_process_that_is_full_at_once_is_given_up(make, probes):  # noqa: F811
    """A model whose processes are full after a few calls needs the memory: it is left alone until a call fails."""
    worker = make(spec(adapter="probes:Late"), memory_mb=300)
    for _ in range(30):
        worker.process(batch(1), Options(), deadline=60)
    assert worker.restarts == 2


def test_processor_time_of_a_call_is_limited(make):  # noqa: F811
    """An endless loop is ended by the kernel; the time of earlier calls does not count."""
    worker = make(spec({"*": "one two", "s": {"do": "spin"}}), cpu_seconds=1)
    with pytest.raises(ResourceError) as caught:
        worker.process([clip("s")], Options(), deadline=60)
    assert (caught.value.code, caught.value.metadata["signal"]) == ("cpu-time", "SIGXCPU")


def test_a_child_with_too_many_processes_ends_with_all_of_them(make, probes, tmp_path):  # noqa: F811
    """Also those that left its process group."""
    worker = make(spec(adapter="probes:Forks"), processes=4)
    with pytest.raises(ResourceError) as caught:
        worker.process([clip()], Options(), deadline=60)
    assert caught.value.code == "too-many-processes"
    forks = [int(pid) for pid in (tmp_path / "scratch" / "forks").read_text().split()]
    assert len(forks) >= 4
    assert eventually(lambda: not any(map(alive, forks)))


def test_a_start_that_failed_is_not_tried_again_at_once(make, tmp_path):  # noqa: F811
    """Whoever asks meanwhile gets the same error without another try; a call waits if it has the time."""
    script = {"*": "one two", "load": {"do": "raise", "code": "no-weights", "first": 1}}
    worker = make(spec(script, state=str(tmp_path / "count")), backoff_seconds=1.5)
    for waits in (False, True):
        with pytest.raises(ModelError) as caught:
            worker.start()
        assert caught.value.code == "no-weights"
        assert ("retry_after_seconds" in caught.value.metadata) is waits
    assert (tmp_path / "count").read_text().count("load") == 1
    assert worker.process([clip()], Options())[0][0].text == "one two"
    assert worker.restarts == 1


def test_a_running_call_can_be_cancelled(make):  # noqa: F811
    """From another thread; the next call works, and without a call there is nothing to cancel."""
    worker = make(spec({"*": "one two", "h": {"do": "hang"}}))
    assert not worker.cancel()
    worker.start()
    errors = []

    def hang():
        try:
            worker.process([clip("h")], Options(), deadline=60)
        except WorkerError as error:
            errors.append(error)

    thread = threading.Thread(target=hang)
    thread.start()
    assert eventually(worker.cancel)
    thread.join()
    assert [(error.code, error.retryable) for error in errors] == [("cancelled", False)]
    assert worker.process([clip()], Options())[0][0].text == "one two"


def test_too_many_calls_for_one_worker_are_refused(make):  # noqa: F811
    """With a typed error that says when to come again; those that wait are answered."""
    worker = make(spec(latency_seconds=0.6), queue=2)
    worker.start()
    texts, errors = [], []

    def ask():
        try:
            texts.append(worker.process([clip()], Options())[0][0].text)
        except UnavailableError as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == ["one two"] * 3
    assert [error.code for error in errors] == ["overloaded"] * 2
    assert all(error.metadata["retry_after_seconds"] > 0 for error in errors)


def test_limits_are_given_once_and_by_their_names(tmp_path):
    """In this process, without applying any: an unknown limit, a wrong one, a second time."""
    from grym.worker.limits import Limits
    from grym.worker.protocol import Message
    from grym.worker.session import Session

    for data, named in (({"speed": 1}, "speed"), ({"open_files": 1.5}, "open_files"), ({"writable": "x"}, "writable")):
        reply = Session().answer(Message({"id": "1", "operation": "limit", "data": data}))
        assert reply.header["error"]["details"]["code"] == "bad-request"
        assert named in reply.header["error"]["message"]
    session = Session()
    session.limits = Limits()
    reply = session.answer(Message({"id": "1", "operation": "limit", "data": {}}))
    assert reply.header["error"]["details"]["code"] == "already-limited"
    session.close()


def test_a_model_may_have_a_limit_of_its_own(tmp_path):
    """``[models.NAME] memory_mb`` counts instead of the common one; the child is not told about other settings."""
    own = ModelSpec(name="toy", adapter="fake", memory_mb=700)
    assert Worker(own, WorkerLimits(memory_mb=500), tmp_path).memory_mb == 700
    assert "memory_mb" not in json.dumps(own.model_dump(mode="json"))
    with pytest.raises(ValueError, match="at least"):
        WorkerLimits(memory_mb=5)
