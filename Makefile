# SPDX-License-Identifier: GPL-2.0-or-later
# Everything runs on the distribution's interpreter: bcc (python3-bpfcc) exists
# for that one only. Two stamps make the second run cheap: the Debian packages
# by what dpkg knows, the venv by pyproject.toml.

PYTHON  := /usr/bin/python3
VENV    := .venv
ARCH    := $(shell dpkg --print-architecture)
DEBS    := python3 python3-venv python3-bpfcc libbpf1 linux-headers-$(ARCH) \
           iproute2 iputils-ping iperf3 ethtool tcpdump clang-format
SYSTEM  := $(VENV)/.system
READY   := $(VENV)/.ready

.PHONY: setup demo test test-unit lint types clean

setup: $(READY)

$(SYSTEM): Makefile
	@mkdir -p $(VENV)
	@missing=; for p in $(DEBS); do \
	  dpkg-query -W -f '$${Status}\n' $$p 2>/dev/null | grep -q ' installed$$' \
	    || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing$$missing"; \
	  apt-get -qq -o DPkg::Lock::Timeout=300 update && \
	  DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
	    -o DPkg::Lock::Timeout=300 install $$missing >/dev/null; fi
	@touch $@

$(READY): $(SYSTEM) pyproject.toml
	@$(PYTHON) -m venv --system-site-packages $(VENV)
	@$(VENV)/bin/python -m pip install -q --upgrade 'pip>=25.1'
	@$(VENV)/bin/python -m pip install -q --editable . --group dev
	@touch $@

demo: setup
	@$(VENV)/bin/pyfailover demo

test: setup
	@$(VENV)/bin/python -m pytest --require-root

test-unit: setup
	@$(VENV)/bin/python -m pytest tests/unit

lint: setup
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@clang-format --dry-run --Werror bpf/*.c bpf/*.h

types: setup
	@$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
