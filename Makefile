# make run    set up what is missing and run the whole DAG with the values of params.yaml
# make test   set up and run all tests
# make pull   set up and fetch the released artifacts of the default run instead of making them
# make release  the maintainers' way to renew those artifacts
# make engines  set up vLLM for CPUs in an environment of its own (x86-64 Linux); the engine vllm finds it there
# make images   build the container images that are missing (KINDS="data", VARIANT=cuda, OFFLINE=1: docs/hpc.md)
# make lint   all static checks          make lock   resolve the environment anew          make clean   remove environments and scratch

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
VLLM := .venv-vllm
export PATH := $(CURDIR)/$(BIN):$(PATH)

# pip knows of local folders of wheels, uv has to be told; without one, the CPU build of torch is taken unless there is a GPU.
FIND_LINKS := $(or $(PIP_FIND_LINKS),$(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null))
torch_from = $(if $(FIND_LINKS),$(addprefix --find-links ,$(FIND_LINKS)),--torch-backend $(1))
TORCH := $(call torch_from,$(if $(shell command -v nvidia-smi),auto,cpu))

.PHONY: run test pull release setup engines images lint lock image-locks clean
.DEFAULT_GOAL := run

run: setup
	snakemake --quiet host reason rules

pull: setup
	dvc pull

test: setup engines
	python -m pytest

setup: $(READY)

$(READY): envs/local.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else f"make: Python {sys.version.split()[0]}; expected 3.11. Hint: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check "uv>=0.9,<1"
	$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python $(TORCH) -r envs/local.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	touch $@

# vLLM has wheels for CPUs on this kind of machine alone; elsewhere its tests are skipped with that reason.
engines: setup $(if $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m)),$(VLLM)/.ready)

# Without dependencies: the lock has all that is needed, and vLLM asks for more (envs/vllm-overrides.txt).
$(VLLM)/.ready: envs/vllm.lock | $(READY)
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv --without-pip $(VLLM)
	$(BIN)/uv pip install -q --compile-bytecode --python $(VLLM)/bin/python --no-deps $(call torch_from,cpu) -r envs/vllm.lock
	$(BIN)/uv pip install -q --python $(VLLM)/bin/python --no-deps -e .
	touch $@

# Make the default run anew and put its artifacts into the store that `make pull` reads; commit the result.
release: setup
	snakemake --quiet host reason rules
	star1 plan
	dvc push
	dvc gc --workspace --cloud --force

images: setup
	star1 images build $(KINDS) $(if $(VARIANT),--variant $(VARIANT)) $(if $(filter 1,$(OFFLINE)),--offline)

lint: setup
	ruff check
	ruff format --check
	mypy
	snakefmt --check Snakefile rules
	snakemake --lint
	star1 dvc-yaml --check
	star1 images conda --check

lock:
	rm -f envs/local.lock
	$(BIN)/uv pip compile -q --python-version 3.11 $(TORCH) --no-emit-find-links --extra models --extra cluster --extra deepspeed --extra inspect --extra dev pyproject.toml \
	    --custom-compile-command "make lock" -o envs/local.lock
	rm -f envs/vllm.lock
	$(BIN)/uv pip compile -q --python-version 3.11 $(call torch_from,cpu) --no-emit-find-links --generate-hashes --override envs/vllm-overrides.txt envs/vllm.in \
	    --custom-compile-command "make lock" -o envs/vllm.lock
	sed -i 's/^torch==\([0-9.]*\)+cpu/torch==\1/' envs/local.lock

# Of the container images and conda environments: the versions of local.lock, with the hash of every file.
image-locks: LOCK := $(BIN)/uv pip compile -q --python-version 3.11 --python-platform x86_64-manylinux_2_36 --generate-hashes --only-binary :all: \
    --no-binary deepspeed --no-binary antlr4-python3-runtime --no-annotate \
    --no-emit-find-links --custom-compile-command "make image-locks"
image-locks:
	rm -f envs/installer.lock envs/data.lock envs/finetune.lock envs/finetune-cuda.lock envs/vllm-cuda.lock
	$(LOCK) -c envs/local.lock envs/installer.in -o envs/installer.lock
	$(LOCK) -c envs/local.lock --override envs/data-overrides.txt envs/data.in -o envs/data.lock
	$(LOCK) $(call torch_from,cpu) -c envs/local.lock envs/finetune.in -o envs/finetune.lock
	$(LOCK) -c envs/local.lock envs/finetune.in -o envs/finetune-cuda.lock
	$(LOCK) envs/vllm-cuda.in -o envs/vllm-cuda.lock
	star1 images conda

clean:
	rm -rf $(VENV) $(VLLM) .work .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
