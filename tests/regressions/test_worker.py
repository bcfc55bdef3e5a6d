"""Fixed bugs of the worker: which step a failure names, and what one trial leaves to the next."""

import sys

import pytest
import torch

from stabletune.trial.process_state import reset_process
from stabletune.trial.worker import run_trial
from tests.trial.specs import quadratic_spec, spec_of_file

COUNTING = """
    import torch
    from stabletune import Training

    def build(seed, device):
        model, calls = torch.nn.Linear(1, 1), [0]

        def loss_fn(m, batch):
            calls[0] += torch.is_grad_enabled()
            CHECK
            return (m.weight**2).sum() * 0.0 + loss

        return Training(model=model, loss_fn=loss_fn, batches=[0], eval_fn=lambda m: 1 / 0)
"""
AT_THE_FLOOR = "loss = 1.0 if calls[0] < 5 else 0.0"
RAISES = "loss = 1.0 if calls[0] < 5 else 1 / 0"


def test_a_loss_at_the_floor_names_its_step_once(tmp_path):
    result = run_trial(spec_of_file(tmp_path, COUNTING.replace("CHECK", AT_THE_FLOOR), overhead=None, every=1000))
    assert result.status == "failed"
    assert result.reason.startswith("step 5: the loss must stay above loss_floor")
    assert result.reason.count("step ") == 1


def test_an_exception_names_the_step_in_which_it_came(tmp_path):
    result = run_trial(spec_of_file(tmp_path, COUNTING.replace("CHECK", RAISES), overhead=None, every=1000))
    assert result.reason.startswith("step 5: the workload raised ZeroDivisionError")


def test_an_exception_while_measuring_names_the_step_that_was_measured(tmp_path):
    source = COUNTING.replace("CHECK", RAISES.replace("< 5", "< 2"))  # the first call trains, the second measures
    result = run_trial(spec_of_file(tmp_path, source, overhead=None, every=1))
    assert result.reason.startswith("step 1: the workload raised ZeroDivisionError")


def test_an_exception_in_the_evaluation_comes_after_the_last_step(tmp_path):
    source = COUNTING.replace("CHECK", "loss = 1.0")
    result = run_trial(spec_of_file(tmp_path, source, source="eval", steps=7))
    assert result.reason.startswith("after step 7: the workload raised ZeroDivisionError")


@pytest.fixture
def switches():
    yield
    reset_process(quadratic_spec())


def test_the_switches_of_the_gpu_libraries_are_reset(switches):
    torch.backends.cudnn.benchmark = torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = True
    reset_process(quadratic_spec())
    cudnn = torch.backends.cudnn
    assert (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32) == (False, False, True)
    assert torch.backends.cuda.matmul.allow_tf32 is False
    assert torch.get_float32_matmul_precision() == "highest"


HELPED = """
    import torch
    from my_helper import VALUE
    from my_package.part import PART
    from stabletune import Training

    def build(seed, device):
        model = torch.nn.Linear(1, 1)
        return Training(model=model, loss_fn=lambda m, b: m.weight.sum() * 0.0 + VALUE + PART, batches=[0])
"""


def test_two_workloads_with_helpers_of_one_name_do_not_mix(tmp_path):
    path = list(sys.path)
    for value in (1.0, 2.0):
        folder = tmp_path / f"{value:g}"
        (folder / "my_package").mkdir(parents=True)
        (folder / "my_helper.py").write_text(f"VALUE = {value}\n")
        (folder / "my_package" / "part.py").write_text(f"PART = {10 * value}\n")
        result = run_trial(spec_of_file(folder, HELPED, steps=12))
        assert result.status == "completed", result.reason
        assert result.losses[0] == 11 * value
    reset_process(quadratic_spec())
    assert not {"my_helper", "my_package", "my_package.part"} & set(sys.modules)
    assert sys.path == path


def test_installed_packages_beside_a_workload_stay_loaded(tmp_path):
    installed = tmp_path / "venv" / "site-packages"
    installed.mkdir(parents=True)
    (installed / "installed_thing.py").write_text("")
    source = f"""
    import sys
    sys.path.append({str(installed)!r})
    import installed_thing
    sys.path.remove({str(installed)!r})

    def build(seed, device):
        return None
    """
    run_trial(spec_of_file(tmp_path, source))
    reset_process(quadratic_spec())
    assert sys.modules.pop("installed_thing", None) is not None


def test_a_namespace_package_whose_parent_was_unloaded_hinders_no_trial(tmp_path):
    elsewhere, own = tmp_path / "elsewhere", tmp_path / "own"
    (elsewhere / "outer_namespace" / "inner").mkdir(parents=True)
    own.mkdir()
    unloading = f"""
import sys
import torch
from stabletune import Training
sys.path.insert(0, {str(elsewhere)!r})
import outer_namespace.inner
del sys.modules["outer_namespace"]

def build(seed, device):
    loss_fn = lambda m, b: (m(b[0]) - b[1]).square().mean()
    return Training(model=torch.nn.Linear(4, 1), loss_fn=loss_fn, batches=[(torch.randn(8, 4), torch.randn(8, 1))])
"""
    spec = spec_of_file(own, unloading, steps=5)
    try:
        assert [run_trial(spec).status for _ in range(2)] == ["completed"] * 2
    finally:
        sys.modules.pop("outer_namespace.inner", None)
