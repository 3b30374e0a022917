# SPDX-License-Identifier: Apache-2.0 OR MIT
# Keeps a private systemd for as long as standard input is open.
#
# arguments: MOUNTPOINT CGROUP LIMITS ROOT STAGING...
#            LIMITS: "limits" where MemoryMax= and its like are to take effect; "" to start faster
#            ROOT: what the container has below what it writes; "/" for the host's
# output:    one line, "pid N": the container's first process as the host sees it
#
# The container is an overlay of a root on a tmpfs, in namespaces of its
# own. All that is mounted is mounted in there and goes with the last process.
set -eu
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mountpoint=$1 cgroup=$2 limits=$3
own_cgroup=${cgroup%/*}$(sed -n 's/^0:://p' /proc/self/cgroup)

# Where the host has its controllers in hierarchies of the first version of cgroups, the unified one has
# none to limit by. Then the container gets a group in each of them too, which systemd calls hybrid.
version1=
if [ -n "$limits" ]; then
    for controller in name=systemd memory pids devices cpu cpuacct blkio; do
        where=$(awk -v c="$controller" '$3 == "cgroup" && ("," $4 ",") ~ ("," c ",") { print $2; exit }' \
            /proc/self/mounts)
        [ -z "$where" ] || version1="$version1 $controller:$where"
    done
fi
case $version1 in *memory:*) ;; *) version1= ;; esac
# The container's group in one of them: "controller:mount point".
group1() {
    echo "${1#*:}$(sed -n "s/^[0-9]*:${1%%:*}://p" /proc/self/cgroup)/${cgroup##*/}"
}

# --- runs as the container's first process, until it becomes systemd
inside=$(cat <<'INSIDE'
set -eu
base=$1 version1=$2 lower=$3; shift 3
# The procfs in sight is still the host's, and so is the number.
read -r pid _ </proc/self/stat

# In a chroot, / is no mount point, and what mounts may be shared with lies above it. Whoever enters a mount
# namespace, be it their own, is at its root.
mount --make-rprivate / 2>/dev/null || nsenter --mount=/proc/self/ns/mnt mount --make-rprivate /
mount -t tmpfs -o mode=0755 harness "$base"
mkdir "$base/upper" "$base/work" "$base/root"
root=$base/root
mount -t overlay -o "lowerdir=$lower,upperdir=$base/upper,workdir=$base/work" harness "$root"
mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root/tmp" "$root/mnt"

mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
# Nothing in here may change the host's kernel.
for part in sys irq bus fs sysrq-trigger; do
    if [ -e "$root/proc/$part" ]; then
        mount --bind "$root/proc/$part" "$root/proc/$part"
        mount -o remount,bind,ro "$root/proc/$part"
    fi
done
mount -t sysfs -o nosuid,nodev,noexec,ro sysfs "$root/sys"
if [ -z "$version1" ]; then
    mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
else
    mount -t tmpfs -o nosuid,nodev,noexec,mode=0755 cgroup "$root/sys/fs/cgroup"
    mkdir "$root/sys/fs/cgroup/unified"
    mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup/unified"
    for controller in $version1; do
        controller=${controller%%:*} options=
        [ "$controller" != name=systemd ] || options=none,
        mkdir "$root/sys/fs/cgroup/${controller#name=}"
        mount -t cgroup -o "nosuid,nodev,noexec,$options$controller" cgroup \
            "$root/sys/fs/cgroup/${controller#name=}"
    done
fi
mount -t tmpfs -o nosuid,nodev,mode=0755 run "$root/run"
mount -t tmpfs -o nosuid,nodev,mode=1777 tmp "$root/tmp"

mount -t tmpfs -o nosuid,mode=0755 dev "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/mqueue"
mount -t tmpfs -o nosuid,nodev,mode=1777 shm "$root/dev/shm"
mount -t mqueue mqueue "$root/dev/mqueue"
mount -t devpts -o newinstance,gid=5,mode=0620,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"; ln -s fd/1 "$root/dev/stdout"; ln -s fd/2 "$root/dev/stderr"
for node in null zero full random urandom tty kvm udmabuf dri/*; do
    for path in /dev/$node; do
        [ -c "$path" ] || continue
        mkdir -p "$root${path%/*}"
        mknod -m "$(stat -c %a "$path")" "$root$path" c $(stat -c '0x%t 0x%T' "$path")
        chown "$(stat -c %u:%g "$path")" "$root$path"
    done
done
# DeviceAllow= finds device classes by this file, also where the kernel lacks them.
awk '$2 == "input" || $2 == "drm" { seen[$2] = 1 }
     /^$/ && !done { done = 1; if (!seen["input"]) print " 13 input"; if (!seen["drm"]) print "226 drm" }
     { print }' /proc/devices >"$root/run/devices"
mount --bind "$root/run/devices" "$root/proc/devices"

# --- what systemd starts: its journal, its temporary files, D-Bus; nothing of the host
units=$root/usr/lib/systemd/system
rm -rf "$root"/etc/systemd "$root"/usr/local/lib/systemd "$root"/usr/lib/systemd/system-generators \
    "$root"/usr/lib/systemd/*.conf.d "$root"/etc/fstab "$root"/usr/sbin/policy-rc.d
# What the host has of QEMU's, libvirt's and our own: a test brings what it wants to be there.
rm -rf "$units"/vhost-user* "$root"/usr/local/bin/vhost* "$root"/usr/bin/vhost-user* "$root"/usr/bin/vhostctl \
    "$root"/usr/share/qemu/vhost-user "$root"/etc/qemu "$root"/root/.config "$root"/etc/libvirt \
    "$root"/etc/polkit-1/rules.d/*
for target in sysinit sockets timers multi-user local-fs graphical; do
    rm -rf "$units/$target.target.wants"
done
mkdir -p "$units/sysinit.target.wants" "$units/sockets.target.wants"
for unit in systemd-journald.service systemd-tmpfiles-setup.service systemd-sysusers.service; do
    ln -s "../$unit" "$units/sysinit.target.wants/$unit"
done
for unit in systemd-journald.socket systemd-journald-dev-log.socket dbus.socket; do
    ln -s "../$unit" "$units/sockets.target.wants/$unit"
done
mkdir -p "$root/etc/systemd/system" "$root/etc/systemd/journald.conf.d" "$root/etc/systemd/system.conf.d"
cat >"$root/etc/systemd/system/harness.target" <<'UNIT'
[Unit]
Description=Private systemd of the tests
Requires=basic.target
After=basic.target
Wants=dbus.service
AllowIsolate=yes
UNIT
ln -sf harness.target "$root/etc/systemd/system/default.target"
printf '[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\nReadKMsg=no\nAudit=no\nForwardToWall=no\nForwardToSyslog=no\n' \
    >"$root/etc/systemd/journald.conf.d/harness.conf"
printf '[Manager]\nDefaultTimeoutStartSec=30s\nDefaultTimeoutStopSec=15s\nCrashShell=no\n' \
    >"$root/etc/systemd/system.conf.d/harness.conf"
# An ID of its own, or systemd takes this for a first boot and enables what it finds.
rm -f "$root/etc/machine-id"
tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
echo harness >"$root/etc/hostname"
hostname harness

for staging; do
    # /lib is a link to usr/lib, and the root keeps its mode.
    tar -C "$staging" -c . |
        tar -C "$root" -x --no-same-owner --keep-directory-symlink --no-overwrite-dir
done

cd "$root"
# By the namespace's root, as above.
nsenter --mount=/proc/self/ns/mnt --wd=. pivot_root . mnt
# systemd expects mounts to spread, as the kernel leaves them to it; without
# container= it would set the host's clock.
exec chroot . /bin/sh -c '
    umount -l /mnt
    mount --make-rshared /
    ip link set lo up 2>/dev/null || true
    echo '"$pid"' >&3
    exec 3>&-
    exec env -i container=harness TERM=dumb PATH="$PATH" setpriv \
        --bounding-set -sys_time,-sys_module,-sys_rawio /lib/systemd/systemd --system --log-target=journal
' </dev/null >/dev/null
INSIDE
)

clean() {
    trap - EXIT
    # With its first process all others of the container end. unshare reaps it.
    [ -n "$container" ] || { rmdir "$cgroup"; return; }
    kill -KILL "${first:-$container}" 2>/dev/null || true
    wait "$container" 2>/dev/null || true
    for group in "$cgroup" $groups1; do
        for attempt in $(seq 200); do
            [ -d "$group" ] || break
            find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.02
        done
    done
    rm -f "$log"
    rmdir "$mountpoint" 2>/dev/null || true
    [ ! -d "$cgroup" ] || { echo "$cgroup cannot be removed" >&2; exit 1; }
}

mkdir "$cgroup"
groups1=
for controller in $version1; do
    groups1="$groups1 $(group1 "$controller")"
done
[ -z "$groups1" ] || mkdir $groups1
first= container=
# unshare complains when its child is killed, so this is shown only if nothing starts.
log=$mountpoint.log
trap clean EXIT
# The namespace's root is the cgroup one is in when it is made.
exec 3< <(
    exec 3>&1 >"$log" 2>&1 </dev/null
    for group in "$cgroup" $groups1; do
        echo "$BASHPID" >"$group/cgroup.procs"
    done
    exec unshare --mount --propagation unchanged --pid --fork --kill-child=KILL \
        --net --uts --ipc --cgroup bash -c "$inside" inside "$mountpoint" "$version1" "${@:4}"
)
container=$!
read -r first <&3 || { cat "$log" >&2; exit 1; }
# unshare itself leaves: a cgroup with processes of its own gets no controllers.
echo "$container" >"$own_cgroup/cgroup.procs"
echo "pid $first"
exec >&-
read -r _ || true
