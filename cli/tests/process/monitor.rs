// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl monitor` on a mock machine with hotplug.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::common::json_members::Members;
use crate::common::{missing, vhostctl};

const SOON: Duration = Duration::from_secs(60);

/// Makes and removes mock devices: "add NAME" and "remove NAME" on standard input, perhaps with the seconds
/// between two of them.
const MACHINE: &str = r#"
import sys
import time
import gi
gi.require_version("UMockdev", "1.0")
from gi.repository import UMockdev

testbed = UMockdev.Testbed.new()
places = {}
print(testbed.get_root_dir(), flush=True)
for line in sys.stdin:
    verb, name, *pause = line.split()
    if verb == "add":
        with open(sys.argv[1] + "/" + name + ".umockdev") as description:
            text = description.read()
        testbed.add_from_string(text)
        blocks = text.strip().split("\n\n")
        places[name] = ["/sys" + block.split("\n")[0][3:] for block in blocks if "\nN: " in block]
    # Devices go in the other order.
    for place in places[name] if verb == "add" else reversed(places[name]):
        testbed.uevent(place, verb)
        # It drops what the reader is too slow for: a socket takes ten at once.
        time.sleep(float(pause[0]) if pause else 0.1)
    if verb == "remove":
        for place in reversed(places[name]):
            testbed.remove_device(place)
"#;

/// A mock machine; gone when dropped.
struct Machine {
    server: Child,
    commands: ChildStdin,
    root: String,
}

impl Machine {
    fn new() -> Option<Self> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mock");
        // Debian's own: another Python in PATH lacks its modules.
        let mut server = Command::new("/usr/bin/python3")
            .args(["-c", MACHINE, folder])
            .env("LD_PRELOAD", "libumockdev-preload.so.0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        let commands = server.stdin.take()?;
        let mut root = String::new();
        BufReader::new(server.stdout.take()?)
            .read_line(&mut root)
            .ok()?;
        let machine = Self {
            server,
            commands,
            root: root.trim().to_owned(),
        };
        if machine.root.is_empty() {
            missing("packages umockdev, gir1.2-umockdev-1.0 and python3-gi");
            return None;
        }
        Some(machine)
    }

    fn say(&mut self, line: &str) {
        writeln!(self.commands, "{line}").expect("the mock machine");
    }

    fn monitor(&self, arguments: &[&str]) -> Monitor {
        let mut child = vhostctl()
            .args(["monitor", "--devices"])
            .args(arguments)
            .env("LD_PRELOAD", "libumockdev-preload.so.0")
            .env("UMOCKDEV_DIR", &self.root)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("vhostctl");
        let mut ready = String::new();
        BufReader::new(child.stderr.take().expect("stderr"))
            .read_line(&mut ready)
            .expect("a line");
        assert_eq!(ready, "Watching devices.\n");
        Monitor { child }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A running monitor; killed when dropped.
struct Monitor {
    child: Child,
}

impl Monitor {
    /// Its lines as they come.
    fn lines(&mut self) -> Receiver<String> {
        let stdout = self.child.stdout.take().expect("stdout");
        let (sender, receiver) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        receiver
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a signal");
    }

    fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The next line that has this in it.
fn find(lines: &Receiver<String>, text: &str) -> String {
    let deadline = Instant::now() + SOON;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) if line.contains(text) => return line,
            Ok(_) => {}
            Err(error) => panic!("no line with {text:?}: {error}"),
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn monitor_shows_hotplug() {
    let Some(mut machine) = Machine::new() else {
        return;
    };
    let mut monitor = machine.monitor(&[]);
    let lines = monitor.lines();
    machine.say("add laptop");
    let line = find(&lines, "/dev/input/event2 ");
    assert!(line.contains(" added "), "{line}");
    assert!(
        line.ends_with(" keyboard, AT Translated Set 2 keyboard"),
        "{line}"
    );
    // The last one is there, so nobody has anything else to do.
    find(&lines, "/dev/input/event100 ");
    machine.say("remove laptop");
    let line = find(&lines, " /dev/input/event2 ");
    assert!(line.contains(" removed "), "{line}");
    assert!(
        line.ends_with(" keyboard, AT Translated Set 2 keyboard"),
        "what is gone is still known: {line}"
    );
    monitor.signal(Signal::TERM);
    assert_eq!(monitor.wait(), Some(0));
}

#[test]
fn device_cannot_steer_the_terminal() {
    let Some(mut machine) = Machine::new() else {
        return;
    };
    let mut monitor = machine.monitor(&[]);
    let lines = monitor.lines();
    machine.say("add oddities");
    let line = find(&lines, " /dev/input/event3 ");
    assert!(line.ends_with(r" other, Evil \x1b[2J Device"), "{line:?}");
}

#[test]
fn monitor_writes_a_line_per_event() {
    let Some(mut machine) = Machine::new() else {
        return;
    };
    let mut monitor = machine.monitor(&["-j"]);
    let lines = monitor.lines();
    machine.say("add laptop");
    let first = lines.recv_timeout(SOON).expect("a line");
    let event: Value = serde_json::from_str(&first).expect("JSON");
    let documented = Members::under(&["`vhostctl monitor`: a device"]).expect("docs/json.md");
    documented.check(&event).expect("its members");
    assert_eq!(event["event"], "device", "{event}");
    assert_eq!(event["action"], "added", "{event}");
    let node = event["device"]["node"].as_str().expect("a node");
    assert!(node.starts_with("/dev/"), "{event}");
    assert!(
        event["time"]
            .as_str()
            .is_some_and(|time| time.ends_with('Z'))
    );

    let gpu: Value = match event["device"]["type"].as_str() {
        Some("gpu") => event,
        _ => serde_json::from_str(&find(&lines, "renderD128")).expect("JSON"),
    };
    assert_eq!(gpu["device"]["driver"], json!("i915"), "{gpu}");
    // The last one is there. What is told while others are still to be read may be dropped.
    find(&lines, "/dev/input/event100\"");
    machine.say("remove laptop");
    let gone: Value = serde_json::from_str(&find(&lines, "removed")).expect("JSON");
    assert!(gone["device"]["node"].is_string(), "{gone}");
    monitor.signal(Signal::INT);
    assert_eq!(monitor.wait(), Some(0));
}

#[test]
fn monitor_ends_when_its_reader_leaves() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let mut monitor = machine.monitor(&[]);
    drop(monitor.child.stdout.take());
    assert_eq!(monitor.wait(), Some(0));
}

#[test]
fn monitor_ends_though_its_reader_is_stuck() {
    let Some(mut machine) = Machine::new() else {
        return;
    };
    let mut monitor = machine.monitor(&["-j"]);
    // Several times what a pipe holds: the program waits in the middle of a write.
    for _ in 0..16 {
        machine.say("add laptop 0.01");
        machine.say("remove laptop 0.01");
    }
    thread::sleep(Duration::from_secs(4));
    monitor.signal(Signal::TERM);
    assert_eq!(monitor.wait(), Some(0));
}
