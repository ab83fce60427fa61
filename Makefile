# SPDX-License-Identifier: GPL-2.0-or-later
# Everything runs on the distribution's interpreter: bcc (python3-bpfcc) exists
# for that one only. Two stamps make the second run cheap: the Debian packages
# by what dpkg knows, the venv by pyproject.toml.

PYTHON  := /usr/bin/python3
VENV    := .venv
ARCH    := $(shell dpkg --print-architecture)
DEBS    := python3 python3-venv python3-bpfcc libbpf1 linux-headers-$(ARCH) \
           iproute2 iputils-ping iperf3 ethtool tcpdump clang-format
# What only the tests need. Servers are not installed, only unpacked: they are not
# to run on the machine of whoever tests.
TEST_DEBS  := buildah conmon debootstrap groff-base openssl podman runc
UNPACKED   := prometheus prometheus-alertmanager
SYSTEM  := $(VENV)/.system
TESTING := $(VENV)/.testing
TOOLS   := $(VENV)/tools
READY   := $(VENV)/.ready

.PHONY: setup demo test test-unit lint types dashboard-picture clean

setup: $(READY)

APT := DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300

# $(call install,PACKAGES): those that are not there yet.
define install
	@mkdir -p $(VENV)
	@missing=; for p in $(1); do \
	  dpkg-query -W -f '$${Status}\n' $$p 2>/dev/null | grep -q ' installed$$' \
	    || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing$$missing"; \
	  $(APT) update && \
	  $(APT) -y --no-install-recommends install $$missing >/dev/null; fi
endef

$(SYSTEM): Makefile
	$(call install,$(DEBS))
	@touch $@

$(TESTING): $(READY)
	$(call install,$(TEST_DEBS))
	@mkdir -p $(TOOLS)/debs
	@missing=; for p in $(UNPACKED); do \
	  ls $(TOOLS)/debs/$${p}_*.deb >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "unpacking$$missing"; \
	  $(APT) update && (cd $(TOOLS)/debs && $(APT) download $$missing) && \
	  for p in $$missing; do dpkg -x $(TOOLS)/debs/$${p}_*.deb $(TOOLS); done; fi
	@touch $@

$(READY): $(SYSTEM) pyproject.toml
	@$(PYTHON) -m venv --system-site-packages $(VENV)
	@$(VENV)/bin/python -m pip install -q --upgrade 'pip>=25.1'
	@$(VENV)/bin/python -m pip install -q --editable . --group dev
	@touch $@

demo: setup
	@$(VENV)/bin/pyfailover demo

test: $(TESTING)
	@$(VENV)/bin/python -m pytest --require-root

test-unit: setup
	@$(VENV)/bin/python -m pytest tests/unit

lint: setup
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@clang-format --dry-run --Werror bpf/*.c bpf/*.h

types: setup
	@$(VENV)/bin/mypy

# By hand only: wants npm and chromium, and takes about ten minutes.
PICTURE := build/dashboard
dashboard-picture: $(TESTING)
	$(call install,npm chromium fonts-dejavu-core)
	@mkdir -p $(PICTURE)
	@cp -r tools/dashboard/. $(PICTURE)
	@cd $(PICTURE) && npm install --ignore-scripts --no-audit --no-fund && npx vite build
	@$(VENV)/bin/python -m tools.dashboard.picture $(PICTURE) docs/dashboard.png

clean:
	rm -rf $(VENV) dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
