# One command each, inside an environment made with: pip install -e ".[test,lint]"
# `make bench ARGS="--full"`, `make bench ARGS="--stage trace"`, `make figures ARGS=--check`.
PYTHON ?= python
CPP = csrc/*/*.?pp csrc/*/*.cu* tests/cuda_emulation/*.?pp tests/threads/*.cpp fuzz/*.?pp

.PHONY: build test test-fast lint lint-examples workflows format sanitize sanitize-threads coverage tidy wheel bench figures docs

build:
	$(PYTHON) -m pip install -e ".[test,lint]"

test:
	$(PYTHON) -m pytest

test-fast:
	$(PYTHON) -m pytest -m "not peers"

lint:
	ruff check .
	ruff format --check .
	mypy
	clang-format --dry-run --Werror $(CPP)

lint-examples:
	mypy examples/*.py examples/scale/*.py examples/hf_evaluate/*.py

# The workflows by the schema of GitHub's, and by actionlint where there is one.
workflows:
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	if command -v actionlint; then actionlint; else echo "no actionlint on the PATH: only the schema was checked"; fi

format:
	ruff check --fix .
	ruff format .
	clang-format -i $(CPP)

sanitize:
	bash tools/sanitize.sh

sanitize-threads:
	bash tools/sanitize_threads.sh

# Lines and branches that the tests run, in Python and C++; needs clang.
coverage:
	bash tools/with_extra.sh coverage bash tools/coverage.sh $(ARGS)

tidy:
	bash tools/tidy.sh

wheel:
	bash tools/wheel.sh $(ARGS)

bench:
	$(PYTHON) -m benchmarks $(ARGS)

# Puts the committed results into README and docs, and draws the plots. `make figures ARGS=--check` compares only.
figures:
	$(PYTHON) -m benchmarks.figures $(ARGS)

# Needs the extra "docs". A broken link, or a name without a docstring, is an error.
docs:
	$(PYTHON) -m sphinx --fail-on-warning --keep-going --fresh-env -q -c tools/site docs build/docs
