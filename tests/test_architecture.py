"""Holds the plan of ARCHITECTURE.md: imports only point down, heavy libraries stay fenced, nothing sprawls."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stabletune.hyperparameters import MITIGATIONS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "stabletune"
MODULES = sorted(PACKAGE.rglob("*.py"))

# A unit is a folder or a module of the package. Each may import those on lines below its own; a line is one layer.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("dashboard", "single_trial", "submission", "terminal"),
    ("summaries",),
    ("study",),
    ("trial", "results"),
    ("monitor",),
    ("signals",),
    ("optim",),
    ("judgement",),
    ("config",),
    ("space",),
    ("document", "hyperparameters", "records"),
    ("schedules",),
    ("errors",),
)
# The libraries from outside that a unit may import.
FENCES = {
    "cli": {"typer"},
    "submission": {"aiohttp", "ray", "requests", "yaml"},
    "terminal": {"rich"},
    "dashboard": {"numpy", "plotly", "starlette", "uvicorn"},
    "study": {"numpy", "optuna", "ray", "scipy", "sklearn", "sqlalchemy"},
    "results": {"numpy", "plotly", "scipy", "tensorboard", "yaml"},
    "trial": {"lightning", "numpy", "sklearn", "torch", "transformers"},
    "monitor": {"lightning", "prometheus_client", "torch", "torchmetrics", "transformers"},
    "signals": {"numpy", "torch"},
    "optim": {"torch"},
    "judgement": {"numpy"},
    "config": {"pydantic", "pydantic_core", "yaml"},
    "document": {"yaml"},
    "records": {"numpy"},
}
# The one listed delegation: a Recommendation builds its optimizer, importing when it is asked to.
DELEGATIONS = {("results/recommendation.py", "torch"), ("results/recommendation.py", "stabletune.optim")}
BORDERS_TO_TRIAL = {"study/executors/process_border.py"}
NAMES_WITHOUT_A_HOME = {"utils", "helpers", "common", "misc", "base", "core", "types", "constants", "manager", "util"}
MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_LINES_OF_AN_INIT, MOST_FILES_OF_A_FOLDER = 300, 50, 30, 12


def place(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def unit(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{place(path)}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_delegated(path: Path, module: str) -> bool:
    return any(place(path) == where and f"{module}.".startswith(f"{what}.") for where, what in DELEGATIONS)


@pytest.fixture(params=[path for path in MODULES if unit(path) != "__init__"], ids=place)
def module(request: pytest.FixtureRequest) -> Path:
    path = request.param
    assert isinstance(path, Path)
    return path


def test_every_unit_of_the_package_has_a_layer() -> None:
    layered = {name for layer in LAYERS for name in layer}
    assert {unit(path) for path in MODULES} - {"__init__"} == layered


def test_imports_only_point_down(module: Path) -> None:
    depth = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    for imported in imports(module):
        top, _, rest = imported.partition(".")
        target = rest.partition(".")[0]
        if top != "stabletune" or target in ("__version__", unit(module)) or is_delegated(module, imported):
            continue
        if target in depth:
            assert depth[target] > depth[unit(module)], f"{place(module)} may not import stabletune.{target}"


def test_heavy_libraries_stay_behind_their_fences(module: Path) -> None:
    allowed = FENCES.get(unit(module), set()) | set(sys.stdlib_module_names) | {"stabletune"}
    outside = {name for name in imports(module) if name.partition(".")[0] not in allowed}
    assert not {name for name in outside if not is_delegated(module, name)}


def test_study_reaches_trial_at_the_process_border_only() -> None:
    found = {
        place(p) for p in MODULES if unit(p) == "study" and any(i.startswith("stabletune.trial") for i in imports(p))
    }
    assert found == BORDERS_TO_TRIAL


def test_no_module_has_a_name_that_says_nothing() -> None:
    named = {path.stem for path in MODULES} | {path.parent.name for path in MODULES}
    assert not named & NAMES_WITHOUT_A_HOME


def test_modules_stay_short(module: Path) -> None:
    n_lines = len(module.read_text(encoding="utf-8").splitlines())
    assert n_lines <= (MOST_LINES_OF_AN_INIT if module.name == "__init__.py" else MOST_LINES)


def test_functions_stay_short(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            n_lines = node.body[-1].end_lineno - first.lineno + 1  # type: ignore[operator]
            assert n_lines <= MOST_LINES_OF_A_FUNCTION, f"{node.name} has {n_lines} lines"


def test_folders_stay_small() -> None:
    folders = {path.parent for path in MODULES}
    sizes = {place(folder): len(list(folder.glob("*.py"))) for folder in folders}
    assert not {name: n_files for name, n_files in sizes.items() if n_files > MOST_FILES_OF_A_FOLDER}


def test_every_module_says_what_it_is_for(module: Path) -> None:
    assert ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))


def test_every_module_holds_its_annotations_back(module: Path) -> None:
    text = module.read_text(encoding="utf-8")
    assert module.name == "__init__.py" or "from __future__ import annotations\n" in text


def test_importing_the_package_loads_no_heavy_library() -> None:
    heavy = "{'torch', 'ray', 'optuna', 'sklearn', 'scipy', 'plotly', 'pydantic'}"
    code = f"import sys, stabletune; sys.exit(len({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["list"]], ids=" ".join)
def test_help_and_list_load_neither_torch_nor_ray_nor_optuna(arguments: list[str]) -> None:
    code = (
        "import sys; from stabletune.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print(sorted({'torch', 'ray', 'optuna', 'sklearn'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "[]")


def names_a_mitigation(path: Path) -> bool:
    """Whether a file says the name of a mitigation, or handles many by a name for all of them."""
    names = (*MITIGATIONS, "amsgrad", "MITIGATIONS", "BY_TENSOR", "EXCLUDES_SHADOWS", "second_moment_average")
    return re.search(rf"\b({'|'.join(names)})\b", path.read_text(encoding="utf-8")) is not None


def listed_for_mitigations() -> list[str]:
    """The places in CONTRIBUTING.md's table of what a new mitigation touches."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("## Adding a mitigation")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", section, flags=re.MULTILINE)


def test_contributing_lists_every_place_that_knows_a_mitigation() -> None:
    listed = tuple(listed_for_mitigations())
    knowing = [f"stabletune/{place(path)}" for path in MODULES if names_a_mitigation(path)]
    assert knowing and not [where for where in knowing if not where.startswith(listed)]


def test_every_place_that_contributing_lists_for_mitigations_knows_one() -> None:
    for where in listed_for_mitigations():
        path = ROOT / where
        assert path.exists(), where
        files = [p for p in path.rglob("*.py")] if path.is_dir() else [path]
        assert any(names_a_mitigation(file) for file in files), where


def test_every_mitigation_has_a_range_a_twin_a_benchmark_and_its_formula_on_paper() -> None:
    for where in ("search_spaces/adam_full.yaml", "benchmarks/bench_mitigations.py", "docs/mitigations.md"):
        text = (ROOT / where).read_text(encoding="utf-8")
        assert not [name for name in (*MITIGATIONS, "amsgrad") if name not in text], where
