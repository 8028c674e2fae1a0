# Two commands do all the set-up: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test cluster lint mutants campaign clean

demo: .venv/ltx
	$(BIN)/ltx run

test: .venv/test
	$(BIN)/python -m pytest -n auto --dist loadfile

# Breaks one promise after the other and sees a test fail for each.
mutants: .venv/test
	$(BIN)/python tests/mutants.py

# Kills, damage, bad inputs and strangers' folders by the hundred; each prints what was tried and what held.
campaign: .venv/test
	for campaign in tests/campaigns/*.py; do $(BIN)/python $$campaign || exit 1; done

# With these the tests of Slurm and Ray run too; Slurm itself needs slurmctld, slurmd, slurm-client, munge and root.
cluster: .venv/cluster

lint: .venv/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

KERNELS = ltx/engine/kernels

.venv/ltx: pyproject.toml constraints.txt hatch_build.py $(KERNELS)/sparse.c $(KERNELS)/lanes.h $(KERNELS)/images.h
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e .
	@touch $@

.venv/test: .venv/ltx
	$(BIN)/pip install --quiet -c constraints.txt -e '.[test]'
	@touch $@

.venv/cluster: .venv/ltx
	$(BIN)/pip install --quiet -c constraints.txt -e '.[slurm,ray]'
	@touch $@

.venv/lint: .venv/ltx
	$(BIN)/pip install --quiet -c constraints.txt -e '.[lint]'
	@touch $@

clean:
	rm -rf .venv
