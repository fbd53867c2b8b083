# Two commands for a newcomer: `make demo` and `make test`. Both set everything up in .venv first.

PYTHON ?= python3
BIN := .venv/bin
# Keep bytecode, also where the environment says not to: the tests start many processes.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test quick-tests test-all docs chaos lint clean

demo: .venv/ready
	$(BIN)/jepa demo --out demo

test: .venv/ready
	$(MAKE) --jobs 2 lint quick-tests  # the checks run beside the tests, in the time that those wait

quick-tests: .venv/ready
	$(BIN)/python -m pytest -n 2 -m "not slow" --durations 20 --durations-min 2

test-all: lint .venv/references
	$(BIN)/python -m pytest -n 2

docs: .venv/ready
	$(BIN)/python -m scripts.write_reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

.venv/references: .venv/ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt librosa
	touch .venv/references

chaos: .venv/ready
	$(BIN)/python benchmarks/chaos.py --minutes 30 --ranks 2

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,hf,onnx,parquet,search,show,explore,slurm,tiff,heif,video,audio,control,docs]'
	touch .venv/ready

clean:
	rm -rf .venv demo site
