# SPDX-License-Identifier: Apache-2.0 OR MIT
# For the scripts that run once all packages are in place: debian/rules inserts it in the postinst of vhostctl, the RPM
# specification in its %posttrans.

# is_complete: whether each program that a VM uses is installed. One that is being removed cannot be started again: its VMs
# keep the running one.
is_complete() {
    for program in vhost-user-gpu vhost-user-input; do
        [ ! -x "/usr/bin/$program" ] || continue
        [ -z "$(systemctl list-units --plain --no-legend --state=active "$program@*.service")" ] || return 1
    done
}

# restart_all: replaces the programs of running VMs one by one; no VM notices it.
restart_all() {
    systemctl --system daemon-reload || true
    if is_complete; then
        vhostctl restart --all ||
            echo "vhostctl: not all programs could be restarted; see 'vhostctl status' and 'vhostctl log'." >&2
    fi
}
