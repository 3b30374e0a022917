# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Plays evdev devices to programs that run under umockdev's preload library.

Arguments: files in the text form of input devices, one per device; the first one
becomes /dev/input/event0. Speaks lines with its parent:
  to us:    events N TYPE CODE VALUE [TYPE CODE VALUE]... | unplug N | sync N
  from us:  ready DIRECTORY | grab N 0|1 | led N CODE VALUE | open N | synced N
Ends when its standard input does.
"""

import collections
import errno
import fcntl
import os
import struct
import sys
import termios
import threading
import time

import gi

gi.require_version("UMockdev", "1.0")
from gi.repository import GLib, UMockdev  # noqa: E402

EVENT = struct.Struct("llHHi")
TYPES = {"key": 1, "rel": 2, "msc": 4, "sw": 5, "led": 17, "snd": 18}
EV_SYN, EV_KEY, EV_ABS, EV_SW, EV_LED, EV_REP = 0, 1, 3, 5, 17, 20
ABS_MT_SLOT, ABS_MT_FIRST, ABS_MT_LAST = 0x2F, 0x30, 0x3D


SAYING = threading.Lock()


def say(*words):
    # umockdev calls from a thread of its own, too: a line is to be one.
    with SAYING:
        print(" ".join(map(str, words)), flush=True)


def ranges(words):
    codes = set()
    for word in words:
        first, _, last = word.partition("-")
        codes.update(range(int(first), int(last or first) + 1))
    return codes


def bitmap(codes, size):
    """Bits as evdev reports them: no more bytes than the caller has room for."""
    bits = bytearray(size)
    for code in codes:
        if code // 8 < size:
            bits[code // 8] |= 1 << code % 8
    return bytes(bits)


class Device:
    """What one device is and the state it is in."""

    def __init__(self, path):
        self.name, self.uniq, self.id = "", "", [0] * 4
        self.props, self.codes, self.axes, self.repeats = set(), {}, {}, False
        self.values, self.slots, self.slot = {}, {}, 0
        self.state = {EV_KEY: set(), EV_SW: set(), EV_LED: set()}
        with open(path, encoding="utf-8") as description:
            for line in description:
                self.read(line.strip())

    def read(self, line):
        word, _, rest = line.partition(" ")
        words = rest.split()
        if not line or line.startswith("#"):
            return
        if word == "name":
            self.name = rest
        elif word == "uniq":
            self.uniq = rest
        elif word == "id":
            self.id = [int(part, 16) for part in words]
        elif word == "prop":
            self.props = ranges(words)
        elif word == "abs":
            code, *limits = map(int, words)
            self.axes[code] = limits
            self.values[code] = max(limits[0], 0)
        elif word == "rep":
            self.repeats = True
        else:
            self.codes[TYPES[word]] = ranges(words)

    def types(self):
        return {EV_SYN, *self.codes} | ({EV_ABS} if self.axes else set()) | (
            {EV_REP} if self.repeats else set()
        )

    def bits(self, kind):
        if kind == 0:
            return self.types()
        return set(self.axes) if kind == EV_ABS else self.codes.get(kind, set())

    def follow(self, kind, code, value):
        """Keeps the state that the kernel would keep."""
        if kind in self.state:
            (self.state[kind].add if value else self.state[kind].discard)(code)
        elif kind == EV_ABS and ABS_MT_FIRST <= code <= ABS_MT_LAST:
            self.slots.setdefault(code, {})[self.slot] = value
        elif kind == EV_ABS:
            self.values[code] = value
            if code == ABS_MT_SLOT:
                self.slot = value

    def answer(self, number, size, given):
        """The bytes for a reading request, or None if the device has no answer."""
        text = {0x06: self.name, 0x07: f"mock/{self.name}", 0x08: self.uniq}
        states = {0x18: EV_KEY, 0x19: EV_LED, 0x1B: EV_SW}
        if number == 0x01:
            return struct.pack("i", 0x010001)
        if number == 0x02:
            return struct.pack("4H", *self.id)
        if number == 0x03:
            return struct.pack("2I", 250, 33) if self.repeats else None
        if number in text:
            return (text[number].encode() + b"\0")[:size] if text[number] else None
        if number == 0x09:
            return bitmap(self.props, size)
        if number == 0x0A:
            code = struct.unpack_from("I", given)[0]
            count = self.axes.get(ABS_MT_SLOT, [0, -1])[1] + 1
            idle = -1 if code == 0x39 else 0
            slots = self.slots.get(code, {})
            values = [slots.get(slot, idle) for slot in range(count)]
            return struct.pack(f"I{count}i", code, *values)[:size]
        if number in states:
            return bitmap(self.state[states[number]], size)
        if number == 0x1A:
            return bytes(size)
        if 0x20 <= number < 0x40:
            return bitmap(self.bits(number - 0x20), size)
        if 0x40 <= number < 0x80 and number - 0x40 in self.axes:
            code = number - 0x40
            return struct.pack("6i", self.values[code], *self.axes[code])
        return None


class Handler(UMockdev.IoctlBase):
    """Answers evdev's ioctls for one device."""

    def __init__(self, index, device):
        super().__init__()
        self.index, self.device, self.grabbed_by = index, device, None
        self.terminal, self.clients = None, []

    def do_client_connected(self, client):
        self.clients = [other for other in self.clients if other.get_connected()]
        if not self.clients:
            # Who opens a device gets no events from before.
            termios.tcflush(self.terminal, termios.TCIFLUSH)
        self.clients.append(client)
        say("open", self.index)

    def holder_left(self, client):
        """Runs while `client` holds the grab: closing the device releases it.

        The library's own "vanished" signal does not come, so this has to look.
        """
        if self.grabbed_by is client and not client.get_connected():
            self.grabbed_by = None
            say("grab", self.index, 0)
        return GLib.SOURCE_CONTINUE if self.grabbed_by is client else GLib.SOURCE_REMOVE

    def do_handle_ioctl(self, client):
        request = client.get_request()
        kind, number, size = request >> 8 & 0xFF, request & 0xFF, request >> 16 & 0x3FFF
        if kind != ord("E"):
            client.complete(-1, errno.ENOTTY)
        elif number == 0x90:
            client.complete(*self.grab(client))
        elif number == 0xA0:  # EVIOCSCLOCKID: nobody looks at the time of our events
            client.complete(0, 0)
        elif request >> 30 & 2:
            data = client.get_arg().resolve(0, size)
            answer = self.device.answer(number, size, bytes(data.retrieve()))
            if answer is None:
                client.complete(-1, errno.ENOENT if number in (7, 8) else errno.EINVAL)
            else:
                data.update(0, answer)
                # Only what has a length of its own is answered with a length.
                fixed = number in (0x01, 0x02, 0x03, 0x0A) or number >= 0x40
                client.complete(0 if fixed else len(answer), 0)
        else:
            client.complete(-1, errno.EINVAL)
        return True

    def grab(self, client):
        wanted = any(bytes(client.get_arg().retrieve()))
        if self.grabbed_by is not None:
            self.holder_left(self.grabbed_by)
        if wanted and self.grabbed_by is not None:
            return -1, errno.EBUSY
        if not wanted and self.grabbed_by is not client:
            return -1, errno.EINVAL
        self.grabbed_by = client if wanted else None
        if wanted:
            GLib.timeout_add(20, self.holder_left, client)
        say("grab", self.index, int(wanted))
        return 0, 0


def add(testbed, index, device):
    """Adds the input device and its event node as the kernel and udev show them."""
    has = {kind: device.codes.get(kind, set()) for kind in TYPES.values()}
    kinds = {
        "KEYBOARD": EV_KEY in device.codes and {30, 57} <= has[EV_KEY],
        "KEY": bool(has[EV_KEY] & set(range(1, 256))),
        "MOUSE": {0, 1} <= has[2] and 272 in has[EV_KEY],
        "TABLET": 0 in device.axes and 320 in has[EV_KEY],
        "TOUCHSCREEN": 0 in device.axes and 1 in device.props,
    }
    properties = ["ID_INPUT=1"] + [f"ID_INPUT_{kind}=1" for kind, is_one in kinds.items() if is_one]
    bus, vendor, product, version = (f"{part:04x}" for part in device.id)
    parent = f"/devices/platform/harness.{index}/input/input{index}"
    lines = [
        f"P: {parent}",
        "E: SUBSYSTEM=input",
        f"E: PRODUCT={device.id[0]:x}/{device.id[1]:x}/{device.id[2]:x}/{device.id[3]:x}",
        f'E: NAME="{device.name}"',
        *(f"E: {line}" for line in properties),
        f"A: name={device.name}\\n",
        f"A: uniq={device.uniq}\\n",
        f"A: phys=mock/{device.name}\\n",
        f"A: id/bustype={bus}\\n",
        f"A: id/vendor={vendor}\\n",
        f"A: id/product={product}\\n",
        f"A: id/version={version}\\n",
        "",
        f"P: {parent}/event{index}",
        f"N: input/event{index}",
        "E: SUBSYSTEM=input",
        f"E: DEVNAME=/dev/input/event{index}",
        "L: device=..",
        "E: MAJOR=13",
        f"E: MINOR={64 + index}",
        *(f"E: {line}" for line in properties),
        f"A: dev=13:{64 + index}\\n",
        "",
    ]
    testbed.add_from_string("\n".join(lines))


def share(root):
    """Services run as other users: let them in."""
    for folder, folders, files in os.walk(root):
        os.chmod(folder, 0o755)
        for name in files:
            path = os.path.join(folder, name)
            # The last one answers for folders of nodes, which a service opens for its sandbox.
            if ("/dev/" in path or name == "_default") and os.path.exists(path):
                os.chmod(path, 0o666)


def watch_writes(index, device, master):
    """Reports the LEDs that the program under test sets."""
    pending = bytearray()

    def readable(_fd, _condition):
        pending.extend(os.read(master, 24 * 64))
        while len(pending) >= EVENT.size:
            _, _, kind, code, value = EVENT.unpack_from(pending)
            del pending[: EVENT.size]
            device.follow(kind, code, value)
            if kind == EV_LED:
                say("led", index, code, value)
        return GLib.SOURCE_CONTINUE

    return GLib.unix_fd_add_full(GLib.PRIORITY_DEFAULT, master, GLib.IO_IN, readable)


class Outlet:
    """Sends reports to the program under test, no more at a time than its terminal takes.

    A terminal holds 4096 bytes, which are no whole number of events: a program that falls behind would
    read a part of one. The kernel takes a moment to move what was written to where FIONREAD counts it,
    so half of that is the limit.
    """

    LIMIT = 2048

    def __init__(self, master, terminal):
        self.master, self.terminal = master, terminal
        self.reports, self.waits = collections.deque(), False

    def send(self, report):
        self.reports.append(report)
        if not self.waits:
            self.waits = self.flush()
            if self.waits:
                GLib.timeout_add(2, self.retry)

    def retry(self):
        self.waits = self.flush()
        return GLib.SOURCE_CONTINUE if self.waits else GLib.SOURCE_REMOVE

    def flush(self):
        """Writes what there is room for; whether something is left."""
        if not self.reports:
            return False
        unread = fcntl.ioctl(self.terminal, termios.FIONREAD, bytes(4))
        room = self.LIMIT - struct.unpack("i", unread)[0]
        while self.reports and len(self.reports[0]) <= room:
            room -= os.write(self.master, self.reports.popleft())
        return bool(self.reports)

    def close(self):
        self.reports.clear()
        os.close(self.terminal)
        os.close(self.master)


def main():
    # umockdev asks for no bytes at all when a program writes; GLib complains, harmlessly.
    GLib.log_set_handler("GLib-GIO", GLib.LogLevelFlags.LEVEL_CRITICAL, lambda *_: None, None)
    devices = [Device(path) for path in sys.argv[1:]]
    testbed = UMockdev.Testbed.new()
    handlers, outlets, watches = [], [], []
    for index, device in enumerate(devices):
        add(testbed, index, device)
        node = f"/dev/input/event{index}"
        handlers.append(Handler(index, device))
        testbed.attach_ioctl(node, handlers[-1])
        master = testbed.get_dev_fd(node)
        # Held open, or the terminal hangs up when the program under test closes it.
        terminal = os.path.realpath(testbed.get_root_dir() + node)
        handlers[-1].terminal = os.open(terminal, os.O_RDWR | os.O_NOCTTY)
        outlets.append(Outlet(master, handlers[-1].terminal))
        watches.append(watch_writes(index, device, master))
    share(testbed.get_root_dir())
    loop = GLib.MainLoop()

    commands = bytearray()

    def obey(line):
        word, index, *numbers = line.split()
        index, numbers = int(index), list(map(int, numbers))
        if word == b"events":
            report = bytearray()
            for kind, code, value in zip(numbers[0::3], numbers[1::3], numbers[2::3]):
                devices[index].follow(kind, code, value)
                # As the kernel's, an event has a time, by which a program that goes on knows that it came.
                report += EVENT.pack(int(time.time()), 0, kind, code, value)
            outlets[index].send(report)
        elif word == b"sync":
            say("synced", index)
        elif word == b"unplug":
            # The terminal hangs up, and the node is gone.
            GLib.source_remove(watches[index])
            outlets[index].close()
            os.unlink(f"{testbed.get_root_dir()}/dev/input/event{index}")

    def readable(_fd, _condition):
        # Not by sys.stdin: its buffer would hide lines from the main loop.
        received = os.read(0, 4096)
        if not received:
            loop.quit()
            return GLib.SOURCE_REMOVE
        commands.extend(received)
        while b"\n" in commands:
            line, _, rest = bytes(commands).partition(b"\n")
            commands[:] = rest
            obey(line)
        return GLib.SOURCE_CONTINUE

    GLib.unix_fd_add_full(GLib.PRIORITY_DEFAULT, 0, GLib.IO_IN | GLib.IO_HUP, readable)
    say("ready", testbed.get_root_dir())
    loop.run()


if __name__ == "__main__":
    main()
