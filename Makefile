# Threads of a training that wait give the core away instead of spinning: on a shared machine the difference is tenfold.
export OMP_WAIT_POLICY ?= passive
# `make help` lists what there is to do. Only Python 3.11 to 3.13, venv and make are expected on the machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(CURDIR)/$(VENV)/bin
INSTALLED := $(VENV)/.installed
RUN := PATH="$(BIN):$$PATH"
.DEFAULT_GOAL := help
.PHONY: help env train models test lint export notebooks tests wheel lab sample benchmarks docs site docs-serve docs-pictures clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | while IFS="$$(printf '\t')" read -r t d; do printf '  make %-13s %s\n' "$$t" "$$d"; done

$(INSTALLED): settings.ini setup.py constraints.txt nbs/_lab/ipython_kernel_config.py
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("Python 3.11 to 3.13 is needed, this is %d.%d; name one: make PYTHON=python3.12 ..." % v)'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip setuptools wheel
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev,docs]'
	$(BIN)/python -m pip check
	@mkdir -p $(VENV)/etc/ipython && cp nbs/_lab/ipython_kernel_config.py $(VENV)/etc/ipython/
	@touch $@

env: $(INSTALLED)  ## make the environment in .venv, with the pinned versions

train: $(INSTALLED)  ## train the alert ranker on data/sample: out.ipynb, runs/
	$(RUN) papermill nbs/02_train_ranker.ipynb out.ipynb -p cv_folds 5

models: $(INSTALLED)  ## make trained_models/ anew from data/sample: models, reports, cards
	$(BIN)/python tests/make_models.py

test: lint export notebooks site tests wheel  ## every check that CI makes; browser tests need a Chromium

lint: $(INSTALLED)  ## ruff
	$(BIN)/ruff check .

export: $(INSTALLED)  ## notebooks clean and without outputs, package in step with them
	$(BIN)/python tests/check_export.py

notebooks: $(INSTALLED)  ## nbdev_test: the tests inside the notebooks, but for the numbered ones
	$(RUN) $(BIN)/python tests/check_notebooks.py

tests: $(INSTALLED)  ## pytest: what a notebook cannot see
	$(RUN) $(BIN)/python -m pytest

wheel: $(INSTALLED)  ## build the wheel, install it elsewhere, import it without nbdev
	$(BIN)/python tests/check_wheel.py

lab: $(INSTALLED)  ## open JupyterLab at a page that links to the notebooks
	$(BIN)/python -m aml_miner.utils.start_page --output runs/start.md
	$(RUN) JUPYTER_CONFIG_PATH="$(CURDIR)/nbs/_lab" jupyter lab --LabApp.default_url=/lab/tree/runs/start.md

sample: $(INSTALLED)  ## make data/sample anew, the same bytes
	$(BIN)/python -m aml_miner.datasets.simulator --output data/sample

benchmarks: $(INSTALLED)  ## print the tables of benchmarks/
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

docs: $(INSTALLED)  ## build the site: build/docs/html; what has not changed is not run again
	$(RUN) $(BIN)/python nbs/_docs/build.py

site: $(INSTALLED)  ## the site, for which the numbered notebooks are run with their tests
	$(RUN) $(BIN)/python nbs/_docs/build.py --tests

docs-serve: $(INSTALLED)  ## build the site and show it at http://127.0.0.1:8000
	$(RUN) $(BIN)/python nbs/_docs/build.py --serve

docs-pictures: docs  ## a picture of each page at desktop and phone width, light and dark: build/docs/pictures
	$(RUN) $(BIN)/python nbs/_docs/pictures.py

clean:  ## remove what can be made again, the environment too
	rm -rf $(VENV) .venv-* build dist runs out.ipynb *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
