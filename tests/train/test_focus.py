from __future__ import annotations

import csv

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from lymphcad_train.focus import NEAR, cost_of_place, stray_share  # noqa: E402


@given(st.integers(1, 12), st.integers(1, 12))
def test_the_cost_of_a_place_is_the_same_however_the_crop_is_turned(rows, columns):
    cost = cost_of_place(rows, columns)
    assert cost.shape == (rows, columns)
    assert torch.allclose(cost, cost.flip(0), atol=1e-6)
    assert torch.allclose(cost, cost.flip(1), atol=1e-6)
    assert torch.allclose(cost, cost_of_place(columns, rows).T, atol=1e-6)
    assert 0 <= cost.min() <= cost.max() <= 1


def test_the_node_is_free_and_the_corner_costs_all():
    cost = cost_of_place(4, 4)
    assert cost[1:3, 1:3].tolist() == [[0, 0], [0, 0]]  # their centres are 0.18 fields of view away
    assert cost[0, 0] == 1
    assert cost[0, 1] == pytest.approx(((0.375**2 + 0.125**2) ** 0.5 - NEAR) / NEAR, abs=1e-6)
    assert cost_of_place(1, 1) == 0


def maps_with(values):
    maps = torch.zeros(1, 2, 4, 4)
    for (label, row, column), value in values.items():
        maps[0, label, row, column] = value
    return maps


@pytest.mark.parametrize(
    ("values", "share"),
    [
        ({(1, 0, 0): 3.0}, 1.0),
        ({(0, 3, 3): 3.0}, 1.0),  # against it counts as much as for it
        ({(1, 1, 2): 3.0}, 0.0),
        ({(1, 0, 3): -2.0, (1, 1, 1): 6.0}, 0.25),
        ({(0, 0, 0): 5.0, (1, 0, 0): 5.0, (1, 2, 2): 1.0}, 0.0),  # what both classes have is evidence for neither
        ({}, 0.0),
    ],
)
def test_the_share_is_that_of_the_evidence_away_from_the_node(values, share):
    assert stray_share(maps_with(values)).item() == pytest.approx(share, abs=1e-5)


def test_no_evidence_at_all_has_a_gradient_that_is_finite():
    maps = torch.zeros(2, 2, 4, 4, requires_grad=True)
    stray_share(maps).backward()
    assert torch.isfinite(maps.grad).all()


def test_training_brings_the_evidence_to_the_node(train_command, tmp_path):
    last = {}
    for focus in ("0", "3"):
        out = tmp_path / focus
        options = ["--size", "128", "--progressive", "0", "--epochs", "4", "--batch", "8", "--focus", focus]
        assert train_command(out, "--arch", "tf_efficientnet_lite0", *options) == 0
        with (out / "log.csv").open(newline="") as file:
            last[focus] = float(list(csv.DictReader(file))[-1]["stray"])
    assert last["3"] < last["0"] - 0.1
