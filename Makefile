# The commands of this project; `make help` lists them. Everything is installed into .venv/ and .cache/.
PYTHON ?= $(or $(shell command -v python3.11),$(shell command -v python3),python3.11)
UV := 0.13.8
BIN := .venv/bin
# Into .venv/, whatever other environment is active.
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python
PACKAGES := api operator trainer

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-trainings test-others test-quick lint types chaos bench docs generate lock clean

help: ## Lists the commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: .venv/dev ## Installs everything a developer needs into .venv/

.venv/bin/uv:
	@$(PYTHON) --version >/dev/null 2>&1 || { echo "error: $(PYTHON) is missing; install Python 3.11 (Debian: apt-get install python3.11 python3.11-venv), or run make PYTHON=<your Python 3.11 or newer>"; exit 69; }
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV)

.venv/trainer: requirements/demo.txt pyproject.toml | .venv/bin/uv
	@echo "installing the trainer into .venv/ (once)"
	@$(INSTALL) --require-hashes -r requirements/demo.txt
	@$(INSTALL) --no-deps --editable .
	@$(BIN)/python -m ocr_finetune_trainer.setup_check
	@touch $@

.venv/dev: requirements/dev.txt pyproject.toml | .venv/bin/uv
	@echo "installing all tools into .venv/ (once)"
	@$(INSTALL) --require-hashes -r requirements/dev.txt
	@$(INSTALL) --no-deps --editable .
	@$(BIN)/python -m ocr_finetune_trainer.setup_check
	@touch $@ .venv/trainer

examples/digits/data/samples.csv: examples/digits/make_dataset.py | .venv/trainer
	@$(BIN)/python examples/digits/make_dataset.py

demo: .venv/trainer examples/digits/data/samples.csv ## Trains, proves and exports a model of real handwriting on this machine's CPU
	@$(BIN)/ocrft run examples/digits/finetune.yaml --workspace examples/digits/workspace

test: .venv/dev lint types docs ## Lint, types and all tests but the whole cluster's
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target test-trainings test-others

# Two halves of about the same length, one for each core.
test-trainings: .venv/dev
	@$(BIN)/python -m pytest tests/training tests/local

test-others: .venv/dev
	@$(BIN)/python -m pytest --ignore=tests/training --ignore=tests/local

test-quick: .venv/dev ## Tests that need neither training nor a control plane
	@$(BIN)/python -m pytest tests/unit

chaos: .venv/dev ## Kills, stops and starves trainings a thousand times; takes an hour
	@$(BIN)/python tests/training/chaos.py --count 1000

bench: .venv/dev ## Prints every figure that needs no other project's checkout; takes an hour and a half
	@for file in demo data models detection training export teds time_to_accuracy; do echo "== $$file"; $(BIN)/python -W ignore benchmarks/$$file.py || exit; done

lint: .venv/dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: .venv/dev
	@$(BIN)/mypy $(PACKAGES)

docs: .venv/dev ## Builds the documents into site/; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

generate: .venv/dev ## Makes the generated files again: the CRD and its copies
	@$(BIN)/python -m ocr_finetune_api.crd > crds/ocrfinetune.dev_ocrfinetunes.yaml
	@$(BIN)/python -m ocr_finetune_operator.reference docs

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml
lock: .venv/bin/uv ## Locks the newest versions that pyproject.toml allows
	@$(LOCK) --extra operator -o requirements/operator.txt
	@$(LOCK) --extra trainer --extra storage -o requirements/trainer.txt
	@$(LOCK) --extra trainer --extra demo -o requirements/demo.txt
	@$(LOCK) --extra operator --extra trainer --extra storage --extra demo --group dev -o requirements/dev.txt

clean: ## Removes what these commands made, but for .cache/
	rm -rf .venv build dist *.egg-info examples/digits/data examples/digits/workspace

-include *.mk
