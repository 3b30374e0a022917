# Everything a developer does here; "make help" lists it. Installation is in install.mk.

CARGO ?= cargo
# What the programs are built with (Rust itself: see rust-version in Cargo.toml).
BUILD_PACKAGES := build-essential pkg-config libudev-dev libvirglrenderer-dev libclang-dev
# What the demo and the tests run with.
TEST_PACKAGES := systemd dbus umockdev gir1.2-umockdev-1.0 python3-gi cpio xz-utils kmod util-linux \
	libvirglrenderer1 libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri libgles2 kmscube
PACKAGES := $(BUILD_PACKAGES) $(TEST_PACKAGES)
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.DEFAULT_GOAL := all
.PHONY: all deps demo check tools fmt lint deny test clean help

all:
	$(CARGO) build --release --workspace

# The private systemd of the demo and the tests needs root; cargo runs as who calls make.
demo: deps all
	$(SUDO) "$$($(CARGO) metadata --no-deps --format-version 1 --offline | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/demo"

deps:
	@missing=; for package in $(PACKAGES); do \
		dpkg-query -W -f '$${db:Status-Status}' "$$package" 2>/dev/null | grep -qx installed \
			|| missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ]; then \
		echo "Installing Debian packages:$$missing"; \
		export DEBIAN_FRONTEND=noninteractive; \
		install="$(SUDO) apt-get install --yes -qq --no-install-recommends -o DPkg::Lock::Timeout=300"; \
		$$install $$missing >build-deps.log 2>&1 \
			|| { $(SUDO) apt-get update -qq >build-deps.log 2>&1 && $$install $$missing >>build-deps.log 2>&1; } \
			|| { cat build-deps.log; rm -f build-deps.log; exit 1; }; \
		rm -f build-deps.log; \
	fi; \
	command -v $(CARGO) >/dev/null || { echo "Rust is missing: see https://rustup.rs" >&2; exit 1; }

check: deps tools fmt lint deny test

# Tools of the checks, built only where they are missing.
tools:
	@for tool in cargo-nextest cargo-deny; do \
		command -v "$$tool" >/dev/null && continue; \
		echo "Installing $$tool (cargo install --locked; takes some minutes)"; \
		$(CARGO) install --locked --quiet "$$tool"; \
	done

fmt:
	$(CARGO) fmt --all --check

lint:
	$(CARGO) clippy --workspace --all-targets -- -D warnings

deny:
	$(CARGO) fetch --locked --quiet
	$(CARGO) deny --offline --log-level error check bans licenses sources

# The programs first: tests run what lies in the target folder. What this machine lacks for
# the tests of whole systems is named, and these tests count as skipped.
test:
	$(CARGO) build --workspace --all-targets
	filter=$$($(CARGO) run --quiet -p harness --bin runnable) && \
	$(CARGO) nextest run --workspace --filterset "$$filter"

clean:
	$(CARGO) clean
	rm -rf build demo.png

help:
	@echo "make            build the programs (target/release)"
	@echo "make demo       show them at work on a small Linux guest; saves demo.png"
	@echo "make check      format, lints, licenses and all tests"
	@echo "make deps       install the Debian packages needed for demo and check"
	@echo "make install    install programs, units and descriptors (PREFIX, DESTDIR)"
	@echo "make uninstall  remove them"
	@echo "make clean      remove what was built or fetched"

-include install.mk
