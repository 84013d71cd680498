# Two commands on a fresh machine:  make demo   make test
# Both may be repeated: what is installed, written or trained already is not done again.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# for example PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu" for a small torch without CUDA
PIP_ARGS ?=
WORKERS ?= 2

PY := .venv/bin/python
STAMP := .venv/.installed-$(shell cat requirements.txt setup.cfg | cksum | cut -d' ' -f1)

LABEL := .venv-label/bin/python
LABEL_STAMP := .venv-label/.installed-$(shell cksum requirements-label.txt | cut -d' ' -f1)

.PHONY: help install demo test test-slow test-selected label test-label mutants lint type format clean

help:
	@echo "make demo     phantom data, three experts, one student of their answers and its page, in runs/one_pass"
	@echo "make test     the test suite"
	@echo "make test-slow  the tests that take minutes"
	@echo "make test-selected  some of the slow tests and of the label server's, a few minutes: what .ci/run has of them"
	@echo "make label    an environment of its own for MONAI Label, .venv-label"
	@echo "make test-label  the tests that start a MONAI Label server"
	@echo "make mutants  whether the tests notice small faults: N=50 SEED=0; hours, goes on where it stopped"
	@echo "make lint     ruff;  make type  mypy;  make format  ruff format"
	@echo "make clean    removes runs/ and data/phantom*, keeps .venv and .venv-label"

install: $(STAMP)

$(STAMP): requirements.txt setup.cfg
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install $(PIP_ARGS) -r requirements.txt
	SAM2_BUILD_CUDA=0 $(PY) -m pip install --no-build-isolation --no-deps sam2==1.1.0 \
		|| echo "sam2 could not be built: everything works but the base sam2"
	rm -f .venv/.installed-*
	touch $(STAMP)

demo: $(STAMP)
	$(PY) -m tools phantom --out data/phantom
	$(PY) -m tools chain run ka2er --dataset_dir data/phantom --preset demo --external none --students False --output_dir runs/experts
	$(PY) -m tools amalgamate runs/experts/experts.json --scans data/phantom --labels_used none --preset demo --train "--max_epochs 96" --out runs/one_pass

test: $(STAMP)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) $(ARGS)

test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) -m "slow and not gpu and not label" $(ARGS)

# -rs: what is skipped because its data, reference tensors or .venv-label are not here is said
test-selected: $(STAMP)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) -m "selected and not gpu" -rs $(ARGS)

label: $(LABEL_STAMP)

$(LABEL_STAMP): requirements-label.txt
	test -x $(LABEL) || $(PYTHON) -m venv .venv-label
	$(LABEL) -m pip install $(PIP_ARGS) -r requirements-label.txt
	rm -f .venv-label/.installed-*
	touch $(LABEL_STAMP)

test-label: $(STAMP) $(LABEL_STAMP)
	OMP_NUM_THREADS=1 $(PY) -m pytest tests/label -m label $(ARGS)

# make mutants N=50 SEED=0: small faults drawn by chance, and whether the tests notice them; AT=common/card.py:31 for a line
N ?= 50
SEED ?= 0
mutants: $(STAMP)
	$(PY) -m tests.mutants $(N) $(SEED) $(AT)

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

type: $(STAMP)
	$(PY) -m mypy

format: $(STAMP)
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

clean:
	rm -rf runs data/phantom data/phantom_general data/phantom_2d .pytest_cache .mypy_cache .ruff_cache
