# Threads of a training that wait give the core away instead of spinning: on a shared machine the difference is tenfold.
export OMP_WAIT_POLICY ?= passive
# EVERY=1: all cases of the long lists of the tests, not some of them. Before a release.
export AML_MINER_EVERY := $(EVERY)
# `make help` lists what there is to do. Only Python 3.11 to 3.13, venv and make are expected on the machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(CURDIR)/$(VENV)/bin
INSTALLED := $(VENV)/.installed
KERNELS := $(VENV)/etc/ipython/ipython_kernel_config.py
RUN := PATH="$(BIN):$$PATH"
# What is checked sees none of the user's own settings, and needs no home that can be written. Python keeps what it has compiled: hundreds of processes start.
THEIRS := XDG_CONFIG_HOME XDG_CACHE_HOME XDG_DATA_HOME XDG_STATE_HOME XDG_RUNTIME_DIR IPYTHONDIR JUPYTER_CONFIG_DIR JUPYTER_CONFIG_PATH JUPYTER_DATA_DIR JUPYTER_PATH JUPYTER_RUNTIME_DIR \
	MPLCONFIGDIR MATPLOTLIBRC PYTHONPATH PYTHONDONTWRITEBYTECODE AML_MINER_CACHE
settled = mkdir -p build/home && env $(THEIRS:%=-u %) HOME="$(CURDIR)/build/home" $(RUN)
alone = @echo '$(1)'; $(settled) $(1)
# The same, with every process that it starts measured by coverage.py into a folder, which each begins by itself where these variables are set.
counted = @echo '$(2)'; rm -rf build/coverage/$(1) && mkdir -p build/coverage/$(1) && export COVERAGE_PROCESS_START="$(CURDIR)/.coveragerc" COVERAGE_FILE="$(CURDIR)/build/coverage/$(1)/lines" && $(settled) $(2)
.DEFAULT_GOAL := help
.PHONY: help env train models test lint export notebooks tests wheel locks lab sample benchmarks docs site docs-serve docs-pictures coverage clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | while IFS="$$(printf '\t')" read -r t d; do printf '  make %-13s %s\n' "$$t" "$$d"; done

$(INSTALLED): settings.ini setup.py constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("Python 3.11 to 3.13 is needed, this is %d.%d; name one: make PYTHON=python3.12 ..." % v)'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check
	@touch $@

$(KERNELS): nbs/_lab/ipython_kernel_config.py $(INSTALLED)
	@mkdir -p $(@D) && cp $< $@

env: $(KERNELS)  ## make the environment in .venv, with the pinned versions

train: $(KERNELS)  ## train the alert ranker on data/sample: out.ipynb, runs/
	$(RUN) papermill nbs/02_train_ranker.ipynb out.ipynb -p cv_folds 5

models: $(INSTALLED)  ## make trained_models/ anew from data/sample: models, reports, cards
	$(BIN)/python tests/make_models.py

test: $(KERNELS)  ## every check that CI makes, two steps at a time: where one leaves a core idle, the other has it; browser tests need a Chromium
	@$(MAKE) --no-print-directory -j2 ALL=1 lint site tests export wheel notebooks
ifdef ALL
site: | notebooks
tests: | site
endif

lint: $(INSTALLED)  ## ruff, of notebooks the length of lines alone; mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

export: $(INSTALLED)  ## notebooks clean and without outputs, package in step with them
	$(call alone,python tests/check_export.py)

notebooks: $(INSTALLED)  ## nbdev_test: the tests inside the notebooks, but for the numbered ones
	$(call alone,python tests/check_notebooks.py)

tests: $(KERNELS)  ## pytest: what a notebook cannot see
	$(call alone,python -m pytest --durations=40)

coverage: $(KERNELS)  ## pytest and the notebooks once more, counted: what they reach of the package, by room, and which lines they miss
	$(call counted,notebooks,python tests/check_notebooks.py)
	$(call counted,tests,python -m pytest)
	$(call alone,python tests/coverage_table.py --lines)

wheel: $(INSTALLED)  ## build the wheel, install it elsewhere, import it without nbdev
	$(call alone,python tests/check_wheel.py)

locks: $(INSTALLED)  ## pin anew what settings.ini asks for, with hashes: constraints.txt, docker/requirements.txt, docker/sbom.cdx.json
	$(BIN)/python tests/make_locks.py

lab: $(KERNELS)  ## open JupyterLab at a page that links to the notebooks
	$(BIN)/python -m aml_miner.utils.start_page --output runs/start.md
	$(RUN) JUPYTER_CONFIG_PATH="$(CURDIR)/nbs/_lab" jupyter lab --LabApp.default_url=/lab/tree/runs/start.md

sample: $(INSTALLED)  ## make data/sample anew, the same bytes
	$(BIN)/python -m aml_miner.simulation.simulator --output data/sample

benchmarks: $(INSTALLED)  ## print the tables of benchmarks/
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

docs: $(INSTALLED)  ## build the site: build/docs/html; what has not changed is not run again
	$(call alone,python nbs/_docs/build.py)

site: $(INSTALLED)  ## the site, for which the numbered notebooks are run
	$(call alone,python nbs/_docs/build.py)

docs-serve: $(INSTALLED)  ## build the site and show it at http://127.0.0.1:8000
	$(call alone,python nbs/_docs/build.py --serve)

docs-pictures: docs  ## a picture of each page at desktop and phone width, light and dark: build/docs/pictures
	$(call alone,python nbs/_docs/pictures.py)

clean:  ## remove what can be made again, the environment too
	rm -rf $(VENV) .venv-* build dist runs out.ipynb *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
