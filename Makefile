# Targets for developers: see "make help". Installation is in install.mk.

CARGO ?= cargo
RUST_VERSION := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
# Packages needed to build the programs, besides Rust.
BUILD_PACKAGES := build-essential pkg-config libudev-dev libvirglrenderer-dev libclang-dev
# Packages needed to run the demo and the tests.
TEST_PACKAGES := systemd libnss-systemd udev dbus polkitd umockdev libxkbcommon0 xkb-data gir1.2-umockdev-1.0 python3-gi cpio xz-utils zstd kmod util-linux \
	libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients procps qemu-utils libseccomp2 libcap-ng0 \
	libvirglrenderer1 libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri libgles2 kmscube \
	xvfb xdotool tigervnc-viewer python3 python3-pip \
	man-db zsh fish
PACKAGES := $(BUILD_PACKAGES) $(TEST_PACKAGES)
# Libraries of QEMU's vhost-user-gpu, and perf to count system calls.
BENCH_PACKAGES := libepoxy0 libgbm1 libpixman-1-0 libvirglrenderer1 linux-perf
# The rust-vmm program to compare with.
BENCH_CRATE := vhost-device-input@0.1.0
# The rust-vmm program that a guest uses in the tests.
TEST_CRATE := vhost-device-rng@0.1.0
# Tools of the checks, in versions that the minimum supported Rust can build.
TOOLS := cargo-nextest@0.9.114 cargo-deny@0.20.2 cargo-fuzz@0.13.2
# Seconds per fuzz target, the seed (fixed, so that a check does not fail by chance; 0 picks a new one each
# time) and the sanitizer ("address" needs a nightly Rust).
FUZZ_SECONDS ?= 5
FUZZ_SEED ?= 1
FUZZ_SANITIZER ?= none
FUZZ_TARGETS := $(notdir $(basename $(wildcard fuzz/fuzz_targets/*.rs)))
# The Debian release that check-debian uses, the packages that create its root, and the tests that depend on it.
DISTRO ?= trixie
ROOT_PACKAGES := debootstrap debian-archive-keyring
DISTRO_TESTS ?= binary(=systemd) | binary(=vms) | (binary(=devices) & test(/^sandbox::/)) \
	| (binary(=process) & test(/^virgl::/)) | package(harness)
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

# Shell command that prints the target directory of Cargo.
TARGET_DIR = $(CARGO) metadata --no-deps --format-version 1 --offline | sed 's/.*"target_directory":"\([^"]*\)".*/\1/'

.DEFAULT_GOAL := all
.PHONY: all deps demo check tools peers fmt lint doc deny test fuzz demo-debian check-debian bench clean help

# Builds all but the benchmarks, so that the demo and the installation share one build.
all:
	$(CARGO) build --release --workspace --exclude bench --exclude bench-evdev

# KEEP=1 leaves the VM up until Enter is pressed. The private systemd needs root. Cargo runs as the calling user,
# who also owns the files that the demo leaves.
demo: deps all
	@demo="$$($(TARGET_DIR))/release/demo"; \
	status=0; $(SUDO) "$$demo" $(if $(KEEP),--keep) || status=$$?; \
	[ -z "$(SUDO)" ] || for made in build demo.png; do \
		[ ! -e "$$made" ] || $(SUDO) chown -R --reference=Makefile "$$made"; \
	done; \
	exit $$status

deps:
	@command -v apt-get >/dev/null || { \
		echo "No apt-get: the demo and the checks need Debian. \"make\" and \"make test\" use what is installed." >&2; \
		exit 1; \
	}; \
	missing=; for package in $(PACKAGES); do \
		dpkg-query -W -f '$${db:Status-Status}' "$$package" 2>/dev/null | grep -qx installed \
			|| missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ]; then \
		echo "Installing Debian packages:$$missing"; \
		install="$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install --yes -qq --no-install-recommends -o DPkg::Lock::Timeout=300"; \
		$$install $$missing >build-deps.log 2>&1 \
			|| { $(SUDO) apt-get update -qq >build-deps.log 2>&1 && $$install $$missing >>build-deps.log 2>&1; } \
			|| { cat build-deps.log; rm -f build-deps.log; exit 1; }; \
		rm -f build-deps.log; \
	fi; \
	has=$$($(CARGO) --version 2>/dev/null | cut -d' ' -f2); \
	[ "$$(printf '%s\n' "$(RUST_VERSION)" "$${has:-0}" | sort -V | head -n 1)" = "$(RUST_VERSION)" ] || { \
		echo "Rust $(RUST_VERSION) or newer is needed, $(CARGO) is $${has:-missing}: see https://rustup.rs" >&2; exit 1; \
	}

check: deps tools peers fmt lint doc deny test fuzz

# Installs the tools that are missing.
tools:
	@set -e; for tool in $(TOOLS); do \
		if command -v "$${tool%@*}" >/dev/null; then continue; fi; \
		echo "Installing $$tool (cargo install --locked; takes some minutes)"; \
		$(CARGO) install --locked --quiet "$$tool"; \
	done

# Programs of other projects that Debian does not package. If one cannot be had, its test is skipped and named.
peers:
	@test -x "$(CARGO_TARGET)/peers/bin/vhost-device-rng" || { \
		echo "Building $(TEST_CRATE) (cargo install --locked; takes some minutes)"; \
		$(CARGO) install --locked --quiet --root "$(CARGO_TARGET)/peers" $(TEST_CRATE) || true; \
	}
	@test -e "$(CARGO_TARGET)/peers/python/vncdotool" || { \
		echo "Fetching the Python clients of crates/harness/python.txt"; \
		/usr/bin/python3 -m pip install --quiet --no-deps --require-hashes --only-binary :all: --no-warn-script-location \
			--target "$(CARGO_TARGET)/peers/python" -r crates/harness/python.txt || true; \
	}

fmt:
	$(CARGO) fmt --all --check
	$(CARGO) fmt --all --check --manifest-path fuzz/Cargo.toml

lint:
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --features fuzzing -- -D warnings
	$(CARGO) clippy --manifest-path fuzz/Cargo.toml --target-dir target --all-targets -- -D warnings

# Documents all items, private ones too, in target/doc.
doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items

deny:
	$(CARGO) fetch --locked --quiet
	$(CARGO) deny --offline --log-level error check bans licenses sources
	$(CARGO) fetch --locked --quiet --manifest-path fuzz/Cargo.toml
	$(CARGO) deny --offline --log-level error --manifest-path fuzz/Cargo.toml --config deny.toml check bans licenses sources

# Builds the programs first: tests run them from the target directory. Names what this machine lacks and
# skips the tests that need it.
test: tools
	$(CARGO) build --workspace --all-targets
	filter=$$($(CARGO) run --quiet -p harness --bin runnable) && \
	$(CARGO) nextest run --workspace --filterset "$$filter"

# Replays the corpora of fuzz/ without libFuzzer, then fuzzes each target for some seconds. New inputs stay in
# target/; "cargo fuzz cmin" brings the useful ones into the repository.
fuzz: tools
	$(CARGO) nextest run --manifest-path fuzz/Cargo.toml --target-dir target
	$(CARGO) fuzz build --release --sanitizer $(FUZZ_SANITIZER) --features libfuzzer --target-dir target/fuzz
	@set -e; for target in $(FUZZ_TARGETS); do \
		echo "Fuzzing $$target for $(FUZZ_SECONDS) s"; \
		mkdir -p "target/fuzz/found/$$target"; \
		log="target/fuzz/$$target.log"; \
		$(CARGO) fuzz run --release --sanitizer $(FUZZ_SANITIZER) --features libfuzzer --target-dir target/fuzz \
			"$$target" "target/fuzz/found/$$target" "fuzz/corpus/$$target" -- \
			-seed=$(FUZZ_SEED) -max_total_time=$(FUZZ_SECONDS) -max_len=2048 -timeout=60 -print_final_stats=1 \
			-artifact_prefix="target/fuzz/found/$$target-" >"$$log" 2>&1 \
			|| { cat "$$log"; exit 1; }; \
		grep -E "^stat::number_of_executed_units" "$$log"; \
	done

# Runs the demo and the tests that depend on the release in a fresh root of another Debian release, which
# debootstrap creates in build/$(DISTRO). The demo is built there, the tests here.
IN_ROOT = $(SUDO) env PATH="$$PATH" HOME="$$HOME" CARGO="$(CARGO)" crates/harness/debian-root $(DISTRO)

demo-debian: PACKAGES += $(ROOT_PACKAGES)
demo-debian: deps
	$(CARGO) fetch --locked --quiet
	$(IN_ROOT) make demo

check-debian: demo-debian tools peers
	$(CARGO) build --workspace --all-targets
	@set -e; target="$$($(TARGET_DIR))"; \
	$(CARGO) metadata --format-version 1 --offline >"$$target/workspace.json"; \
	$(CARGO) nextest list --workspace --list-type binaries-only --message-format json >"$$target/tests.json"; \
	$(IN_ROOT) sh -c 'filter=$$("$$0/debug/runnable") && exec cargo-nextest nextest run \
		--cargo-metadata "$$0/workspace.json" --binaries-metadata "$$0/tests.json" \
		--filterset "($$filter) & ($(DISTRO_TESTS))"' "$$target"

# Measures the programs beside their peers. Peers that are not available are named and left out.
bench: PACKAGES += $(BENCH_PACKAGES)
bench: deps
	@test -x build/peers/bin/vhost-device-input \
		|| $(CARGO) install --quiet --root build/peers $(BENCH_CRATE) || true
	$(CARGO) build --release -p vhost-user-backends -p bench -p bench-evdev -p guest
	$(CARGO) run --release --quiet -p bench

clean:
	$(CARGO) clean
	rm -rf demo.png
	rm -rf build 2>/dev/null || $(SUDO) rm -rf build

help:
	@echo "make            build the programs (target/release)"
	@echo "make demo       run them with a small Linux guest; saves demo.png. KEEP=1: leave the guest up to be looked at"
	@echo "make check      check format, lints, documentation, licenses; run all tests and some seconds of fuzzing"
	@echo "make test       run all tests that this machine can run"
	@echo "make doc        build the documentation of all items (target/doc)"
	@echo "make fuzz       replay the fuzzing corpora and fuzz each target for FUZZ_SECONDS"
	@echo "make demo-debian, make check-debian"
	@echo "                the same on another Debian release (DISTRO=trixie), in a root in build/"
	@echo "make bench      measure the programs beside those of QEMU and rust-vmm"
	@echo "make deps       install the Debian packages needed for demo and check"
	@echo "make tools      install cargo-nextest, cargo-deny and cargo-fuzz"
	@echo "make install    install programs, units and descriptors (PREFIX, DESTDIR)"
	@echo "make uninstall  remove them"
	@echo "make clean      remove all build results and downloads"

-include install.mk
