"""A closure keeps the batch it had when it was given, whatever the loop does next."""

import functools

import torch

from stabletune.monitor.inspection.kept_batch import keep


def test_a_kept_closure_keeps_the_variables_of_its_step():
    kept = []
    for step in range(3):
        batch = torch.full((2,), float(step))
        kept.append(keep(step, 0.0, lambda: batch.sum()))  # noqa: B023
    assert [float(k.loss_now()) for k in kept] == [0.0, 2.0, 4.0]


def test_so_does_one_of_a_loop_at_the_top_of_a_script():
    script = """
for step in range(3):
    batch = torch.full((2,), float(step))
    kept.append(keep(step, 0.0, lambda: total(batch)))
    unused = torch.zeros(1000)
"""
    kept = []
    exec(script, {"torch": torch, "kept": kept, "keep": keep, "total": lambda batch: batch.sum()})
    assert [float(k.loss_now()) for k in kept] == [0.0, 2.0, 4.0]
    assert "unused" not in kept[0].loss_now.__globals__


def test_a_value_that_is_not_finite_is_found_in_a_scripts_variables():
    found = {"torch": torch, "batch": torch.tensor([1.0, float("nan")])}
    assert keep(1, 0.0, eval("lambda: batch.sum()", found)).has_finite_inputs() is False


def test_a_kept_closure_sees_later_parameters():
    weight = torch.nn.Parameter(torch.ones(1))
    kept = keep(1, 1.0, lambda: weight.sum())
    with torch.no_grad():
        weight.mul_(3.0)
    assert float(kept.loss_now().detach()) == 3.0


def test_what_is_no_plain_function_is_kept_as_it_is():
    bound = functools.partial(torch.tensor, 2.0)
    assert keep(1, 0.0, bound).loss_now is bound


def test_a_batch_that_is_not_finite_is_found_in_containers():
    def closure_of(batch):
        return lambda: batch

    good, bad = torch.ones(2), torch.tensor([1.0, float("inf")])
    assert keep(1, 0.0, closure_of({"x": [good, (good,)]})).has_finite_inputs()
    assert not keep(1, 0.0, closure_of({"x": [good, (bad,)]})).has_finite_inputs()
    assert keep(1, 0.0, lambda: good).has_finite_inputs()


def test_of_inputs_that_a_closure_does_not_hold_nothing_is_said():
    assert keep(1, 0.0, functools.partial(torch.tensor, float("nan"))).has_finite_inputs() is None
