"""A scoreboard as JSON values; docs/score.md describes every field.

Knows nothing about files. Every difference is a - b; a number that is not
defined is ``None``, never NaN.
"""

from __future__ import annotations

from dataclasses import asdict
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

from grym.compare.evidence import as_json as evidence_json
from grym.compare.evidence import noise_json
from grym.compare.score_metrics import metric_json

if TYPE_CHECKING:
    from grym.compare.scoreboard import Scoreboard
    from grym.compare.systems import Pair, SliceDelta, System

SCHEMA: Final = "grym-score-1"


def as_json(board: Scoreboard) -> dict[str, Any]:
    """The scoreboard as one object."""
    return {
        "schema": SCHEMA,
        "references": board.references,
        "normalizer": board.normalizer.label,
        "ignore_case": board.rules.ignore_case,
        "cluster": board.data.cluster,
        "clusters": len(set(board.data.clusters.tolist())),
        "sentences": len(board.data.ids),
        "options": asdict(board.options),
        "systems": [_system_json(system) for system in board.systems],
        "pairs": [
            _pair_json(pair, board) | (evidence_json(behind) if behind else {})
            for pair, behind in zip_longest(board.pairs, board.evidence)
        ],
        "metrics": [metric_json(asked, pair) for asked, pair in board.metrics],
        "noise": {name: noise_json(found) for name, found in board.noise.items()},
        "notes": list(board.notes),
    }


def _system_json(system: System) -> dict[str, Any]:
    counts = system.counts
    return {
        "name": system.name,
        "corr": counts.hits,
        "sub": counts.substitutions,
        "del": counts.deletions,
        "ins": counts.insertions,
        "errors": counts.errors,
        "words": counts.reference_words,
        "sentences": system.sentences,
        "sentences_with_error": system.sentences_with_error,
        "wer": counts.wer,
        "wer_low": system.low,
        "wer_high": system.high,
        "cer": counts.cer,
        "characters": counts.reference_characters,
        "character_errors": counts.character_errors,
        "missing": list(system.missing),
        "unknown": list(system.unknown),
    }


def _pair_json(pair: Pair, board: Scoreboard) -> dict[str, Any]:
    delta, segments = pair.delta, pair.mapsswe
    return {
        "a": pair.a,
        "b": pair.b,
        "wer_a": delta.a,
        "wer_b": delta.b,
        "delta": delta.delta,
        "se": delta.se,
        "t": delta.t,
        "df": delta.df,
        "p": delta.p_value,
        "p_holm": pair.p_holm,
        "low": delta.low,
        "high": delta.high,
        "cluster": board.data.cluster,
        "clusters": delta.clusters,
        "bootstrap": asdict(pair.bootstrap),
        "mapsswe": {
            "segments": segments.segments,
            "errors_a": segments.errors_a,
            "errors_b": segments.errors_b,
            "mean": segments.mean,
            "sd": segments.sd,
            "z": segments.z,
            "p": segments.p_value,
            "t_p": segments.t_p_value,
            "t_p_holm": pair.mapsswe_holm,
            "too_few": segments.too_few,
        },
        "mcnemar": _renamed(asdict(pair.mcnemar)),
        "sign": {"unit": board.data.cluster, **_renamed(asdict(pair.sign))},
        "wilcoxon": {"unit": board.data.cluster, **_renamed(asdict(pair.wilcoxon))},
        "equivalence": {"margin": board.options.margin, "p": pair.equivalence_p},
        "slices": [_slice_json(found) for found in pair.slices],
        "verdict": pair.verdict,
        "sentence": pair.sentence,
    }


def _slice_json(found: SliceDelta) -> dict[str, Any]:
    delta = found.delta
    return {
        "slice": found.slice,
        "wer_a": delta.a,
        "wer_b": delta.b,
        "delta": delta.delta,
        "se": delta.se,
        "t": delta.t,
        "p": delta.p_value,
        "p_bh": found.p_adjusted,
        "low": delta.low,
        "high": delta.high,
        "clusters": delta.clusters,
        "too_few": found.too_few,
    }


def _renamed(values: dict[str, Any]) -> dict[str, Any]:
    return {"p" if name == "p_value" else name: value for name, value in values.items()}
