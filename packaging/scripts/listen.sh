# SPDX-License-Identifier: Apache-2.0 OR MIT
# For the postinst of each Debian package: debian/rules inserts it.

# held_by_systemd PATH: prints something if systemd listens there. A program that it gave the socket listens too, until it ends.
held_by_systemd() {
    # As in proc(5): number, references, protocol, flags (listening), type, state, inode, path.
    awk -v path="$1" '$4 == "00010000" && $7 ~ /^[0-9]+$/ && $8 == path { print $7 }' /proc/net/unix | while read -r inode; do
        find /proc/1/fd -lname "socket:\\[$inode\\]" 2>/dev/null
    done
}

# not_listening SOCKET: prints the paths of a socket unit at which systemd does not listen. A file that was removed is in the
# list of sockets still.
not_listening() {
    systemctl show --property=Listen --value "$1" | sed -n 's/^\(\/.*\) (Stream)$/\1/p' | while read -r path; do
        if ! [ -S "$path" ] || [ -z "$(held_by_systemd "$path")" ]; then
            echo "$path"
        fi
    done
}

# listen SOCKET: starts it. One that a VM has been using since before a removal is there still, unless systemd was reloaded
# when the unit was away.
listen() {
    if ! systemctl --quiet is-active "$1"; then
        deb-systemd-invoke start "$1" || true
    elif [ -n "$(not_listening "$1")" ]; then
        echo "$1 does not listen any more. Once its VM is shut down: systemctl restart $1" >&2
    fi
}

# listen_again TEMPLATE...: starts the sockets of backends that an earlier installation left enabled, and stops those that
# were purged while a VM used them.
listen_again() {
    for template in "$@"; do
        for link in /etc/systemd/system/*.wants/"$template"@*.socket; do
            [ ! -L "$link" ] || listen "${link##*/}"
        done
        systemctl list-units --plain --no-legend --state=listening "$template@*.socket" | while read -r unit _; do
            [ -z "$(not_listening "$unit")" ] || deb-systemd-invoke stop "$unit" || true
        done
    done
}
