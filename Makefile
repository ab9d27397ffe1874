# `make bench ARGS="--full"`, `make bench ARGS="--stage trace"`; `make figures ARGS=--check`.
PYTHON ?= python

.PHONY: bench figures
bench:
	$(PYTHON) -m benchmarks $(ARGS)

# Puts the committed results into README and docs, and draws the plots.
figures:
	$(PYTHON) -m benchmarks.figures $(ARGS)
