# SPDX-License-Identifier: Apache-2.0 OR MIT
# Installation, for every build and for packagers:
#
#   make install [DESTDIR=...] [PREFIX=/usr/local]     programs, units, descriptors, manual, completions
#   make install-strip                                 the same, the programs without debug information
#   make uninstall                                     with the same variables
#
# After an upgrade, a package runs "systemctl daemon-reload" and "vhostctl restart --all": running VMs go on with the new
# programs. "systemctl try-restart" would take OpenGL and other backends from running VMs as well, and with a new program
# that does not start it would take the devices from all of them.
#
# Units and descriptors in systemd/ and json/ are as in a package with PREFIX=/usr; the installation replaces
# only the folders of the programs and of the units.

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin

# The backends and the console. QEMU's own programs have the same names, so with PREFIX=/usr neither /usr/lib/qemu (Debian)
# nor /usr/libexec (Fedora) can hold them; and the AppArmor profile of libvirt allows
# programs in /usr/bin. Override to install them elsewhere, such as $(LIBEXECDIR)/vhost-user.
LIBEXECDIR ?= $(PREFIX)/libexec
BACKENDDIR ?= $(BINDIR)

# systemd and QEMU search fixed folders, whatever PREFIX is: a package's files belong in /usr, and what
# the administrator builds belongs in the folders for local files.
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

# needrestart(1) searches this folder, whatever PREFIX is.
NEEDRESTARTDIR ?= /etc/needrestart/conf.d

DATADIR ?= $(PREFIX)/share
MANDIR ?= $(DATADIR)/man
# The folders that each shell searches for completions of installed programs.
BASHCOMPLETIONDIR ?= $(DATADIR)/bash-completion/completions
ZSHCOMPLETIONDIR ?= $(DATADIR)/zsh/site-functions
FISHCOMPLETIONDIR ?= $(DATADIR)/fish/vendor_completions.d

CARGO_TARGET ?= $(or $(CARGO_TARGET_DIR),target)
INSTALL ?= install
INSTALL_PROGRAM ?= $(INSTALL)

INSTALL_TOP := $(dir $(lastword $(MAKEFILE_LIST)))
INSTALL_BACKENDS := vhost-user-gpu vhost-user-input vhost-vnc
INSTALL_COMMANDS := vhostctl
# Units run it before a backend; users do not call it.
INSTALL_HELPERS := vhost-user-accept
# Quoted for the shell: the name of the slice has a backslash, as systemd escapes a dash.
INSTALL_UNITS := 'vhost-user-gpu@.service' 'vhost-user-gpu@.socket' \
	'vhost-user-input@.service' 'vhost-user-input@.socket' \
	'vhost-user-display@.socket' 'vhost-user-events@.socket' 'vhost-vnc@.service' 'vhost-vnc@.socket' \
	'vhost-user@.service' 'vhost-user@.socket' 'vhost-user-retry@.service' 'system-vhost\x2duser.slice' \
	'vhost-user-gpu-virgl.conf' 'vhost-user-gpu-vulkan.conf' \
	'vhost-render-server@.service' 'vhost-render-server@.socket'
INSTALL_DESCRIPTORS := 40-vhost-user-gpu.json 40-vhost-user-input.json

INSTALL_PAGES := vhostctl.1 vhost-user@.service.5 vhost-user-gpu.8 vhost-user-input.8 \
	vhost-user-accept.8 vhost-vnc.8
# The page about the units, under the names of all units.
INSTALL_PAGE_ALIASES := vhost-user@.socket.5 vhost-user-gpu@.service.5 vhost-user-gpu@.socket.5 \
	vhost-user-input@.service.5 vhost-user-input@.socket.5 vhost-user-display@.socket.5 \
	vhost-user-events@.socket.5 vhost-vnc@.service.5 vhost-vnc@.socket.5 \
	vhost-render-server@.service.5 vhost-render-server@.socket.5

.PHONY: install install-strip uninstall install-programs install-units install-descriptors install-needrestart \
	install-manual install-completions

install: install-programs install-units install-descriptors install-needrestart install-manual install-completions
ifeq ($(DESTDIR),)
	@echo "Installed. For systemd to see the units: systemctl daemon-reload"
	@echo "After an upgrade, for running VMs to use the new programs: vhostctl restart --all"
endif

# Debug information is line tables only: a backtrace in the log names files and lines. Packages take it apart (dh_strip,
# debugedit). Without it the five programs take 12 instead of 66 MB of disk; they start as fast and use the same memory.
install-strip:
	@$(MAKE) -f $(firstword $(MAKEFILE_LIST)) --no-print-directory install INSTALL_PROGRAM='$(INSTALL_PROGRAM) -s'

# A program is replaced by a rename: systemd may start it at any moment.
install-programs:
	@set -e; for p in $(INSTALL_BACKENDS) $(INSTALL_COMMANDS) $(INSTALL_HELPERS); do \
		[ -e "$(CARGO_TARGET)/release/$$p" ] || { echo "$(CARGO_TARGET)/release/$$p is missing: run \"make\" first" >&2; exit 1; }; \
	done; put() { \
		echo "  INSTALL  $$2"; \
		$(INSTALL_PROGRAM) -D -m 755 "$(CARGO_TARGET)/release/$$1" "$(DESTDIR)$$2.new"; \
		mv -f "$(DESTDIR)$$2.new" "$(DESTDIR)$$2"; \
	}; \
	for p in $(INSTALL_BACKENDS); do put "$$p" "$(BACKENDDIR)/$$p"; done; \
	for p in $(INSTALL_COMMANDS); do put "$$p" "$(BINDIR)/$$p"; done; \
	for p in $(INSTALL_HELPERS); do put "$$p" "$(LIBEXECDIR)/$$p"; done

install-units:
	@set -e; $(INSTALL) -d -m 755 "$(DESTDIR)$(UNITDIR)"; for u in $(INSTALL_UNITS); do \
		printf '  INSTALL  %s\n' "$(UNITDIR)/$$u"; \
		sed -e 's|/usr/lib/systemd/system/|$(UNITDIR)/|' -e 's|^ExecStart=/usr/bin/|ExecStart=$(BACKENDDIR)/|' -e 's|^Accept=/usr/libexec/|Accept=$(LIBEXECDIR)/|' \
			-e 's|^ExecStart=/usr/libexec/vhost-user-accept|ExecStart=$(LIBEXECDIR)/vhost-user-accept|' \
			"$(INSTALL_TOP)systemd/$$u" >"$(DESTDIR)$(UNITDIR)/$$u"; \
		chmod 644 "$(DESTDIR)$(UNITDIR)/$$u"; \
	done

# libvirt starts no vhost-user-gpu while this folder contains a file that it cannot read as a descriptor:
# install nothing else there.
install-descriptors:
	@set -e; $(INSTALL) -d -m 755 "$(DESTDIR)$(DESCRIPTORDIR)"; for j in $(INSTALL_DESCRIPTORS); do \
		echo "  INSTALL  $(DESCRIPTORDIR)/$$j"; \
		sed 's|"/usr/bin/|"$(BACKENDDIR)/|' "$(INSTALL_TOP)json/$$j" >"$(DESTDIR)$(DESCRIPTORDIR)/$$j"; \
		chmod 644 "$(DESTDIR)$(DESCRIPTORDIR)/$$j"; \
	done

install-needrestart:
	@echo "  INSTALL  $(NEEDRESTARTDIR)/vhost-user.conf"; \
	$(INSTALL) -D -m 644 "$(INSTALL_TOP)systemd/needrestart-vhost-user.conf" "$(DESTDIR)$(NEEDRESTARTDIR)/vhost-user.conf"

# Pages and scripts in man/ and completions/ are installed unchanged.
install-manual:
	@set -e; for p in $(INSTALL_PAGES); do \
		echo "  INSTALL  $(MANDIR)/man$${p##*.}/$$p"; \
		$(INSTALL) -D -m 644 "$(INSTALL_TOP)man/$$p" "$(DESTDIR)$(MANDIR)/man$${p##*.}/$$p"; \
	done; for p in $(INSTALL_PAGE_ALIASES); do \
		ln -sf vhost-user@.service.5 "$(DESTDIR)$(MANDIR)/man5/$$p"; \
	done

install-completions:
	@set -e; put() { \
		echo "  INSTALL  $$2"; \
		$(INSTALL) -D -m 644 "$(INSTALL_TOP)completions/$$1" "$(DESTDIR)$$2"; \
	}; \
	put vhostctl.bash "$(BASHCOMPLETIONDIR)/vhostctl"; \
	put _vhostctl "$(ZSHCOMPLETIONDIR)/_vhostctl"; \
	put vhostctl.fish "$(FISHCOMPLETIONDIR)/vhostctl.fish"

# Folders that only some packages have. Those of every system (bin, share, share/man) are left alone.
UNINSTALL_DIRS = $(DESCRIPTORDIR) $(patsubst %/,%,$(dir $(DESCRIPTORDIR))) \
	$(UNITDIR) $(patsubst %/,%,$(dir $(UNITDIR))) \
	$(NEEDRESTARTDIR) $(patsubst %/,%,$(dir $(NEEDRESTARTDIR))) \
	$(foreach d,$(BASHCOMPLETIONDIR) $(ZSHCOMPLETIONDIR) $(FISHCOMPLETIONDIR),$d $(patsubst %/,%,$(dir $d))) \
	$(LIBEXECDIR) $(MANDIR)/man1 $(MANDIR)/man5 $(MANDIR)/man8

# Also removes the folders that are empty then.
uninstall:
	@set -e; for p in $(INSTALL_BACKENDS); do rm -fv "$(DESTDIR)$(BACKENDDIR)/$$p"; done; \
	for p in $(INSTALL_COMMANDS); do rm -fv "$(DESTDIR)$(BINDIR)/$$p"; done; \
	for p in $(INSTALL_HELPERS); do rm -fv "$(DESTDIR)$(LIBEXECDIR)/$$p"; done; \
	for u in $(INSTALL_UNITS); do rm -fv "$(DESTDIR)$(UNITDIR)/$$u"; done; \
	for j in $(INSTALL_DESCRIPTORS); do rm -fv "$(DESTDIR)$(DESCRIPTORDIR)/$$j"; done; \
	for p in $(INSTALL_PAGES) $(INSTALL_PAGE_ALIASES); do rm -fv "$(DESTDIR)$(MANDIR)/man$${p##*.}/$$p"; done; \
	rm -fv "$(DESTDIR)$(NEEDRESTARTDIR)/vhost-user.conf"; \
	rm -fv "$(DESTDIR)$(BASHCOMPLETIONDIR)/vhostctl" "$(DESTDIR)$(ZSHCOMPLETIONDIR)/_vhostctl" \
		"$(DESTDIR)$(FISHCOMPLETIONDIR)/vhostctl.fish"; \
	for d in $(UNINSTALL_DIRS); do \
		[ ! -d "$(DESTDIR)$$d" ] || rmdir --ignore-fail-on-non-empty "$(DESTDIR)$$d"; \
	done
ifeq ($(DESTDIR),)
	@echo "Removed. Instances that still run are stopped by: systemctl stop 'vhost-user*@*' 'vhost-vnc@*' 'vhost-render-server@*'"
endif
