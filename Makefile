# `make run` and `make test` need Python 3.11 or newer and make, nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export TQDM_DISABLE = 1
export GX_ANALYTICS_ENABLED = false

.PHONY: deploy run test lint unit chaos kills guided fuzz bench ui train doctor corpus clean help

help:
	@echo "make run    compare two models on the bundled corpus"
	@echo "make ui     the Prefect UI on what was run"
	@echo "make deploy put pools, limits and deployments on the Prefect server"
	@echo "make test   everything that has to hold: linters, types, tests, coverage"
	@echo "make chaos  kills, full disks and floods, for real: long"
	@echo "make kills  comparisons killed at 100 random moments, and 10 with the bundled models: hours"
	@echo "make fuzz   broken inputs by the million for protocol, manifests and decoder: long"
	@echo "make bench  measure speed and memory beside what was promised: rates at 10 000 replicates; quiet machine, about 40 minutes"
	@echo "make train  train wav2vec2-mini and gama-mini (espeak-ng; GRYM_FSDD for real speech)"
	@echo "make corpus generate the bundled corpora again (espeak-ng for digits)"
	@echo "make doctor say what is missing"

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed: make PYTHON=python3.11')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

run: $(STAMP)
	@$(BIN)/python -m flows compare

test: $(STAMP) lint unit

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: $(STAMP)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 2 --dist worksteal --durations 12
	-$(BIN)/coverage combine --quiet   # a killed process leaves a broken file; the report judges the rest
	$(BIN)/coverage report

chaos: $(STAMP) guided
	$(BIN)/python -m pytest -m chaos -n 1 --durations 12 -o junit_family=legacy --junitxml var/chaos.xml

# atheris has wheels for some systems only: where there is none, seeded inputs are used.
guided: $(STAMP)
	@$(BIN)/python -c "import atheris" 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --only-binary atheris --editable '.[dev,fuzz]' 2>/dev/null || echo "no wheel of atheris for this system: seeded inputs only"

kills: export GRYM_KILLS = 100
kills: export GRYM_KILLS_REAL = 10
kills: $(STAMP)
	$(BIN)/python -m pytest -m chaos -n 1 tests/chaos/test_many_kills.py -o junit_family=legacy --junitxml var/kills.xml

fuzz: $(STAMP)
	$(BIN)/python -m benchmarks.fuzz --protocol 1000000 --manifest 1000000 --audio 100000

bench: $(STAMP)
	@PYTHONPATH=. $(BIN)/python -m benchmarks --json var/benchmarks.json

# Tests run beside each other: threads that spin while they wait would take the cores from the others.
test unit chaos kills: export OMP_WAIT_POLICY = PASSIVE

ui: $(STAMP)
	@$(BIN)/python -m flows ui

deploy: $(STAMP)
	@$(BIN)/python -m flows deploy

train: $(STAMP)
	@$(BIN)/python -m flows train --leave-one-out --install
	@$(BIN)/python -m flows train --name gama-mini --leave-one-out --folds 1 --install

doctor: $(STAMP)
	@$(BIN)/python -m flows doctor

corpus: $(STAMP)
	$(BIN)/python -m grym.corpus.digits --split test --voices 16 --per-voice 28 --seed 7 --out datasets/digits/test
	$(BIN)/python -m grym.corpus.digits --split train --voices 16 --per-voice 7 --seed 7 --out datasets/digits/train
	$(BIN)/python -m grym.corpus.sounds --split test --per-label 10 --mixtures 108 --seed 7 --out datasets/sounds/test
	$(BIN)/python -m grym.corpus.sounds --split train --per-label 20 --mixtures 20 --seed 7 --out datasets/sounds/train

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .coverage*
