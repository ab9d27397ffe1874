# One command each; `make bench ARGS="--full"`, `make bench ARGS="--stage trace"`.
PYTHON ?= python

.PHONY: bench
bench:
	$(PYTHON) -m benchmarks $(ARGS)
