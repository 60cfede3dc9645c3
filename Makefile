# Two promises: `make demo` plays the whole journey, `make test` passes the tests.
# Each does all its own set-up in .venv, and installs or names what it needs from Debian.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ENGINE ?= vllm

# Debian packages: the demo's engines need libgomp1 and libnuma1; the tests also read bundles with
# skopeo, set clocks back with faketime and look at system calls with strace.
DEMO_PACKAGES := libgomp1 libnuma1
TEST_PACKAGES := libgomp1 libnuma1 skopeo xfsprogs faketime strace shellcheck mmdebstrap podman runc docker-registry chromium
# The stick of the virtual machine.
LONG_PACKAGES := $(TEST_PACKAGES) mtools dosfstools e2fsprogs
BENCH_PACKAGES := $(TEST_PACKAGES) aria2 curl

.PHONY: demo test test-long bench lint schemas vectors clean help

help:
	@echo "make demo    the whole journey on this machine, with a real small model on vLLM"
	@echo "             (make demo ENGINE=llama.cpp: the small one)"
	@echo "make test    lint, types, and every test"
	@echo "make test-long  vLLM and LiteLLM under systemd, from the kit to the removal; images; a"
	@echo "                virtual machine that loses its power"
	@echo "make bench   verify, import, fetch and bring-up against what one would use instead"
	@echo "make clean   remove .venv, .sealift and caches"

# By a plain path: the other kind of editable install runs a finder in every process.
EDITABLE := --config-settings editable_mode=compat -e

$(VENV)/.demo: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	  sys.exit(0 if (3, 11) <= v <= (3, 12) else "the connected side needs Python 3.11 or 3.12 (modelscan); this is %d.%d. Try: make PYTHON=python3.11" % v)'
	@$(PYTHON) -c 'import venv, ensurepip' || { echo "this Python has no venv: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(EDITABLE) '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(EDITABLE) '.[dev]'
	@touch $@

# $(call debian,PACKAGES): install what is missing as root on Debian, else say the one line.
define debian
	@missing=; for p in $(1); do \
	  dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; \
	done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing from Debian:$$missing"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	  else \
	    echo "please run: sudo apt-get install$$missing"; exit 1; \
	  fi; \
	fi
endef

demo: $(VENV)/.demo
	$(call debian,$(DEMO_PACKAGES))
	$(BIN)/sealift demo --engine $(ENGINE)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(call debian,$(TEST_PACKAGES))
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadgroup --no-loadscope-reorder

test-long: $(VENV)/.dev
	$(call debian,$(LONG_PACKAGES))
	SEALIFT_TEST_LONG=1 $(BIN)/python -m pytest -s tests/e2e/test_gateway_image.py tests/e2e/test_image_systemd.py \
	  tests/e2e/test_vllm_systemd.py
	SEALIFT_TEST_LONG=1 $(BIN)/python -m pytest -s tests/e2e/test_vllm_image.py tests/e2e/test_vllm_standins.py \
	  -k "test_vllm_image or two_ranks or quantised or qwen3 or mistral"
	SEALIFT_TEST_LONG=1 $(BIN)/python -m pytest -s tests/e2e/test_vm.py

bench: $(VENV)/.dev
	$(call debian,$(BENCH_PACKAGES))
	$(BIN)/python -m tests.bench.bench
	$(BIN)/python -m tests.bench.fetch
	$(BIN)/python -m tests.bench.bringup

schemas: $(VENV)/.dev
	$(BIN)/python -m bundler.format_schemas

vectors: $(VENV)/.dev
	$(BIN)/python -m tests.vectors.generate

clean:
	rm -rf $(VENV) .sealift build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
