"""A linear probe: multinomial logistic regression from feature vectors to labels.

Knows nothing about models, files or tables. Features are float ``shape = (clips,
dim)``; a clip with several labels counts in equal parts for each of them. Every
dimension is standardised by the training clips; the strength of the penalty is
chosen by cross-validation within them. Deterministic: the same features in any
order of clips give the same probe up to rounding.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from grym.compare.labels import most_probable
from grym.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Floats = npt.NDArray[np.float64]

PENALTIES: Final = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
"""Candidates for the strength of the penalty, the strongest first: of equally good ones it wins."""
FOLDS: Final = 5
_LEAST_CLIPS: Final = 2  # of each label: one to learn from, one to be held out
_CONSTANT: Final = 1e-9  # a dimension that varies less says nothing
_ITERATIONS: Final = 200
_SERIAL: Final = 200_000  # multiplications in one product that no library spreads over cores
_PATIENCE: Final = 2  # penalties in a row that may be worse than the best one


@dataclass(frozen=True, slots=True)
class Linear:
    """A fitted probe.

    Attributes:
        labels: the labels, sorted.
        mean: of each dimension, ``shape = (dim,)``.
        scale: standard deviation of each dimension; 1 where it does not vary.
        weights: ``shape = (dim, labels)``, for standardised features.
        bias: ``shape = (labels,)``.
        l2: strength of the penalty that was chosen.
        cv_accuracy: share of held-out training clips whose labels were all right.
        cv_folds: parts of the training clips that were held out in turn.
    """

    labels: tuple[str, ...]
    mean: Floats
    scale: Floats
    weights: Floats
    bias: Floats
    l2: float
    cv_accuracy: float
    cv_folds: int

    def probabilities(self, features: npt.ArrayLike) -> Floats:
        """Probability of each label, ``shape = (clips, labels)``; rows add up to 1."""
        given = np.atleast_2d(np.asarray(features, dtype=np.float64))
        return _softmax((given - self.mean) / self.scale @ self.weights + self.bias)


def fit_probe(features: npt.ArrayLike, labels: Sequence[Sequence[str]], order: Sequence[str]) -> Linear:
    """Fit a probe; the penalty with the smallest held-out log loss is taken.

    Args:
        features: float ``shape = (clips, dim)``.
        labels: right labels of each clip.
        order: a name of each clip, for example its content id: which part of the folds it belongs to follows from
            it, not from the order of the rows.

    Raises:
        ConfigError: ``probe-too-little``: fewer than two labels, or a label with fewer than two clips;
            ``probe-not-finite``: a feature is NaN or infinite.
    """
    given = np.asarray(features, dtype=np.float64)
    if not np.isfinite(given).all():
        msg = "A feature of a training clip is NaN or infinite; no probe can be fitted on it."
        raise ConfigError(msg, code="probe-not-finite", hint="See whether the model is broken.")
    # In the order of the names, so that sums of floats do not depend on the order of the rows.
    rank = np.argsort(np.asarray(order, dtype=np.str_), kind="stable")
    given, rows = given[rank], [tuple(sorted(labels[i])) for i in rank]
    names = _names(rows)
    targets = np.array([[(name in row) / len(row) for name in names] for row in rows], dtype=np.float64)
    folds = int(min(FOLDS, (targets > 0).sum(axis=0).min()))
    losses, rights = _held_out(given, targets, rows, names, folds)
    best = losses.index(min(losses))
    mean, scale = _standard(given)
    solved = _solve((given - mean) / scale, targets, PENALTIES[best], None)
    accuracy = rights[best] / len(rows)
    return Linear(names, mean, scale, solved[:-1], solved[-1], PENALTIES[best], accuracy, folds)


def _names(rows: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    counts = Counter(label for row in rows for label in row)
    names = tuple(sorted(counts))
    few = [name for name in names if counts[name] < _LEAST_CLIPS]
    if len(names) < 2 or few:  # noqa: PLR2004 - one label needs no probe
        what = f", and {few[0]!r} only once" if few else ""
        msg = f"The training clips have {len(names)} labels{what}: too little for a probe."
        hint = "Give at least two labels with two clips each; five or more are better."
        raise ConfigError(msg, code="probe-too-little", hint=hint)
    return names


def _held_out(
    features: Floats, targets: Floats, rows: Sequence[tuple[str, ...]], names: tuple[str, ...], folds: int
) -> tuple[list[float], list[int]]:
    """Log loss and right answers on held-out clips for each penalty; weaker ones are not tried once they get worse."""
    parts = list(_splits(features, targets, _folds(rows, folds), folds))
    losses: list[float] = []
    rights: list[int] = []
    starts: list[Floats | None] = [None] * folds
    for l2 in PENALTIES:
        loss, right = 0.0, 0
        for fold, (inside, wanted, held, out) in enumerate(parts):
            solved = starts[fold] = _solve(inside, wanted, l2, starts[fold])
            shares = _softmax(held @ solved[:-1] + solved[-1])
            loss -= float((targets[out] * np.log(np.maximum(shares, 1e-12))).sum())
            right += sum(_right(names, share, row) for share, row in zip(shares, _pick(rows, out), strict=True))
        losses.append(loss)
        rights.append(right)
        if len(losses) - losses.index(min(losses)) > _PATIENCE:
            break
    return losses, rights


def _splits(
    features: Floats, targets: Floats, part: npt.NDArray[np.int64], folds: int
) -> Iterator[tuple[Floats, Floats, Floats, npt.NDArray[np.bool_]]]:
    """For each part the others, standardised by themselves, their targets, the part, and which clips it holds."""
    for fold in range(folds):
        out = part == fold
        mean, scale = _standard(features[~out])
        yield (features[~out] - mean) / scale, targets[~out], (features[out] - mean) / scale, out


def _folds(rows: Sequence[tuple[str, ...]], folds: int) -> npt.NDArray[np.int64]:
    """Part of each clip: clips with the same labels are dealt out in turn, so that each part holds all of them."""
    dealt: dict[tuple[str, ...], int] = {}
    part = np.zeros(len(rows), dtype=np.int64)
    for i, row in enumerate(rows):
        # Another start for each combination, or else all rare ones would fall into the first part.
        turn = dealt.setdefault(row, len(dealt))
        part[i], dealt[row] = turn % folds, turn + 1
    return part


def _pick(rows: Sequence[tuple[str, ...]], chosen: npt.NDArray[np.bool_]) -> list[tuple[str, ...]]:
    return [row for row, take in zip(rows, chosen, strict=True) if take]


def _right(names: tuple[str, ...], shares: Floats, row: tuple[str, ...]) -> bool:
    return set(most_probable(dict(zip(names, shares.tolist(), strict=True)), len(row))) == set(row)


def _standard(features: Floats) -> tuple[Floats, Floats]:
    mean, scale = features.mean(axis=0), features.std(axis=0)
    return mean, np.where(scale > _CONSTANT * np.maximum(1.0, np.abs(mean)), scale, 1.0)


def _softmax(scores: Floats) -> Floats:
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Floats = shifted / shifted.sum(axis=1, keepdims=True)
    return shares


def _solve(features: Floats, targets: Floats, l2: float, start: Floats | None) -> Floats:
    """Minimum of mean cross entropy + l2 / 2 * sum(weights²): weights and, in the last row, the bias.

    Products are taken block by block, each too small for a numerical library to spread over cores: there it would
    wait for threads much longer than it computes, as soon as anything else runs on the machine.
    """
    from scipy.optimize import minimize

    clips, shape = features.shape[0], (features.shape[1] + 1, targets.shape[1])
    rows = max(1, _SERIAL // (shape[0] * shape[1]))
    blocks, wanted, real = (_blocks(array, rows) for array in (features, targets, np.ones((clips, 1))))

    def loss(flat: Floats) -> tuple[float, Floats]:
        solution = flat.reshape(shape)
        weights = solution[:-1]
        scores = blocks @ weights + solution[-1]
        scores -= scores.max(axis=2, keepdims=True)
        shares = np.exp(scores)
        total = shares.sum(axis=2, keepdims=True)
        value = float((wanted * (np.log(total) - scores)).sum()) / clips + 0.5 * l2 * float(np.square(weights).sum())
        apart = real * (shares / total - wanted) / clips
        slope = (blocks.transpose(0, 2, 1) @ apart).sum(axis=0) + l2 * weights
        return value, np.vstack([slope, apart.sum(axis=(0, 1))[None]]).ravel()

    begin = np.zeros(shape) if start is None else start
    found = minimize(loss, begin.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS, "ftol": 1e-8})
    solved: Floats = found.x.reshape(shape)
    return solved


def _blocks(array: Floats, rows: int) -> Floats:
    """``shape = (blocks, rows, columns)``, the last block filled with zeros."""
    count = -(-array.shape[0] // rows)
    filled = np.zeros((count * rows, array.shape[1]))
    filled[: array.shape[0]] = array
    return filled.reshape(count, rows, array.shape[1])
