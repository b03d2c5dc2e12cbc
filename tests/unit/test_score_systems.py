"""Systems on one dataset: counts, pairs, odd inputs, other metrics and the command."""

from __future__ import annotations

import io
import json
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from rich.console import Console
from scipy import stats
from typer.testing import CliRunner

from flows.__main__ import app
from flows.score import named_systems, show, write_json
from grym.compare.metrics import ACCURACY, LATENCY_P95, Metric, compare_metric
from grym.compare.scoreboard import Rules, Scoreboard, score_files
from grym.compare.scoreboard_json import as_json
from grym.compare.significance import quantile_difference
from grym.compare.systems import Options, compare_systems
from grym.errors import ConfigError, GrymError, ManifestError, QualityError, StorageError
from reports.scoreboard import render_scoreboard

if TYPE_CHECKING:
    from pathlib import Path

SPEAKERS = [f"s{i}" for i in range(8)]


def known(value: float | None) -> float:
    """A number that has to be there."""
    assert value is not None
    return value


def write(path: Path, texts: dict[str, str]) -> Path:
    """A trn file."""
    path.write_text("".join(f"{text} ({key})\n" for key, text in texts.items()), encoding="utf-8")
    return path


def dataset(folder: Path, *, wrong: dict[str, int]) -> tuple[Path, dict[str, Path]]:
    """Eight speakers, four utterances of five words each; ``wrong`` errors a speaker and a bit of noise."""
    rng = np.random.default_rng(3)
    said = {f"{speaker}-{i}": "a b c d e" for speaker in SPEAKERS for i in range(4)}
    systems = {}
    for name, errors in wrong.items():
        answers = {key: text.split() for key, text in said.items()}
        for speaker in SPEAKERS:
            spots = rng.permutation(20)[: errors + (int(rng.integers(0, 3)) if errors else 0)]
            for spot in spots.tolist():
                answers[f"{speaker}-{spot // 5}"][spot % 5] = "x"
        systems[name] = write(folder / f"{name}.trn", {key: " ".join(words) for key, words in answers.items()})
    return write(folder / "ref.trn", said), systems


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Scoreboard:
    """Three systems, two of them alike."""
    folder = tmp_path_factory.mktemp("three")
    references, systems = dataset(folder, wrong={"good": 1, "same": 1, "bad": 8})
    return score_files(references, systems, options=Options(replicates=2000))


def test_counts_by_hand(tmp_path: Path) -> None:
    """Two utterances of which every number can be counted with a finger."""
    references = write(tmp_path / "ref.trn", {"a-1": "the cat sat", "b-1": "{ uh / @ } on the mat"})
    answers = write(tmp_path / "x.trn", {"a-1": "the bat sat down", "b-1": "on mat"})
    system = as_json(score_files(references, {"x": answers}))["systems"][0]
    found = {name: system[name] for name in ("corr", "sub", "del", "ins", "words", "sentences_with_error")}
    assert found == {"corr": 4, "sub": 1, "del": 1, "ins": 1, "words": 6, "sentences_with_error": 2}
    assert system["wer"] == pytest.approx(3 / 6)
    assert system["cer"] == pytest.approx((1 + 4 + 3) / (9 + 8))


def test_pairs_of_three_systems(board: Scoreboard) -> None:
    """Each pair is tested once, Holm over three; the clear difference is found, the other is not."""
    pairs = {(pair.a, pair.b): pair for pair in board.pairs}
    assert list(pairs) == [("good", "same"), ("good", "bad"), ("same", "bad")]
    assert pairs["good", "bad"].verdict == "a better"
    assert known(pairs["good", "bad"].delta.delta) < 0
    assert known(pairs["good", "bad"].mapsswe.mean) < 0
    assert "good is better than bad" in pairs["good", "bad"].sentence
    assert "Holm's correction over 3 pairs" in pairs["good", "bad"].sentence
    assert pairs["good", "same"].verdict == "cannot tell"
    p = sorted(known(pair.delta.p_value) for pair in board.pairs)
    adjusted = sorted(known(pair.p_holm) for pair in board.pairs)
    assert adjusted == pytest.approx([3 * p[0], max(3 * p[0], 2 * p[1]), p[2]])


def test_units_of_sign_and_wilcoxon_are_speakers(board: Scoreboard) -> None:
    """Signs and ranks are of the rates of eight speakers, and equal scipy's."""
    pair = board.pairs[1]
    speaker = np.asarray(board.data.speakers)
    errors = [system.aligned.alignments.errors for system in (board.systems[0], board.systems[2])]
    d = [(errors[0][speaker == s].sum() - errors[1][speaker == s].sum()) / 20 for s in SPEAKERS]
    assert pair.sign.positive + pair.sign.negative + pair.sign.zero == 8
    assert pair.sign.p_value == pytest.approx(stats.binomtest(pair.sign.positive, 8).pvalue, rel=1e-12)
    exhaustive = stats.PermutationMethod(n_resamples=np.inf)
    assert pair.wilcoxon.p_value == pytest.approx(stats.wilcoxon(np.round(d, 9), method=exhaustive).pvalue, rel=1e-12)


def test_order_of_lines_does_not_matter(tmp_path: Path) -> None:
    """Shuffled files give the same numbers."""
    references, systems = dataset(tmp_path, wrong={"a": 1, "b": 3})
    before = as_json(score_files(references, systems))
    for path in (references, *systems.values()):
        lines = path.read_text(encoding="utf-8").splitlines()
        path.write_text("\n".join(reversed(lines)) + "\n", encoding="utf-8")
    assert as_json(score_files(references, systems)) == before


def test_missing_and_unknown_answers_are_counted_and_said(tmp_path: Path) -> None:
    """A missing answer is all deletions, an unknown one is not scored, and both are listed."""
    references = write(tmp_path / "ref.trn", {f"s{i}-1": "a b c" for i in range(8)})
    answers = {f"s{i}-1": "a b c" for i in range(1, 8)} | {"S0-1": "a b c"}
    board = score_files(references, {"x": write(tmp_path / "x.trn", answers)})
    system = as_json(board)["systems"][0]
    assert (system["missing"], system["unknown"], system["del"], system["words"]) == (["s0-1"], ["S0-1"], 3, 24)
    assert "s0-1" in board.notes[0]
    assert "--ignore-case" in board.notes[1]
    folded = score_files(references, {"x": tmp_path / "x.trn"}, Rules(ignore_case=True))
    assert (folded.systems[0].counts.errors, folded.notes) == (0, ())


def test_systems_with_other_ids_are_refused(tmp_path: Path) -> None:
    """Not one id in common is a mistake, not a system without answers."""
    references = write(tmp_path / "ref.trn", {"a-1": "x"})
    with pytest.raises(ConfigError, match="No answer of 'x' belongs"):
        score_files(references, {"x": write(tmp_path / "x.trn", {"b-1": "x"})})


def test_all_equal_and_all_wrong(tmp_path: Path) -> None:
    """A system against its copy has p = 1 everywhere; all right against all wrong is as clear as can be."""
    references, systems = dataset(tmp_path, wrong={"right": 0, "copy": 0})
    systems["wrong"] = write(tmp_path / "wrong.trn", {f"{s}-{i}": "x x x x x" for s in SPEAKERS for i in range(4)})
    equal, wrong, _ = as_json(score_files(references, systems))["pairs"]
    assert (equal["delta"], equal["p"], equal["t"], equal["mcnemar"]["p"], equal["wilcoxon"]["p"]) == (0, 1, None, 1, 1)
    assert (equal["mapsswe"]["segments"], equal["mapsswe"]["too_few"]) == (0, True)
    assert (equal["bootstrap"]["low"], equal["bootstrap"]["high"]) == (0, 0)
    assert equal["verdict"] == "cannot tell"
    assert (wrong["delta"], wrong["se"], wrong["p"], wrong["verdict"]) == (-1, 0, 2**-7, "a better")
    assert (wrong["mapsswe"]["segments"], wrong["mapsswe"]["z"], wrong["mcnemar"]["only_a_right"]) == (32, None, 32)


@pytest.mark.parametrize(("speakers", "clusters"), [(1, 1), (5, 5)])
def test_few_speakers_cannot_tell(tmp_path: Path, speakers: int, clusters: int) -> None:
    """Below six speakers there is no verdict, however clear the numbers look; one speaker has no interval."""
    said = {f"s{i % speakers}-{i}": "a b c" for i in range(40)}
    files = [
        write(tmp_path / f"{n}.trn", dict.fromkeys(said, t))
        for n, t in (("r", "a b c"), ("x", "a b c"), ("y", "q r s"))
    ]
    pair = as_json(score_files(files[0], {"x": files[1], "y": files[2]}))["pairs"][0]
    assert (pair["verdict"], pair["clusters"]) == ("cannot tell", clusters)
    assert "at least 6 are needed" in pair["sentence"]
    assert (pair["low"] is None) == (speakers == 1)


def test_without_speakers_utterances_are_the_units(tmp_path: Path) -> None:
    """Ids without a separator leave utterances, and a note says what that means."""
    references = write(tmp_path / "ref.trn", {f"u{i}": "a b" for i in range(9)})
    board = score_files(references, {"x": references, "y": write(tmp_path / "y.trn", {f"u{i}": "a" for i in range(9)})})
    assert board.data.cluster == "utterance"
    assert "independent" in board.notes[0]
    assert board.pairs[0].delta.clusters == 9
    partly = write(tmp_path / "part.trn", {"a-1": "x", "b": "y"})
    assert "1 of 2 utterances" in score_files(partly, {"x": partly}).notes[0]


def test_empty_references(tmp_path: Path) -> None:
    """Silence has no rate, insertions are still errors, and a file without an utterance is refused."""
    references = write(tmp_path / "ref.trn", {f"s{i}-1": "" for i in range(7)})
    answers = write(tmp_path / "x.trn", {f"s{i}-1": "noise" for i in range(7)})
    result = as_json(score_files(references, {"x": answers, "y": references}))
    assert (result["systems"][0]["wer"], result["systems"][0]["ins"], result["systems"][0]["cer"]) == (None, 7, None)
    pair = result["pairs"][0]
    assert (pair["delta"], pair["p"], pair["p_holm"], pair["verdict"]) == (None, None, None, "cannot tell")
    assert "no reference words" in pair["sentence"]
    comments = tmp_path / "c.trn"
    comments.write_text(";; nothing\n", encoding="utf-8")
    with pytest.raises(ManifestError, match="no utterance"):
        score_files(comments, {"x": answers})


def test_rules_and_alternations(tmp_path: Path) -> None:
    """Case and normaliser count when asked for; a broken alternation is fatal in a reference, plain in an answer."""
    references = write(tmp_path / "ref.trn", {"a-1": "The Cat!"})
    answers = write(tmp_path / "x.trn", {"a-1": "the cat"})
    errors = [
        score_files(references, {"x": answers}, rules).systems[0].counts.errors
        for rules in (Rules(), Rules(ignore_case=True), Rules(normalizer="basic"))
    ]
    assert errors == [2, 1, 0]
    broken = write(tmp_path / "broken.trn", {"a-1": "The { Cat!"})
    assert score_files(references, {"x": broken}).systems[0].counts.insertions == 1
    with pytest.raises(ManifestError, match=r"'a-1' in broken\.trn"):
        score_files(broken, {"x": answers})
    table = tmp_path / "x.csv"
    table.write_text("id,text\na-1,The { x / Cat! }\n", encoding="utf-8")
    assert score_files(references, {"x": table}).systems[0].counts.insertions == 4


def test_slices_are_corrected_over_slices(tmp_path: Path) -> None:
    """Each value of a column has its own difference; Benjamini-Hochberg over all of them."""
    said = {f"u{i}": f"a b c d e,s{i % 8},{'hall' if i < 40 else 'street'}" for i in range(80)}
    references = tmp_path / "ref.csv"
    references.write_text("id,text,speaker,room\n" + "".join(f"{k},{v}\n" for k, v in said.items()), encoding="utf-8")
    rng = np.random.default_rng(1)
    texts = {k: "a b c d x" if i < 40 and rng.random() < 0.7 else "a b c d e" for i, k in enumerate(said)}
    answers = write(tmp_path / "x.trn", texts)
    perfect = write(tmp_path / "y.trn", dict.fromkeys(said, "a b c d e"))
    board = score_files(references, {"x": answers, "y": perfect}, Rules(by=["room", "speaker"]))
    slices = {row["slice"]: row for row in as_json(board)["pairs"][0]["slices"]}
    assert len(slices) == 10
    assert slices["room=hall"]["delta"] > 0.05
    assert slices["room=hall"]["p"] < slices["room=hall"]["p_bh"] < 0.05
    assert (slices["room=street"]["delta"], slices["room=street"]["p_bh"]) == (0, 1)
    assert slices["speaker=s1"]["p_bh"] is None
    out = io.StringIO()
    show(Console(file=out, width=200), board)
    assert "room=hall" in out.getvalue()
    # Two speakers give the smallest p of all where they agree: it must not enter the correction.
    few = tmp_path / "few.csv"
    rooms = {k: "car" if i % 8 < 2 else "hall" for i, k in enumerate(said)}
    rows = "".join(f"{k},a b c d e,s{i % 8},{rooms[k]}\n" for i, k in enumerate(said))
    few.write_text("id,text,speaker,room\n" + rows, encoding="utf-8")
    wrong = write(tmp_path / "z.trn", {k: "x x x d e" if rooms[k] == "car" else texts[k] for k in said})
    board = score_files(few, {"x": wrong, "y": perfect}, Rules(by=["room"]))
    car, hall = as_json(board)["pairs"][0]["slices"]
    assert (car["clusters"], car["too_few"], car["p"], car["p_bh"]) == (2, True, None, None)
    assert (hall["clusters"], hall["too_few"], hall["p_bh"]) == (6, False, hall["p"])
    out = io.StringIO()
    show(Console(file=out, width=200), board)
    assert next(line for line in out.getvalue().splitlines() if "room=car" in line).count("too few") == 1
    render_scoreboard(board, tmp_path / "page.html")
    assert "too few" in (tmp_path / "page.html").read_text(encoding="utf-8").split("room=car")[1].split("</tr>")[0]
    with pytest.raises(ConfigError, match="no values in a column 'floor'"):
        score_files(references, {"x": answers}, Rules(by=["floor"]))


def test_the_command_prints_and_writes(tmp_path: Path) -> None:
    """One command: tables, a sentence for each pair, and JSON with the same numbers."""
    references, systems = dataset(tmp_path, wrong={"good": 1, "bad": 8})
    named = [item for name, path in systems.items() for item in ("--system", f"{name}={path}")]
    target = tmp_path / "scores.json"
    done = CliRunner().invoke(app, ["score", "--references", str(references), *named, "--json", str(target)])
    assert done.exit_code == 0, done.output
    assert "good is better than bad" in done.output.replace("\n", " ")
    result = json.loads(target.read_text(encoding="utf-8"))
    assert result["schema"] == "grym-score-1"
    assert [system["name"] for system in result["systems"]] == ["good", "bad"]
    wanted = {"delta", "se", "t", "p", "p_holm", "bootstrap", "mapsswe", "mcnemar", "sign", "wilcoxon", "sentence"}
    assert wanted <= result["pairs"][0].keys()
    piped = CliRunner().invoke(app, ["score", "--references", str(references), *named, "--json", "-"])
    assert json.loads(piped.output) == result


def test_the_command_refuses_nonsense(tmp_path: Path, board: Scoreboard) -> None:
    """Systems without name or file, names twice, options out of range, a folder that does not exist."""
    for given in (["a"], ["=x"], ["a="], ["a=x", "a=y"]):
        with pytest.raises(ConfigError):
            named_systems(given)
    references, systems = dataset(tmp_path, wrong={"a": 1})
    for options in (
        Options(margin=-1),
        Options(margin=math.nan),
        Options(margin=math.inf),
        Options(replicates=0),
        Options(confidence=95),
    ):
        with pytest.raises(GrymError):
            score_files(references, {**systems, "b": references}, options=options)
    with pytest.raises(ConfigError, match="same name"):
        compare_systems(board.data, [board.systems[0], board.systems[0]])
    with pytest.raises(ConfigError, match="Unknown normaliser") as unknown:
        score_files(references, systems, Rules(normalizer="none "))
    assert "grym.toml" not in str(unknown.value)
    with pytest.raises(ManifestError, match=r"^\. cannot be read: is a directory"):
        score_files(type(tmp_path)(), systems)
    write_json(board, str(tmp_path / "made" / "x.json"))  # a folder is made, as for a page
    assert json.loads((tmp_path / "made" / "x.json").read_text(encoding="utf-8"))["schema"] == "grym-score-1"
    with pytest.raises(StorageError, match="cannot be written"):
        write_json(board, str(references / "x.json"))


def values(rng: np.random.Generator, clips: int = 60) -> dict[str, np.ndarray]:
    """Labels right or wrong of two systems."""
    return {"a": (rng.random(clips) < 0.9).astype(float), "b": (rng.random(clips) < 0.4).astype(float)}


def test_label_accuracy() -> None:
    """Means with a clustered interval, exact McNemar for right and wrong; more is better."""
    found = compare_metric(values(np.random.default_rng(1)), np.repeat(np.arange(20), 3), ACCURACY)[0]
    assert (found.verdict, found.clips, found.left_out) == ("a better", 60, 0)
    assert found.mcnemar is not None
    assert found.mcnemar.only_a_right > found.mcnemar.only_b_right
    assert known(found.difference.ci_high) < 0
    assert "a is better than b" in found.sentence


def test_latency_quantiles() -> None:
    """Quantiles by the cluster bootstrap of the main job; less is better; Holm over the three pairs."""
    rng = np.random.default_rng(2)
    ms = {"slow": rng.gamma(9, 20, 90), "fast": rng.gamma(9, 5, 90), "fast2": rng.gamma(9, 5, 90)}
    clusters = np.repeat(np.arange(30), 3)
    pairs = compare_metric(ms, clusters, LATENCY_P95)
    assert [pair.verdict for pair in pairs] == ["b better", "b better", "cannot tell"]
    house = quantile_difference(ms["slow"], ms["fast"], 0.95, clusters, 0.95, np.random.default_rng(7), 2000)
    assert pairs[0].difference == house
    assert pairs[0].mcnemar is None
    assert "ms against" in pairs[0].sentence
    assert "over 3 pairs" in pairs[0].sentence


def test_metrics_that_were_not_measured() -> None:
    """NaN leaves a clip out and is said; more than 5 % of them, or fewer than six clusters, cannot tell."""
    given = values(np.random.default_rng(3))
    given["b"][:3] = math.nan
    few = compare_metric(given, np.arange(60), ACCURACY)[0]
    assert (few.clips, few.left_out, few.verdict) == (57, 3, "a better")
    assert "3 of 60 clips without a value" in few.sentence
    given["a"][3:6] = math.nan
    many = compare_metric(given, np.arange(60), ACCURACY)[0]
    assert many.verdict == "cannot tell"
    assert "6 of 60 clips without a value, more than the 5 % up to which a verdict is given" in many.sentence
    assert "more than" not in few.sentence
    five = compare_metric(values(np.random.default_rng(3)), np.arange(60) % 5, ACCURACY)[0]
    assert five.verdict == "cannot tell"
    assert "at least 6" in five.sentence
    nothing = compare_metric({"a": [math.nan], "b": [1.0]}, [0], ACCURACY)[0]
    assert (nothing.difference.difference, nothing.verdict) == (None, "cannot tell")
    assert "no clip" in nothing.sentence
    with pytest.raises(QualityError, match="infinite"):
        compare_metric({"a": [math.inf], "b": [1.0]}, [0], ACCURACY)
    with pytest.raises(ConfigError, match="shape"):
        compare_metric({"a": [1.0, 2.0], "b": [1.0]}, [0], ACCURACY)
    with pytest.raises(ConfigError, match="quantile"):
        compare_metric({"a": [1.0], "b": [1.0]}, [0], Metric("x", quantile=95))


def test_equal_metrics_promise_no_more_than_their_size() -> None:
    """Without any difference the claim of equivalence rests on the rule of three, at the size of the values."""
    same = {"a": np.full(1000, 500.0), "b": np.full(1000, 500.0)}
    metric = Metric("latency", "ms", lower_is_better=True, margin=1.0)
    assert compare_metric(same, np.arange(1000), metric)[0].verdict == "cannot tell"
    wide = Metric("latency", "ms", lower_is_better=True, margin=2.0)
    found = compare_metric(same, np.arange(1000), wide)[0]
    assert found.verdict == "equivalent"
    assert "inside a margin of 2 ms" in found.sentence
