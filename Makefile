# `make demo` and `make test` are all a newcomer needs; both set up .venv the first time.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready

.PHONY: demo test check lint versions torture notebooks bench bench-lesson gpu clean

demo: $(STAMP)  ## the main job: MNIST, finder, one cycle, report in runs/mnist/
	$(BIN)/onecycle train mnist --lr auto --out runs/mnist --force

test: $(STAMP)  ## all tests
	$(BIN)/python -m pytest -n 2

check: $(STAMP)  ## the inner loop: style, types and the fast tests
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright
	$(BIN)/python -m pytest -n 2 -m "not slow" -x

lint: $(STAMP)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

versions: $(STAMP)  ## the fast tests on the lowest and the newest versions of Python, torch and the rest
	$(BIN)/python tests/versions.py

torture: $(STAMP)  ## 10,000 generated models; kill -9, full disks, flipped bits, signals: the figures of docs/reliability.md
	$(BIN)/python tests/engine/torture.py
	$(BIN)/python tests/durability/kills.py
	$(BIN)/python tests/durability/faults.py
	$(BIN)/python tests/durability/flips.py
	$(BIN)/python tests/durability/signals.py
	$(BIN)/python tests/durability/fits.py
	$(BIN)/python tests/durability/resumes.py
	$(BIN)/python tests/durability/malice.py
	$(BIN)/python tests/durability/every_type.py
	$(BIN)/python tests/durability/odd_files.py
	$(BIN)/python tests/durability/early_kills.py
	$(BIN)/python tests/durability/json_kinds.py

notebooks: $(STAMP)  ## execute the lesson notebooks again, in place
	$(BIN)/python examples/execute.py

bench: benchmarks/.venv/.ready  ## all workloads beside all peers, to benchmarks/results.md
	benchmarks/.venv/bin/python benchmarks/run.py

bench-lesson: benchmarks/.venv/.ready  ## the ratios of the README
	benchmarks/.venv/bin/python benchmarks/lesson.py --rounds 9

gpu:  ## all that needs a GPU, in eight minutes: tests, workloads beside peers, a step's time; installs nothing
	PYTHON="$(PYTHON)" bash benchmarks/gpu.sh

# torch comes first, alone: its CPU build is picked by that exact version
$(STAMP): pyproject.toml constraints.txt
	@echo "setting up .venv; this takes a few minutes, once"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

benchmarks/.venv/.ready: pyproject.toml constraints.txt benchmarks/requirements.txt
	test -x benchmarks/.venv/bin/python || $(PYTHON) -m venv benchmarks/.venv
	benchmarks/.venv/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	benchmarks/.venv/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 -e . -r benchmarks/requirements.txt
	touch $@

clean:  ## remove the environments and what runs wrote
	rm -rf .venv .venv-lowest .venv-newest benchmarks/.venv runs
