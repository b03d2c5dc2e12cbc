"""Products, front ends and streams on CPU: every kind against plain float32 arithmetic."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from torch.nn import functional

from grym.models._calibrate import divergence, preferred, probe
from grym.models._dense import Dense, Window, _Int8, _Int8Plain, _Packed, _Plain, dense
from grym.models._streams import Streams

KINDS = ("fp32", "bf16", "int8")
TOLERANCE = {"fp32": 1e-5, "bf16": 0.03, "int8": 0.06}


def _matrix() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weight, bias and states whose rows differ in size by orders of magnitude."""
    make = torch.Generator().manual_seed(3)
    weight, bias = torch.randn(24, 32, generator=make) / 6, torch.randn(24, generator=make)
    states = torch.randn(40, 32, generator=make) * torch.logspace(-3, 0.5, 40)[:, None]
    return weight, bias, states


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_product_is_the_plain_one_up_to_its_precision(kind: str, *, gelu: bool) -> None:
    """With and without bias and GELU."""
    weight, bias, states = _matrix()
    for shift in (bias, None):
        expected = functional.linear(states, weight, shift)
        expected = functional.gelu(expected) if gelu else expected
        got = dense(weight, shift, kind, torch.float32, gelu=gelu)(states)  # type: ignore[arg-type]
        torch.testing.assert_close(got, expected, atol=TOLERANCE[kind], rtol=TOLERANCE[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_is_a_convolution(kind: str) -> None:
    """Neighbouring rows multiplied together are a convolution over time."""
    make = torch.Generator().manual_seed(4)
    weight, states = torch.randn(8, 16, 3, generator=make) / 7, torch.randn(21, 16, generator=make)
    expected = functional.conv1d(states.T[None], weight, stride=2)[0].T
    product = dense(weight.permute(0, 2, 1).flatten(1), None, kind, torch.float32)  # type: ignore[arg-type]
    got = product(states, Window(3, 2))
    torch.testing.assert_close(got, expected, atol=TOLERANCE[kind], rtol=TOLERANCE[kind])


def test_machines_without_onednn_get_the_same_numbers() -> None:
    """The fallbacks agree with the fast products, also through a window."""
    weight, bias, states = _matrix()
    whole = torch.float32
    expected = functional.gelu(functional.linear(states, weight, bias))
    made: tuple[Dense, ...] = (
        _Plain(weight, bias, whole, whole, gelu=True),
        _Packed(weight, bias, whole, whole, gelu=True),
        _Int8Plain(weight, bias, whole, gelu=True),
    )
    for product in made:
        torch.testing.assert_close(product(states), expected, atol=0.2, rtol=0.05)
    wide = torch.cat([weight, weight], dim=1)
    pairs = functional.linear(torch.cat([states[:-1], states[1:]], dim=1), wide, bias)
    for window in (_Plain(wide, bias, whole, whole, gelu=False), _Int8Plain(wide, bias, whole, gelu=False)):
        torch.testing.assert_close(window(states, Window(2, 1)), pairs, atol=0.3, rtol=0.05)


def test_quiet_rows_survive_loud_ones_in_int8() -> None:
    """A row's error depends on that row alone: it is the same beside one that is a thousand times louder."""
    weight, _, states = _matrix()
    product = _Int8(weight, None, torch.float32, gelu=False)
    torch.testing.assert_close(product(states)[:1], product(states[:1]), atol=0, rtol=0)


def test_streams_keep_the_order_and_raise_what_went_wrong() -> None:
    """Results come in the order of the items, each from one thread of arithmetic; an error is not lost."""

    def slow(number: int) -> tuple[int, int]:
        time.sleep(0.02 / number)  # the first ends last
        return number, torch.get_num_threads()

    streams = Streams(2)
    done = streams.map(slow, [1, 2, 3])
    assert [result for result, _ in done] == [(1, 1), (2, 1), (3, 1)]
    assert all(seconds > 0 for _, seconds in done)
    here = streams.map(lambda _: threading.current_thread(), ["alone"])
    assert here[0][0] is threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        streams.map(lambda number: 1 / number, [1, 0, 2])
    streams.close()
    streams.close()


def test_a_slower_precision_is_taken_only_if_it_is_more_precise() -> None:
    """Within a tenth the more precise one goes first; the others follow in the same manner."""
    assert list(preferred({"fp32": 1.0, "bf16": 0.95, "int8": 0.92})) == ["fp32", "bf16", "int8"]
    assert list(preferred({"fp32": 3.0, "bf16": 1.5, "int8": 1.0})) == ["int8", "bf16", "fp32"]


def test_divergence_is_zero_for_the_same_and_grows() -> None:
    """Kullback-Leibler divergence of a half from a quarter, by hand."""
    half, quarter = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    assert divergence(half, half) == 0
    assert divergence(half, quarter) == pytest.approx(0.143841, abs=1e-5)
    assert probe().shape == (32_000,)
    assert torch.equal(probe(), probe())
