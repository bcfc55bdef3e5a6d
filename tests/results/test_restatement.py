"""Settings for a run of another size: each rule against its closed form, and what is said of it."""

import math

import pytest
import torch

from stabletune.errors import ExportError, OutputFolderError
from stabletune.hyperparameters import scheduled_beta2
from stabletune.optim import InstrumentedAdamW
from stabletune.results.exporters import export, formats
from stabletune.results.recommendation import Recommendation, settings_from
from stabletune.results.restatement import WARNING, Size, restate, restate_for, size_of
from stabletune.results.store import RunFolder
from tests.results.report.studies import finished_study
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


def sentences(restated):
    return " ".join(restated.provenance["restated"])


def test_the_half_life_alone_says_all_of_plain_adam():
    said = restate(recommendation(max_grad_norm=1.0), batch_size=Size(32, 64)).provenance["restated"]
    assert [sentence.partition(" ")[0] for sentence in said] == ["These", "beta2", "lr"]


@pytest.mark.parametrize("step", [8, 64, 512])
def test_below_the_limit_of_a_schedule_of_beta2_the_memory_in_samples_is_not_kept_and_that_is_told(step):
    before = recommendation(beta2=0.9999, beta2_exponent=0.8)
    after = restate(before, batch_size=Size(32, 128))
    memories = [
        batch / (1 - scheduled_beta2(at, settings["beta2"], settings["beta2_exponent"]))
        for batch, at, settings in ((32, step, before.settings), (128, step // 4, after.settings))
    ]
    assert memories[1] / memories[0] == pytest.approx(4**0.2)
    assert after.settings["beta2_exponent"] == 0.8
    assert f"{4**0.2:.4g} times as many samples as before" in sentences(after)


def test_a_reset_is_told_to_count_steps():
    after = restate(recommendation(second_moment_reset=4.0), batch_size=Size(32, 128))
    assert "counts steps, each of 4 times as many samples" in sentences(after)
    assert "after a reset the half-life in samples does not hold" in sentences(after)


def rise_of_v_in_a_burst(settings):
    """How many times v̂ rises, at most, in one step long after the first."""
    parameter = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = Recommendation(settings).build_optimizer([parameter])
    seen = []
    for gradient in [1.0] * 3000 + [1e6]:
        parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step()
        seen.append(float(optimizer.state[parameter]["exp_avg_sq"]))
    return seen[-1] / seen[-2]


def test_how_far_clipping_by_the_second_moment_lets_it_rise_is_told_of_both_sizes():
    before = recommendation(second_moment_clip=50.0)
    after = restate(before, batch_size=Size(32, 64))
    for settings in (before.settings, after.settings):
        assert f"{rise_of_v_in_a_burst(settings):.4g} times in" in sentences(after)


def test_amsgrad_is_told_to_have_no_half_life():
    after = restate(recommendation(amsgrad=True), batch_size=Size(32, 64))
    assert "largest so far and has no half-life" in sentences(after)


def smallest_factor_in_a_burst(beta2, update_clip):
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = InstrumentedAdamW([parameter], betas=(0.9, beta2), update_clip=update_clip)
    factors = []
    for gradient in [1e-3] * 200 + [1e6]:
        parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step()
        factors.append(optimizer.clip_factor(parameter))
    return min(factors)


def test_update_clip_that_can_no_longer_bite_is_refused():
    assert smallest_factor_in_a_burst(0.96, 1.5) < 0.5
    assert smallest_factor_in_a_burst(0.96**16, 1.5) == 1.0
    with pytest.raises(
        ExportError, match=r"restating beta2: update_clip=1.5 must still be able to bite.* at most 1\.4"
    ):
        restate(recommendation(update_clip=1.5), batch_size=Size(32, 512))
    assert smallest_factor_in_a_burst(0.96**4, 1.5) < 1.0
    assert restate(recommendation(update_clip=1.5), batch_size=Size(32, 128)).settings["update_clip"] == 1.5


def test_the_rate_falls_as_the_width_grows():
    after = restate(recommendation(), model_width=Size(64, 256))
    assert after.settings["lr"] == pytest.approx(0.001)
    assert "arXiv:2203.03466, table 3" in sentences(after)
    assert "presupposes a model parametrised by muP" in sentences(after)


def test_the_rate_of_what_the_width_leaves_alone_is_kept_by_the_lr_scale_that_is_named():
    after = restate(recommendation(), model_width=Size(64, 256))
    assert "lr_scale 4" in sentences(after)
    vector, matrix = torch.nn.Parameter(torch.zeros(4)), torch.nn.Parameter(torch.zeros(4, 4))
    groups = after.build_optimizer([{"params": [matrix]}, {"params": [vector], "lr_scale": 4}]).param_groups
    assert [group["lr"] for group in groups] == pytest.approx([0.001, 0.004])


def test_two_widths_one_after_the_other_name_the_lr_scale_of_both():
    once = restate(recommendation(), model_width=Size(64, 128), batch_size=Size(32, 128))
    twice = restate(once, model_width=Size(128, 256))
    assert "keep 0.008, by a parameter group with lr_scale 2." in sentences(once)
    assert "keep 0.008, by a parameter group with lr_scale 4." in twice.provenance["restated"][-2]
    assert twice.settings["lr"] == pytest.approx(0.002)


def test_two_restatements_compose_and_both_are_told(tmp_path):
    restate(recommendation(), batch_size=Size(32, 64)).save(tmp_path / "once.yaml")
    twice = restate(Recommendation.load(tmp_path / "once.yaml"), batch_size=Size(64, 128))
    at_once = restate(recommendation(), batch_size=Size(32, 128))
    for name in ("lr", "beta2", "eps"):
        assert twice.settings[name] == pytest.approx(at_once.settings[name], rel=1e-12)
    said = twice.provenance["restated"]
    assert said.count(WARNING) == 1 and said[0] == WARNING
    assert [sum(f"batch size {step}" in sentence for sentence in said) for step in ("32 to 64", "64 to 128")] == [2, 2]
    twice.save(tmp_path / "twice.yaml")
    assert Recommendation.load(tmp_path / "twice.yaml") == twice


def test_a_restatement_of_another_kind_keeps_what_was_said_before():
    width = restate(
        restate(recommendation(), batch_size=Size(32, 128), total_steps=5000), model_width=Size(64, 256), total_steps=9
    )
    for needed in ("2507.07101", "2205.10320", "2203.03466", "spans 5000 steps", "spans 9 steps"):
        assert needed in sentences(width)
    assert width.settings["schedule"]["total_steps"] == 9


def test_restating_from_a_size_that_was_left_is_refused():
    restated = restate(recommendation(), batch_size=Size(32, 64), model_width=Size(8, 16))
    with pytest.raises(ExportError, match=r"--batch-size: must go on from 64, .* but got 32:128. Give 64:128."):
        restate(restated, batch_size=Size(32, 128))
    with pytest.raises(ExportError, match=r"--model-width: must go on from 16, .* but got 8:32. Give 16:32."):
        restate(restated, model_width=Size(8, 32))


def test_a_folder_whose_recommendation_was_restated_goes_on_from_there(tmp_path):
    folder = finished_study(tmp_path / "run")
    folder.write_config({**folder.config(), "workload_args": {"batch_size": 32, "width": 8}})
    once = restate_for(RunFolder(tmp_path / "run"), batch_size="64")
    once.save(tmp_path / "run" / "recommended.yaml")
    twice = restate_for(RunFolder(tmp_path / "run"), batch_size="128", model_width="16")
    assert "batch size 64 to 128" in sentences(twice) and "width 8 to 16" in sentences(twice)


@pytest.mark.parametrize("sizes", [5, {"batch_size": 64}, {"batch_size": [32, 0]}, {"batch_size": [1, 2, 3]}])
def test_sizes_edited_into_nonsense_are_refused(tmp_path, sizes):
    content = recommendation()
    Recommendation(content.settings, content.evidence, {"restated_sizes": sizes}).save(tmp_path / "r.yaml")
    with pytest.raises(OutputFolderError, match=r"provenance\.restated_sizes: must map names to two whole numbers"):
        Recommendation.load(tmp_path / "r.yaml")


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
