PYTHON ?= python3
# The build of torch to install. Elsewhere: make setup TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
TORCH ?= torch==2.13.0

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := .venv-bench
PEERS_READY := $(PEERS)/.ready

.PHONY: help setup demo test check bench bench-signals bench-diagnosis bench-search bench-search-full corpus prediction reproduce docs fuzz soak gpu-check
.DEFAULT_GOAL := help

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv with stabletune and its tools; PYTHON=... and TORCH=... choose the builds

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "make setup: PYTHON must be Python 3.10 or newer, but got $(PYTHON). Try: make setup PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	  echo "make setup: $(PYTHON) must have venv and ensurepip, but lacks them. On Debian: apt install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(READY) ## Search the diabetes example into runs/diabetes; a second run goes on from there
	$(BIN)/stabletune search examples/diabetes/config.yaml --output runs/diabetes --resume

# Threads that wait must not spin: there are more of them than cores.
test: $(READY) ## Run all tests but those that need a GPU, in WORKERS=3 processes
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -m "not gpu" -n $(or $(WORKERS),3) --dist loadfile --no-loadscope-reorder

check: $(READY) ## Check format, lint, types, layers, and known vulnerabilities where they can be looked up
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet tests/test_architecture.py
	@$(BIN)/python tests/audit_dependencies.py

bench: $(READY) ## Run every benchmark
	@for script in benchmarks/bench_*.py; do echo "== $$script" && $(BIN)/python "$$script" || exit 1; done

bench-signals: $(PEERS_READY) ## Compare the signals with other tools in one run; SECTIONS="--quick cost accuracy" picks
	$(PEERS)/bin/python -W ignore -m benchmarks.signals $(SECTIONS)

bench-diagnosis: $(READY) ## Inject causes of spikes and count how often each is named; OPTIONS=--quick
	$(BIN)/python -W ignore -m benchmarks.diagnosis $(OPTIONS)

bench-search: $(READY) ## Compare searches by the training steps they take: a slice, kept and resumed
	$(BIN)/python -W ignore -m benchmarks.search $(OPTIONS)

bench-search-full: $(READY) ## Every workload, tuner and seed: hours, in as many pieces as one likes
	$(BIN)/python -W ignore -m benchmarks.search --full $(OPTIONS)

# a tool that cannot be installed becomes a row of the tables that says so
$(PEERS_READY): benchmarks/signals/requirements.txt
	@test -x $(PEERS)/bin/pip || $(PYTHON) -m venv --clear $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check numpy scipy scikit-learn
	@while read -r peer; do case "$$peer" in ""|"#"*) continue;; esac; \
	  $(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check "$$peer" < /dev/null || echo "not installed: $$peer"; \
	done < $<
	@touch $@

corpus: $(READY) ## Run the labeled corpus anew (about an hour); CORPUS="--seed 1 --output build/corpus.npz" picks
	$(BIN)/python -m benchmarks.corpus $(CORPUS)

prediction: $(READY) ## Judge the search's rule and forecast on the corpus; OPTIONS="--corpus FILE" takes another
	$(BIN)/python -W ignore -m benchmarks.prediction $(OPTIONS)

reproduce: $(READY) ## Run the paper's experiments and write docs/reproduction.md; FULL=1 takes longer, ITEMS="1 3" picks
	$(BIN)/python -m examples.paper $(ITEMS) $(if $(FULL),--full)

fuzz: $(READY) ## Run the property tests with 20,000 examples each (about 40 minutes on an idle core)
	$(BIN)/python -m pytest -q tests/properties --hypothesis-profile=long

soak: $(READY) ## Kill drivers and workers of a search at random moments, MINUTES=10, and count what was lost
	$(BIN)/python -m benchmarks.soak --minutes $(or $(MINUTES),10)

docs: $(READY) ## Build the site into build/docs
	$(BIN)/python -m mkdocs build --strict --quiet
	@echo "build/docs/index.html"

gpu-check: $(READY) ## Run the tests that need a GPU
	$(BIN)/python -m pytest -m gpu
