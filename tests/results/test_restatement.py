"""Settings for a run of another size: each rule against its closed form, and what is said of it."""

import math

import pytest
import torch

from stabletune.errors import ExportError
from stabletune.results.exporters import export, formats
from stabletune.results.recommendation import Recommendation, settings_from
from stabletune.results.restatement import Size, restate, size_of
from tests.results.runs import PARAMS

EVIDENCE = {"confirmed_steps": 1000, "confirm_seeds": 5, "spiky_runs": 0}


def recommendation(schedule="cosine", **changes):
    params = {**PARAMS, "lr": 0.004, "beta2": 0.96, "eps": 1e-8, "warmup_ratio": 0.1, **changes}
    return Recommendation(settings_from(params, schedule), EVIDENCE, {"seed": 0})


@pytest.mark.parametrize(("proven", "wanted"), [(32, 512), (512, 32), (100, 101)])
def test_the_half_life_of_the_second_moment_in_samples_is_kept(proven, wanted):
    before = recommendation().settings
    after = restate(recommendation(), batch_size=Size(proven, wanted)).settings
    half_life = [size * math.log(0.5) / math.log(s["beta2"]) for size, s in ((proven, before), (wanted, after))]
    assert half_life[1] == pytest.approx(half_life[0])
    assert after["lr"] / before["lr"] == pytest.approx(math.sqrt(wanted / proven))
    assert after["eps"] * after["lr"] == pytest.approx(before["eps"] * before["lr"])
    assert after["beta1"] == before["beta1"]


def test_a_beta2_that_falls_below_beta1_is_warned_of():
    text = " ".join(restate(recommendation(), batch_size=Size(32, 512)).provenance["restated"])
    assert "beta2 falls below beta1 = 0.9" in text
    assert "falls below" not in " ".join(restate(recommendation(), batch_size=Size(32, 64)).provenance["restated"])


def test_the_rate_falls_as_the_width_grows():
    assert restate(recommendation(), model_width=Size(64, 256)).settings["lr"] == pytest.approx(0.001)


def test_the_warm_up_keeps_its_share_of_a_longer_run():
    longer = restate(recommendation(), total_steps=20_000)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = longer.build_optimizer([parameter])
    schedule = longer.build_schedule(optimizer)
    rates = []
    for _ in range(20_000):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == 0.0
    assert rates.index(max(rates)) == 2000
    assert max(rates) == pytest.approx(0.004)
    assert rates[11_000] == pytest.approx(0.002)


def test_a_schedule_is_built_over_the_steps_of_the_proof_or_those_asked_for():
    def rate_after(n_steps, **options):
        optimizer = recommendation("linear").build_optimizer([torch.nn.Parameter(torch.zeros(1))])
        schedule = recommendation("linear").build_schedule(optimizer, **options)
        for _ in range(n_steps):
            optimizer.step()
            schedule.step()
        return optimizer.param_groups[0]["lr"]

    assert rate_after(550) == pytest.approx(0.002)
    assert rate_after(550, total_steps=5500) == pytest.approx(0.004)
    assert rate_after(1000) == 0.0


def test_a_schedule_without_a_length_is_refused():
    shapeless = Recommendation(recommendation().settings)
    with pytest.raises(ValueError, match="total_steps: must be given for a cosine schedule"):
        shapeless.build_schedule(shapeless.build_optimizer([torch.nn.Parameter(torch.zeros(1))]))


@pytest.mark.parametrize("format_name", formats())
def test_every_format_says_what_was_restated_and_that_it_was_not_proven(format_name):
    restated = restate(recommendation(), total_steps=5000, batch_size=Size(32, 128), model_width=Size(64, 128))
    text = export(restated, format_name)
    for needed in ("not the real run's", "2507.07101", "2205.10320", "2203.03466", "5000 steps, 500 of them warm-up"):
        assert needed in text
    assert repr(0.96**4)[:8] in text


def test_nothing_asked_for_changes_nothing():
    same = recommendation()
    assert restate(same) == same
    assert restate(same, batch_size=Size(32, 32), model_width=Size(8, 8)) == same


def test_sizes_are_read_from_the_option_or_from_the_search():
    assert size_of("--batch-size", "32:512", None) == Size(32, 512)
    assert size_of("--batch-size", "512", 64) == Size(64, 512)


@pytest.mark.parametrize(
    "text", ["0", "-3", "x", "1.5", "32:", "32:0", "", "0:512", "x:512", "-1:5", "64:1024:2", "9" * 400]
)
def test_a_size_that_is_none_is_refused(text):
    with pytest.raises(ExportError, match="--batch-size: must be a whole number above 0"):
        size_of("--batch-size", text, 64)


@pytest.mark.parametrize(("text", "known"), [("512", None), ("512", "x"), ("512", True)])
def test_without_the_size_of_the_trials_it_is_asked_for(text, known):
    with pytest.raises(ExportError, match=r"--batch-size: the size of the trials must be known.*--batch-size 32:512"):
        size_of("--batch-size", text, known)


def test_a_run_of_no_steps_is_refused():
    with pytest.raises(ExportError, match="--total-steps: must be at least 1, but got 0"):
        restate(recommendation(), total_steps=0)


@pytest.mark.parametrize("sizes", [Size(10**12, 1), Size(1, 10**5)])
def test_sizes_so_far_apart_that_the_rules_give_nonsense_are_refused(sizes):
    with pytest.raises(ExportError, match=r"restating beta2: the rules give .* search nearer to the real run's"):
        restate(recommendation(), batch_size=sizes)
