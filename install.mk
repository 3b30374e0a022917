# Installation, for every build and for packagers:
#
#   make install [DESTDIR=...] [PREFIX=/usr/local]     programs, units, descriptors
#   make uninstall                                     with the same variables
#
# Units and descriptors lie in systemd/ and json/ as a package with PREFIX=/usr has them; only the
# folder of the programs is replaced on the way.

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin

# The backends. They have names that QEMU's own programs have too, so neither /usr/lib/qemu (Debian)
# nor /usr/libexec (Fedora) can be theirs with PREFIX=/usr; and the AppArmor profile of libvirt lets
# it run what is in /usr/bin. Override to have them elsewhere, such as $(LIBEXECDIR)/vhost-user.
LIBEXECDIR ?= $(PREFIX)/libexec
BACKENDDIR ?= $(BINDIR)

# systemd and QEMU search fixed folders, whatever PREFIX is: a package's files are in /usr, and what
# the administrator builds goes where those programs look for it.
ifeq ($(PREFIX),/usr)
UNITDIR ?= $(shell pkg-config --variable=systemdsystemunitdir systemd 2>/dev/null || echo /usr/lib/systemd/system)
DESCRIPTORDIR ?= /usr/share/qemu/vhost-user
else ifeq ($(PREFIX),/usr/local)
UNITDIR ?= /usr/local/lib/systemd/system
DESCRIPTORDIR ?= /etc/qemu/vhost-user
else
UNITDIR ?= /etc/systemd/system
DESCRIPTORDIR ?= /etc/qemu/vhost-user
endif

CARGO_TARGET ?= $(or $(CARGO_TARGET_DIR),target)
INSTALL ?= install

INSTALL_TOP := $(dir $(lastword $(MAKEFILE_LIST)))
INSTALL_BACKENDS := vhost-user-gpu vhost-user-input
INSTALL_COMMANDS := vhostctl
# Quoted for the shell: the name of the slice has a backslash, as systemd escapes a dash.
INSTALL_UNITS := 'vhost-user-gpu@.service' 'vhost-user-gpu@.socket' \
	'vhost-user-input@.service' 'vhost-user-input@.socket' 'system-vhost\x2duser.slice'
INSTALL_DESCRIPTORS := 40-vhost-user-gpu.json 40-vhost-user-input.json

.PHONY: install uninstall install-programs install-units install-descriptors

install: install-programs install-units install-descriptors
ifeq ($(DESTDIR),)
	@echo "Installed. For systemd to see the units: systemctl daemon-reload"
endif

install-programs:
	@set -e; for p in $(INSTALL_BACKENDS) $(INSTALL_COMMANDS); do \
		[ -e "$(CARGO_TARGET)/release/$$p" ] || { echo "$(CARGO_TARGET)/release/$$p is missing: run \"make\" first" >&2; exit 1; }; \
	done; for p in $(INSTALL_BACKENDS); do \
		echo "  INSTALL  $(BACKENDDIR)/$$p"; \
		$(INSTALL) -D -m 755 "$(CARGO_TARGET)/release/$$p" "$(DESTDIR)$(BACKENDDIR)/$$p"; \
	done; for p in $(INSTALL_COMMANDS); do \
		echo "  INSTALL  $(BINDIR)/$$p"; \
		$(INSTALL) -D -m 755 "$(CARGO_TARGET)/release/$$p" "$(DESTDIR)$(BINDIR)/$$p"; \
	done

install-units:
	@set -e; $(INSTALL) -d -m 755 "$(DESTDIR)$(UNITDIR)"; for u in $(INSTALL_UNITS); do \
		printf '  INSTALL  %s\n' "$(UNITDIR)/$$u"; \
		sed 's|^ExecStart=/usr/bin/|ExecStart=$(BACKENDDIR)/|' "$(INSTALL_TOP)systemd/$$u" >"$(DESTDIR)$(UNITDIR)/$$u"; \
		chmod 644 "$(DESTDIR)$(UNITDIR)/$$u"; \
	done

# libvirt starts no gpu at all while a file that it cannot read as a descriptor lies in this folder:
# nothing else may go into it.
install-descriptors:
	@set -e; $(INSTALL) -d -m 755 "$(DESTDIR)$(DESCRIPTORDIR)"; for j in $(INSTALL_DESCRIPTORS); do \
		echo "  INSTALL  $(DESCRIPTORDIR)/$$j"; \
		sed 's|"/usr/bin/|"$(BACKENDDIR)/|' "$(INSTALL_TOP)json/$$j" >"$(DESTDIR)$(DESCRIPTORDIR)/$$j"; \
		chmod 644 "$(DESTDIR)$(DESCRIPTORDIR)/$$j"; \
	done

# Folders that are left empty go too, if only these files made them.
uninstall:
	@set -e; for p in $(INSTALL_BACKENDS); do rm -fv "$(DESTDIR)$(BACKENDDIR)/$$p"; done; \
	for p in $(INSTALL_COMMANDS); do rm -fv "$(DESTDIR)$(BINDIR)/$$p"; done; \
	for u in $(INSTALL_UNITS); do rm -fv "$(DESTDIR)$(UNITDIR)/$$u"; done; \
	for j in $(INSTALL_DESCRIPTORS); do rm -fv "$(DESTDIR)$(DESCRIPTORDIR)/$$j"; done; \
	for d in "$(DESCRIPTORDIR)" "$(patsubst %/,%,$(dir $(DESCRIPTORDIR)))" \
		"$(UNITDIR)" "$(patsubst %/,%,$(dir $(UNITDIR)))"; do \
		[ ! -d "$(DESTDIR)$$d" ] || rmdir --ignore-fail-on-non-empty "$(DESTDIR)$$d"; \
	done
ifeq ($(DESTDIR),)
	@echo "Removed. Instances that still run are stopped by: systemctl stop 'vhost-user-gpu@*' 'vhost-user-input@*'"
endif
