# SPDX-License-Identifier: Apache-2.0 OR MIT
# Targets for developers: see "make help". Installation is in install.mk.

CARGO ?= cargo
# The oldest Rust that will do: for the programs, and for the goals that also build or use the tools of the checks.
RUST_VERSION := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
RUST_TOOLS :=
ifneq ($(filter check check-arm64 check-debian check-packages check-packages-debian check-vulkan tools,$(MAKECMDGOALS)),)
RUST_VERSION := 1.88
RUST_TOOLS := clippy rustfmt
endif
# Where Cargo installs the tools.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin
# Debian's Rust, which "make deps" installs, before a Cargo in PATH that is missing or too old.
ifneq ($(shell { echo $(RUST_VERSION); $(CARGO) --version 2>/dev/null | cut -d' ' -f2 | grep . || echo 0; } | sort -V | head -n 1),$(RUST_VERSION))
export PATH := /usr/bin:$(PATH)
endif
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
# Tools of the checks. cargo-nextest and cargo-deny need Rust 1.88 to be built.
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
# What Vulkan needs, of Debian sid: Debian 13's virglrenderer and QEMU are too old. And the tests that check-vulkan runs.
VULKAN_PACKAGES := qemu-system-x86 virgl-server libvirglrenderer1 mesa-vulkan-drivers vulkan-tools libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri kmscube cage seatd \
	systemd libnss-systemd dbus cpio kmod xz-utils zstd
VULKAN_TESTS ?= all()
# What bench-opengl needs there.
OPENGL_PACKAGES := qemu-system-x86 qemu-system-modules-opengl qemu-system-gui xvfb xdotool libvirglrenderer1 libegl-mesa0 libgl1-mesa-dri
# What "make packages" needs to build packages, and the oldest Rust of Debian that builds them.
PACKAGES_RUST := 1.85
PACKAGE_KINDS := deb rpm
PACKAGING_PACKAGES := git dpkg-dev debhelper lintian rpm debugedit elfutils fakeroot util-linux
DISTRO_TESTS ?= binary(=systemd) | binary(=vms) | (binary(=devices) & test(/^sandbox::/)) \
	| (binary(=process) & test(/^(conventions|virgl|cve::virgl)::/)) | test(/^backend::sandbox::/) | package(harness)
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

# Shell command that prints the target directory of Cargo.
TARGET_DIR = $(CARGO) metadata --no-deps --format-version 1 --offline | sed 's/.*"target_directory":"\([^"]*\)".*/\1/'

.DEFAULT_GOAL := all
.PHONY: all deps demo check tools peers fmt lint doc deny test fuzz demo-debian check-debian test-debian check-packages \
	check-packages-debian check-arm64 check-riscv64 check-vulkan debian-packages packages packages-arm64 packages-debian bench bench-compare \
	bench-scale bench-opengl gpu-check clean help

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

deps: debian-packages
	@CARGO="$(CARGO)" SUDO="$(SUDO)" crates/harness/debian-rust $(RUST_VERSION) $(RUST_TOOLS)

# The Debian packages in PACKAGES.
debian-packages:
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
	fi

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
	$(CARGO) clippy --no-default-features -- -D warnings
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

check-debian: demo-debian test-debian

# The tests of check-debian alone.
test-debian: PACKAGES += $(ROOT_PACKAGES)
test-debian: deps tools peers
	$(CARGO) build --workspace --all-targets
	$(IN_ROOT) make deps
	@set -e; target="$$($(TARGET_DIR))"; \
	$(CARGO) metadata --format-version 1 --offline >"$$target/workspace.json"; \
	$(CARGO) nextest list --workspace --list-type binaries-only --message-format json >"$$target/tests.json"; \
	$(IN_ROOT) sh -c 'filter=$$("$$0/debug/runnable") && exec cargo-nextest nextest run \
		--cargo-metadata "$$0/workspace.json" --binaries-metadata "$$0/tests.json" \
		--filterset "($$filter) & ($(DISTRO_TESTS))"' "$$target"

# A root of Debian 13 of its own for what is built for other architectures: build/cross.
IN_CROSS_ROOT = $(SUDO) env PATH="$$PATH" HOME="$$HOME" CARGO="$(CARGO)" DEBIAN_ROOT=cross DEBIAN_ROOT_PIVOT=1 crates/harness/debian-root trixie

# qemu-user runs the unit tests. A host of that architecture, which QEMU emulates, serves by its units and runs the tests that need
# a kernel, such as those of the sandbox.
check-arm64: PACKAGES := $(ROOT_PACKAGES)
check-arm64: deps tools
	$(CARGO) fetch --locked --quiet
	$(IN_CROSS_ROOT) crates/harness/debian-cross arm64 crates/harness/test-cross
	@set -e; target="$$($(TARGET_DIR))"; \
	$(CARGO) metadata --format-version 1 --offline >"$$target/workspace.json"; \
	$(CARGO) nextest list --workspace --test arm64 --list-type binaries-only --message-format json >"$$target/tests.json"; \
	$(IN_CROSS_ROOT) cargo-nextest nextest run \
		--cargo-metadata "$$target/workspace.json" --binaries-metadata "$$target/tests.json"

# Vulkan needs newer libraries and a newer QEMU than Debian 13 has: what is built here runs in a root of sid, build/vulkan, which
# also gives the guest its driver. VULKAN_TESTS picks some of the tests.
IN_VULKAN_ROOT = $(SUDO) env PATH="$$PATH" HOME="$$HOME" CARGO="$(CARGO)" DEBIAN_ROOT=vulkan crates/harness/debian-root sid

check-vulkan: PACKAGES := $(BUILD_PACKAGES) $(ROOT_PACKAGES)
check-vulkan: deps tools
	$(CARGO) build --workspace --bins
	$(IN_VULKAN_ROOT) make --no-print-directory debian-packages PACKAGES="$(VULKAN_PACKAGES)"
	@set -e; target="$$($(TARGET_DIR))"; \
	$(CARGO) metadata --format-version 1 --offline >"$$target/workspace.json"; \
	$(CARGO) nextest list --workspace --test vulkan --list-type binaries-only --message-format json >"$$target/tests.json"; \
	$(IN_VULKAN_ROOT) cargo-nextest nextest run \
		--cargo-metadata "$$target/workspace.json" --binaries-metadata "$$target/tests.json" --filterset '$(VULKAN_TESTS)'

# Builds the programs for riscv64 in a root of its own.
check-riscv64: PACKAGES := $(ROOT_PACKAGES)
check-riscv64: deps
	$(CARGO) fetch --locked --quiet
	$(IN_CROSS_ROOT) crates/harness/debian-cross riscv64 cargo build -p vhost-user-backends -p vhostctl

# Debian and RPM packages in target/packages, built by Debian's own Rust: see packaging/README.md.
packages:
	@$(MAKE) --no-print-directory deps PACKAGES="$(BUILD_PACKAGES) $(PACKAGING_PACKAGES)"
	@CARGO=/usr/bin/cargo SUDO="$(SUDO)" crates/harness/debian-rust $(PACKAGES_RUST)
	$(CARGO) fetch --locked --quiet
	@set -e; for kind in $(PACKAGE_KINDS); do \
		echo "packaging/build $$kind"; \
		packaging/build $$kind; \
	done

# The Debian packages, built on another Debian release: in build/$(DISTRO)/build/target/packages. PACKAGE_KINDS=rpm builds
# those of RPM there.
packages-debian: PACKAGES = $(ROOT_PACKAGES)
packages-debian: PACKAGE_KINDS = deb
packages-debian: deps
	$(CARGO) fetch --locked --quiet
	$(IN_ROOT) env QUICK="$(QUICK)" make packages PACKAGE_KINDS="$(PACKAGE_KINDS)"

# The Debian packages for arm64, built and started by qemu-user on Debian 13: in build/cross/build/target/packages/deb-arm64.
packages-arm64: PACKAGES := $(ROOT_PACKAGES)
packages-arm64: deps
	$(CARGO) fetch --locked --quiet
	$(IN_CROSS_ROOT) crates/harness/debian-cross arm64 env ARCH=arm64 QUICK="$(QUICK)" packaging/build deb

# Installs, upgrades and purges the packages on new roots of Debian 12 and 13.
check-packages: packages tools
	@$(MAKE) --no-print-directory deps PACKAGES="$(PACKAGES) $(ROOT_PACKAGES)"
	$(CARGO) build --workspace --bin guest
	$(CARGO) nextest run --workspace --test packages

# The same with the packages that Debian 13 built, on new roots of Debian 13.
check-packages-debian:
	@$(MAKE) --no-print-directory packages-debian DISTRO=trixie
	@$(MAKE) --no-print-directory tools deps PACKAGES="$(PACKAGES) $(ROOT_PACKAGES)"
	$(CARGO) build --workspace --bin guest
	BUILT_PACKAGES="$(CURDIR)/build/trixie/build/target/packages" $(CARGO) nextest run --workspace --test packages \
		--filterset "not test(debian_12) and not test(/^(contents|rpm)::/) or test(=contents::debian_packages_have_their_files)"

# Measures the programs beside their peers. Peers that are not available are named and left out.
bench: PACKAGES += $(BENCH_PACKAGES)
bench: deps
	@test -x build/peers/bin/vhost-device-input \
		|| $(CARGO) install --quiet --root build/peers $(BENCH_CRATE) || true
	$(CARGO) build --release -p vhost-user-backends -p bench -p bench-evdev -p guest
	@"$$($(TARGET_DIR))/release/bench"

# Measures many VMs under a private systemd: memory, wake-ups, starts, and vhostctl beside systemctl. Needs root.
bench-scale: deps
	$(CARGO) build --release -p vhost-user-backends -p vhostctl -p bench
	@$(SUDO) "$$($(TARGET_DIR))/release/bench" --scale $(VMS)

# Measures OpenGL in a window of QEMU beside QEMU's own virtio-gpu-gl, in the root of Debian sid: both draw by its libvirglrenderer
# and its Mesa.
bench-opengl: PACKAGES := $(BUILD_PACKAGES) $(ROOT_PACKAGES)
bench-opengl: deps
	$(CARGO) build --release -p vhost-user-backends -p bench
	$(IN_VULKAN_ROOT) make --no-print-directory debian-packages PACKAGES="$(OPENGL_PACKAGES)"
	@$(IN_VULKAN_ROOT) "$$($(TARGET_DIR))/release/bench" --no-peers --only "in a window of QEMU"

# Measures the programs beside those of an older revision, and parts of both by themselves. ONLY names some of the work.
bench-compare: PACKAGES += $(BENCH_PACKAGES)
bench-compare: deps
	@test -n "$(OLD)" || { echo "usage: make bench-compare OLD=REVISION [ONLY=TEXT]" >&2; exit 1; }
	$(CARGO) build --release -p vhost-user-backends -p bench -p bench-evdev -p guest
	$(CARGO) build --release --features fuzzing --example parts
	@CARGO="$(CARGO)" benches/compare "$(OLD)" $(if $(ONLY),"--only=$(ONLY)")

# Tries OpenGL on the render nodes of this machine, and prints a report to attach to a bug. As root it also says what the
# sandbox refused.
gpu-check:
	$(CARGO) build --release -p vhost-user-backends -p guest
	@"$$($(TARGET_DIR))/release/gpu-check"

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
	@echo "make test-debian"
	@echo "                the tests of check-debian alone"
	@echo "make check-arm64"
	@echo "                build for arm64, run the unit tests by qemu-user, and serve on an emulated arm64 host"
	@echo "make check-vulkan"
	@echo "                the tests of Vulkan (VULKAN_TESTS: some of them), in a root of Debian sid in build/"
	@echo "make check-riscv64"
	@echo "                build the programs for riscv64"
	@echo "make packages   build Debian and RPM packages (target/packages)"
	@echo "make packages-debian"
	@echo "                build those of Debian on another release (DISTRO=trixie), in a root in build/"
	@echo "make packages-arm64"
	@echo "                the same for arm64"
	@echo "make check-packages"
	@echo "                install, upgrade and purge them on new roots of Debian 12 and 13"
	@echo "make check-packages-debian"
	@echo "                the same with those that Debian 13 built, on Debian 13"
	@echo "make bench      measure the programs beside those of QEMU and rust-vmm"
	@echo "make bench-compare OLD=REVISION"
	@echo "                measure the programs beside those of an older revision (ONLY=TEXT: work of that name)"
	@echo "make bench-scale"
	@echo "                measure many VMs by units, and vhostctl beside systemctl (VMS=10,50,100,200); as root"
	@echo "make bench-opengl"
	@echo "                measure OpenGL beside QEMU's own GPU, in a root of Debian sid in build/"
	@echo "make gpu-check  try OpenGL on the render nodes of this machine, and print a report to attach to a bug"
	@echo "make deps       install the Debian packages needed for demo and check"
	@echo "make tools      install cargo-nextest, cargo-deny and cargo-fuzz"
	@echo "make install    install programs, units and descriptors (PREFIX, DESTDIR)"
	@echo "make uninstall  remove them"
	@echo "make clean      remove all build results and downloads"

-include install.mk
