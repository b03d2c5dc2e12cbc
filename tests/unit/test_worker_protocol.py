"""Framing, codec, redaction and the session of a worker, without a process."""

import json
import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from grym.errors import AudioError, ConfigError, ErrorRecord, GrymError, ModelError, ResourceError, WorkerError
from grym.models import Answer, AudioClip, Card, Options, Segment
from grym.worker import codec, outcome, protocol
from grym.worker.child import serve
from grym.worker.protocol import Exit, Message, encode, read_message
from grym.worker.redact import redact
from grym.worker.session import Session, typed

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FRAMES = st.lists(npst.arrays(np.float32, st.integers(0, 20)), max_size=4)
CLIP = AudioClip("a", np.float32([0.0, 0.5, -0.5, 0.25]), 8)


def reader(data, step=1_000_000):
    """A stream that gives at most ``step`` bytes at once."""
    rest = memoryview(bytes(data))

    def readinto(view):
        nonlocal rest
        got = min(len(view), len(rest), step)
        view[:got] = rest[:got]
        rest = rest[got:]
        return got

    return readinto


def wire(header, frames=()):
    """A message as bytes."""
    return b"".join(encode(Message(header, tuple(frames))))


def raw(header: bytes, rest: bytes = b"") -> bytes:
    """Any header with a right length."""
    return struct.pack(">I", len(header)) + header + rest


CODES = {"truncated", "oversized", "garbled-header", "garbled-frame"}


def outcome_of(data):
    """The message that the bytes hold, or the code of the error."""
    try:
        return read_message(reader(data)), ""
    except WorkerError as error:
        return None, error.code


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text().filter(lambda key: key != "frames"), JSON, max_size=4), FRAMES, st.integers(1, 9))
def test_every_message_survives_the_wire(header, frames, step):
    """What is written is read again, however few bytes arrive at once, and nothing is left over."""
    readinto = reader(wire(header, frames), step)
    message = read_message(readinto)
    assert message.header == header
    assert [f.tobytes() for f in message.frames] == [f.tobytes() for f in frames]
    assert read_message(readinto) is None


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_truncation_is_found(data):
    """A message cut anywhere is an error, never a shorter message."""
    whole = wire({"id": "x", "n": [1, 2]}, [np.arange(5, dtype=np.float32)])
    cut = data.draw(st.integers(1, len(whole) - 1))
    with pytest.raises(WorkerError) as caught:
        read_message(reader(whole[:cut]))
    assert caught.value.code == "truncated"


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60))
def test_garbage_is_an_error_or_a_message_never_anything_else(noise):
    """Random bytes end in a WorkerError with a known code, or happen to be a message."""
    message, code = outcome_of(noise)
    assert code in CODES or (not code and (message is None or isinstance(message.header, dict)))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40))
def test_garbage_behind_a_right_length_is_an_error_or_an_object(noise):
    """The header itself is random: JSON object or WorkerError."""
    message, code = outcome_of(raw(noise))
    assert code in CODES or isinstance(message.header, dict)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (raw(b"[]"), "garbled-header"),
        (raw(b"\xff"), "garbled-header"),
        (raw(b'{"a": NaN}'), "garbled-header"),
        (raw(b'{"a": -Infinity}'), "garbled-header"),
        (raw(b"[" * 100_000), "garbled-header"),
        (raw(b'{"a": 1' + b"0" * 5000 + b"}"), "garbled-header"),
        (raw('{"a": 1}'.encode("utf-16")), "garbled-header"),
        (raw(b'{"frames": 3}'), "garbled-frame"),
        (raw(b'{"frames": [true]}'), "garbled-frame"),
        (raw(b'{"frames": [-4]}'), "garbled-frame"),
        (raw(b'{"frames": [3]}', b"abc"), "garbled-frame"),
        (raw(b'{"frames": [4]}', b"abc"), "truncated"),
        (raw(b'{"frames": [1073741828]}'), "oversized"),
        (raw(b'{"frames": [1073741824, 1073741824, 4]}'), "oversized"),
        (raw(json.dumps({"frames": [0] * 4097}).encode()), "oversized"),
        (struct.pack(">I", protocol.MAX_HEADER_BYTES + 1), "oversized"),
    ],
)
def test_each_way_to_be_wrong_has_its_code(data, code):
    """Codes of broken messages; a large claim is refused before anything of that size is made."""
    with pytest.raises(WorkerError) as caught:
        read_message(reader(data))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("header", "frames", "code"),
    [
        ({"a": math.nan}, (), "garbled-header"),
        ({"a": object()}, (), "garbled-header"),
        ({"a": "x" * (protocol.MAX_HEADER_BYTES + 1)}, (), "oversized"),
        ({}, (np.zeros(0, np.float32),) * 4097, "oversized"),
        ({}, (np.array(["word"]),), "garbled-frame"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_sending(header, frames, code):
    """The writer keeps the same bounds as the reader."""
    with pytest.raises(WorkerError) as caught:
        encode(Message(header, frames))
    assert caught.value.code == code


def test_numpy_scalars_are_sent_as_numbers():
    """Adapters need not convert numpy's numbers."""
    header = {"f": np.float32(0.5), "i": np.int64(3), "b": np.bool_(True)}  # noqa: FBT003
    assert read_message(reader(wire(header))).header == {"f": 0.5, "i": 3, "b": True}


def test_frames_are_little_endian_whatever_the_array_was():
    """Big-endian, strided and two-dimensional arrays arrive as plain float32."""
    odd = np.arange(12, dtype=">f8").reshape(3, 4)[:, ::2]
    assert read_message(reader(wire({}, [odd]))).frames[0].tolist() == [0, 2, 4, 6, 8, 10]
    assert wire({}, [np.float32([0.5])]).endswith(bytes.fromhex("0000003f"))


def test_clips_survive_as_frames():
    """Packed clips are unpacked to the same ids, rates and samples."""
    items, frames = codec.pack_clips([CLIP, AudioClip("b", np.zeros(0, np.float32), 16_000)])
    again = codec.unpack_clips(items, frames)
    assert [(c.id, c.rate, c.samples.tolist()) for c in again] == [("a", 8, [0, 0.5, -0.5, 0.25]), ("b", 16_000, [])]


@pytest.mark.parametrize(
    ("item", "match"),
    [
        ("a", "not an object"),
        ({"id": 3, "rate": 8, "values": []}, "an id"),
        ({"id": "a", "values": []}, "no rate"),
        ({"id": "a", "rate": True, "values": []}, "no rate"),
        ({"id": "a", "rate": 8}, "exactly one of frame, values, base64"),
        ({"id": "a", "rate": 8, "frame": 0, "values": []}, "exactly one"),
        ({"id": "a", "rate": 8, "frame": 1}, "wrong 'frame'"),
        ({"id": "a", "rate": 8, "frame": -1}, "wrong 'frame'"),
        ({"id": "a", "rate": 8, "frame": 0, "samples": 9}, "claims 9 samples and has 1"),
        ({"id": "a", "rate": 8, "values": ["1"]}, "unreadable 'values'"),
        ({"id": "a", "rate": 8, "values": [10**400]}, "unreadable 'values'"),
        ({"id": "a", "rate": 8, "base64": "AAA"}, "unreadable 'base64'"),
        ({"id": "a", "rate": 8, "base64": "AAAA"}, "unreadable 'base64'"),
        ({"id": "a", "rate": 8, "base64": 7}, "wrong 'base64'"),
    ],
)
def test_a_clip_that_is_not_one_is_a_bad_request(item, match):
    """The message says what is missing or wrong."""
    with pytest.raises(ConfigError, match=match) as caught:
        codec.unpack_clips([item], [np.zeros(1, np.float32)])
    assert caught.value.code == "bad-request"


def test_audio_that_is_not_a_list_or_not_finite_is_refused():
    """NaN and what overflows float32 are the clip's fault, and it is named."""
    with pytest.raises(ConfigError, match="not a list"):
        codec.unpack_clips({"id": "a"}, [])
    for frame in ([math.nan], [math.inf]):
        with pytest.raises(AudioError, match="'a' holds NaN"):
            codec.unpack_clips([{"id": "a", "rate": 8, "frame": 0}], [np.float32(frame)])
    with pytest.raises(AudioError):
        codec.unpack_clips([{"id": "a", "rate": 8, "values": [1e40]}], [])


def test_answers_survive_the_wire():
    """Every field of an answer arrives, feature vector and error included."""
    full = Answer("a", "x y", 0.5, (Segment(0.0, 0.5, "x", 0.25),), 2, 0.1, "fp32/cpu", "m", "r", np.float32([1, 2]))
    failed = Answer("b", None, error=ErrorRecord("audio", "odd", "No.", retryable=True, metadata={"n": 1}))
    items, frames = codec.pack_answers([full, failed])
    message = read_message(reader(wire({"answers": items}, frames)))
    clips = [CLIP, AudioClip("b", CLIP.samples, 8)]
    first, second = codec.unpack_answers(message.header["answers"], message.frames, clips)
    assert first.features.tolist() == [1.0, 2.0]
    assert (first.text, first.segments, first.tokens, first.rung) == ("x y", full.segments, 2, "fp32/cpu")
    assert (second.text, second.error.code, second.error.metadata) == (None, "odd", {"n": 1})


def good(**changes):
    """A usable answer as JSON, with changes."""
    return {"clip_id": "a", "text": "x", "confidence": 0.5, **changes}


@pytest.mark.parametrize(
    "items",
    [
        None,
        [],
        [good(), good()],
        ["x"],
        [good(clip_id="b")],
        [good(text=None)],
        [good(text=3)],
        [good(error={"category": "audio", "code": "x", "message": "m"})],
        [good(confidence=1.01)],
        [good(confidence=-0.1)],
        [good(confidence="high")],
        [good(confidence=True)],
        [good(tokens=-1)],
        [good(tokens=10**400)],
        [good(seconds=None)],
        [good(features=0)],
        [good(features="x")],
        [good(segments=3)],
        [good(segments=[{"start": 1, "end": 0, "text": "x", "confidence": 1}])],
        [good(segments=[{"start": 0, "end": 1, "text": "x", "confidence": 2}])],
        [good(segments=[{"start": 0}])],
    ],
)
def test_garbled_answers_are_model_errors(items):
    """Wrong number, wrong id, wrong value: one code for all."""
    with pytest.raises(ModelError) as caught:
        codec.unpack_answers(items, (), [CLIP])
    assert caught.value.code == "garbled-answer"


def test_feature_vectors_must_be_finite_and_one_per_clip():
    """Of an answer and of a matrix."""
    nan = (np.float32([math.nan, 1.0]),)
    with pytest.raises(ModelError, match="NaN"):
        codec.unpack_answers([good(features=0)], nan, [CLIP])
    with pytest.raises(ModelError, match="NaN"):
        codec.unpack_matrix({"shape": [1, 2], "frame": 0}, nan, 1)
    right = (np.float32([1.0, 2.0]),)
    assert codec.unpack_matrix({"shape": [1, 2], "frame": 0}, right, 1).tolist() == [[1.0, 2.0]]
    wrong = [({"shape": [1, 2], "frame": 0}, 2), ({"shape": [2], "frame": 0}, 2), ({"shape": [3, 1], "frame": 0}, 3)]
    for result, rows in [*wrong, ({}, 1), ({"shape": [1, 2], "frame": 5}, 1)]:
        with pytest.raises(ModelError):
            codec.unpack_matrix(result, right, rows)


def test_measurements_and_cards_are_checked():
    """Not one per clip, not numbers, not a card: errors of the model."""
    assert codec.unpack_measures([{"peak": 1}], 1) == [{"peak": 1.0}]
    for items in (None, [], [3], [{"peak": "loud"}]):
        with pytest.raises(ModelError):
            codec.unpack_measures(items, 1)
    card = {"name": "m", "revision": "r", "adapter": "a", "tasks": ["transcribe"], "languages": ["en"]}
    assert codec.unpack_card(card) == Card("m", "r", "a", ("transcribe",), languages=("en",))
    for item in (None, {}, {**card, "colour": "red"}, {**card, "tasks": None}):
        with pytest.raises(ModelError):
            codec.unpack_card(item)


def test_errors_survive_the_wire_as_typed_errors():
    """Kind, code, hint, retryable and metadata arrive."""
    error = ResourceError("No.", code="out-of-memory", hint="Less.", metadata={"n": 1})
    packed = json.loads(json.dumps(codec.pack_error(error)))
    assert (packed["message"], packed["type"]) == ("No.", "ResourceError")
    again = codec.unpack_error(packed["details"])
    assert type(again) is ResourceError
    assert again.record() == error.record()
    for details in (None, "x", {}, {"category": "model"}, {**packed["details"], "code": 3}):
        with pytest.raises(WorkerError) as caught:
            codec.unpack_error(details)
        assert caught.value.code == "garbled-reply"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("No file '/home/ann/my models/tiny.bin'", "No file '…/tiny.bin'"),
        ("open /srv/a/b.json: denied", "open …/b.json: denied"),
        (r"at C:\Users\ann\x.bin", "at …/x.bin"),
        ("in ~/.cache/token", "in …/token"),
        ("in ~ann/private/x", "in …/x"),
        ("open file:///home/ann/models/x.bin", "open …/x.bin"),
        ("error:/home/ann/secret/x.bin", "error:…/x.bin"),
        (r"on \\srv\share\x", "on …/x"),
        (r"repr '\\\\srv\\share\\x'", "repr '…/x'"),
        (r"repr 'C:\\\\Users\\\\ann\\\\x'", "repr '…/x'"),
        ("s3://bucket/home/x and http://a.b/c", "s3://bucket/home/x and http://a.b/c"),
        ("ratio 3:4, either/or: one, at 12:30, about ~5/8", "ratio 3:4, either/or: one, at 12:30, about ~5/8"),
        ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI", "AWS_SECRET_ACCESS_KEY=…"),
        ("PRIVATE_KEY=abcdef0123, access-key: abc", "PRIVATE_KEY=…, access-key: …"),
        ("the key = value, a primary key: id", "the key = value, a primary key: id"),
        ("[[0.1 0.2 0.3 0.4]\n [0.5 0.6 0.7 0.8]] is wrong", "[[…]] is wrong"),
        ("shapes [1, 2, 3] and [4, 5, 6, 7, 8]", "shapes [1, 2, 3] and [4, 5, 6, 7, 8]"),
        ("and/or 3/4 of https://example.org/a/b", "and/or 3/4 of https://example.org/a/b"),
        ("https://user:secret@example.org/a", "https://example.org/a"),
        ("two\n  lines", "two lines"),
        ("Authorization: Bearer abc.def.ghi was refused", "Authorization: Bearer … was refused"),
        ("api_key='0123-4567' and token=t0p", "api_key='…' and token=…"),
        ("with hf_abcdefghijklmnop at hand", "with … at hand"),
        ("unexpected token: one of 32 tokens", "unexpected token: … of 32 tokens"),
        ("array([0.1, -0.2, .3, 4., 1e-3, 5, 6, 7], dtype=float32)", "array([…], dtype=float32)"),
        ("shape (1, 2, 3, 4)", "shape (1, 2, 3, 4)"),
        (r"b'\x00\x01\x02\x7f\x00' is wrong", "b'…' is wrong"),
        ("data " + "UklGRiQAAABXQVZF" * 6 + "==", "data …"),
        ("revision " + "0123456789abcdef" * 4, "revision " + "0123456789abcdef" * 4),
    ],
)
def test_redact_hides_folders_and_credentials(text, shown):
    """The last part of a path stays, because it helps; everything before it goes."""
    assert redact(text) == shown


def test_redact_cuts_long_words():
    """Beginning and end stay."""
    cut = redact("a" * 500 + "z", 100)
    assert len(cut) <= 100
    assert cut[0] == "a"
    assert cut[-1] == "z"


def test_any_exception_becomes_a_typed_error():
    """Memory is a resource error, a bug a model error; typed errors keep their kind but lose folders."""

    class OutOfMemoryError(RuntimeError):
        """As torch calls it."""

    class SpecialError(AudioError):
        """A kind that a plugin made, with its own signature."""

        def __init__(self):
            super().__init__("In /a/b/c.wav.", code="odd", metadata={"path": "/x/y", "n": 1, "bad": math.nan})

    memory = (MemoryError(), OutOfMemoryError("CUDA"), RuntimeError("CUDA out of memory. Tried to allocate"))
    for error in memory:
        assert (type(typed(error)), typed(error).code) == (ResourceError, "out-of-memory")
    bug = typed(KeyError("/etc/passwd"))
    assert (type(bug), bug.message) == (ModelError, "The model raised KeyError: '…/passwd'.")
    assert typed(ValueError()).message == "The model raised ValueError."
    own = typed(SpecialError())
    assert (type(own), own.message, own.code) == (AudioError, "In …/c.wav.", "odd")
    assert own.metadata == {"path": "…/y", "n": 1, "bad": "nan"}


def conversation(*requests):
    """Let ``serve`` answer requests; returns its exit code and the replies."""
    sent = bytearray()
    messages = [r if isinstance(r, Message) else Message(r) for r in requests]
    code = serve(reader(b"".join(wire(m.header, m.frames) for m in messages)), sent.extend)
    readinto, replies = reader(sent), []
    while (reply := read_message(readinto)) is not None:
        replies.append(reply)
    return code, replies


def ask(operation, **data):
    """A request header."""
    return {"id": "7", "operation": operation, "data": data}


def load(script=None, **options):
    """A request for a scripted model."""
    options["script"] = json.dumps(script or {})
    return ask("load", spec={"name": "f", "adapter": "fake", "options": options})


def code_of(reply):
    """Code of an error reply."""
    return reply.header["error"]["details"]["code"]


def test_a_whole_conversation_without_a_process():
    """Load, card, process, features, analyze, ping and shutdown, each with its usage."""
    audio, frames = codec.pack_clips([CLIP])
    code, replies = conversation(
        load({"*": "one"}),
        ask("card"),
        Message(ask("process_audio", audio=audio, options={"features": True}), frames),
        Message(ask("extract_features", audio=audio), frames),
        Message(ask("analyze", audio=audio, level="advanced"), frames),
        ask("ping"),
        ask("shutdown"),
    )
    assert code == Exit.SHUTDOWN
    assert [r.header["status"] for r in replies] == ["success"] * 7
    assert replies[2].header["result"]["answers"][0]["text"] == "one"
    assert replies[2].frames[0].shape == (8,)
    assert replies[3].header["result"]["shape"] == [1, 8]
    assert replies[5].header["result"]["status"] == "ok"
    usage = outcome.usage(replies[2], 9.0)
    assert usage.wall_seconds == 9.0
    assert 0 <= usage.compute_seconds <= replies[2].header["usage"]["seconds"]
    assert 10 < usage.call_peak_mb <= usage.peak_rss_mb


def test_no_clips_are_no_work():
    """An empty batch gives empty results and does not bother the model."""
    bug = {"do": "bug"}
    _, replies = conversation(
        load({"features": bug, "analyze": bug}),
        ask("process_audio", audio=[]),
        ask("extract_features", audio=[]),
        ask("analyze", audio=[]),
    )
    assert [r.header["status"] for r in replies] == ["success"] * 4
    assert replies[2].header["result"]["shape"] == [0, 8]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"operation": "ping"}, "bad-request"),
        ({"id": "1", "operation": "ping", "data": []}, "bad-request"),
        (ask("dance"), "unknown-operation"),
        (ask([]), "unknown-operation"),
        (ask("process_audio", audio=[], options=[]), "bad-request"),
        (ask("process_audio", audio=[], options={"speed": 1}), "unknown-option"),
        (ask("analyze", audio=[], level="deep"), "wrong-option"),
        (ask("analyze", audio=[], level=[]), "wrong-option"),
        (load(), "already-loaded"),
    ],
)
def test_a_wrong_request_is_answered_and_the_worker_goes_on(request_, code):
    """The next request is served."""
    end, replies = conversation(load(), request_, ask("ping"))
    assert code_of(replies[1]) == code
    assert replies[2].header["status"] == "success"
    assert end == Exit.INPUT_CLOSED


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (load({"load": {"do": "raise", "code": "no-weights"}}), "no-weights"),
        (load({"load": {"do": "memory"}}), "out-of-memory"),
        (load(speed=1), "unknown-option"),
        (ask("load"), "bad-spec"),
        (ask("load", spec={"name": "x"}), "bad-spec"),
        (ask("load", plugins="x"), "bad-request"),
        (ask("load", plugins=["/no/such/folder"]), "no-plugin-folder"),
    ],
)
def test_a_failed_load_is_answered_and_ends_the_worker(request_, code):
    """Exit code LOAD_FAILED; nothing after it is served."""
    end, replies = conversation(request_, ask("ping"))
    assert end == Exit.LOAD_FAILED
    assert [code_of(r) for r in replies] == [code]


def test_operations_before_load_are_refused():
    """Except shutdown."""
    end, replies = conversation(ask("ping"), ask("process_audio", audio=[]), ask("shutdown"))
    assert [code_of(r) for r in replies[:2]] == ["not-loaded"] * 2
    assert end == Exit.SHUTDOWN


def test_answers_that_json_cannot_hold_are_the_models_fault():
    """NaN and junk become garbled-answer, and the worker goes on."""
    audio, frames = codec.pack_clips([CLIP])
    process = Message(ask("process_audio", audio=audio), frames)
    for deed in ("nan", "junk"):
        _, replies = conversation(load({"*": {"do": deed}}), process, ask("ping"))
        assert code_of(replies[1]) == "garbled-answer"
        assert replies[1].header["usage"]["compute_seconds"] >= 0
        assert replies[2].header["status"] == "success"


def test_a_model_that_cannot_be_closed_does_not_matter():
    """What close raises is logged; the exit code stays."""
    end, _ = conversation(load({"close": {"do": "bug"}}), ask("shutdown"))
    assert end == Exit.SHUTDOWN


def test_garbage_and_a_closed_output_end_the_worker():
    """Each with its own code; garbage is answered with an empty id."""
    sent = bytearray()
    assert serve(reader(b"GET / HTTP/1.1"), sent.extend) == Exit.BAD_PROTOCOL
    assert read_message(reader(sent)).header["id"] == ""

    def closed(_view):
        raise BrokenPipeError

    assert serve(reader(wire(ask("ping"))), closed) == Exit.OUTPUT_CLOSED


def test_replies_are_checked_by_the_client():
    """Wrong id, unknown status and missing usage are worker errors."""
    ok = {"id": "1", "status": "success"}
    assert outcome.read_status(Message(ok), "1") is None
    wrong = [(ok, "2", "wrong-id"), ({"id": "1", "status": "?"}, "1", "garbled-reply")]
    for header, identity, code in [*wrong, ({"id": "1", "status": "error", "error": 3}, "1", "garbled-reply")]:
        with pytest.raises(WorkerError) as caught:
            outcome.read_status(Message(header), identity)
        assert caught.value.code == code
    for usage in (None, {}, {"compute_seconds": -1}, 3):
        with pytest.raises(WorkerError):
            outcome.usage(Message({**ok, "usage": usage}), 1.0)
    assert outcome.result(Message(ok)) == {}


def test_a_crash_names_its_cause():
    """A signal by its name, where it has one; an exit by its code."""
    assert "SIGSEGV" in outcome.crashed("m", protocol.Operation.PING, -11, {}).message
    assert "signal 40" in outcome.crashed("m", protocol.Operation.PING, -40, {}).message
    exited = outcome.crashed("m", protocol.Operation.PING, 3, {"pid": 1})
    assert (exited.metadata, exited.retryable) == ({"pid": 1, "exit_code": 3}, True)


def test_a_session_survives_what_an_adapter_does_wrong():
    """An adapter that answers None instead of a list is told so."""

    class Odd:
        card = Card("m", "r", "odd", ())

        def process(self, _batch, _options):
            return None

    audio, frames = codec.pack_clips([CLIP])
    reply = Session(Odd()).answer(Message(ask("process_audio", audio=audio), frames))
    assert code_of(reply) == "garbled-answer"
    assert isinstance(codec.unpack_error(reply.header["error"]["details"]), GrymError)
    assert codec.unpack_options({"quality": "low"}) == Options(quality="low")


def test_half_a_character_is_written_as_an_escape():
    """In answers and errors; nothing that is stored can hold it."""
    answer = codec.unpack_answers([good(text="a\ud800", rung="\udc00", scores={"\ud800": 0.5})], (), [CLIP])[0]
    assert (answer.text, answer.rung, list(answer.scores)) == ("a\\ud800", "\\udc00", ["\\ud800"])
    error = codec.unpack_error(codec.pack_error(ModelError("\ud800", metadata={"x": "\ud800"}))["details"])
    assert (error.message, error.metadata) == ("\\ud800", {"x": "\\ud800"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"rung": None}, {"revision": None}, {"parameters": "many"}, {"parameters": True},
        {"parameters": -1}, {"sample_rate": None}, {"feature_dim": "8"}, {"min_seconds": "x"}, {"tasks": "abc"},
        {"tasks": [1]}, {"languages": "en"}, {"details": 5}, {"licence": "\ud800"},
    ],
)  # fmt: skip
def test_a_card_with_a_wrong_field_is_garbled(wrong):
    """What follows from it (rungs, revisions, estimates) would fail far from its cause."""
    card = {"name": "m", "revision": "r", "adapter": "a", "tasks": ["transcribe"], "details": {}}
    codec.unpack_card(card)
    with pytest.raises(ModelError) as caught:
        codec.unpack_card({**card, **wrong})
    assert caught.value.code == "garbled-answer"


@pytest.mark.parametrize("place", [-1, True, "0", 1])
def test_a_frame_is_named_by_its_place(place):
    """Not from the end, as a list would have it."""
    frames = (np.float32([1.0, 2.0]),)
    with pytest.raises(ModelError):
        codec.unpack_answers([good(features=place)], frames, [CLIP])
    with pytest.raises(ModelError):
        codec.unpack_matrix({"shape": [1, 2], "frame": place}, frames, 1)
