// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::PathBuf;

use conventions::{InputIdentity, InputMatch};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use tempfile::TempDir;

use crate::input::source::evdev_source::port::Port;
use crate::input::source::evdev_source::sysfs::{self, InputFolders};

use super::place::Moment;
use super::*;

/// A folder with nodes, which are plain files here, and a folder in it with links, as udev makes them.
struct Dev {
    folder: TempDir,
}

impl Dev {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    fn node(&self, node: &str) -> PathBuf {
        self.folder.path().join(node)
    }

    fn link(&self) -> PathBuf {
        self.folder.path().join("by-id/keyboard")
    }

    /// A device comes up. Returns the inode of its node.
    fn plug(&self, node: &str) -> u64 {
        fs::write(self.node(node), "").expect("a node");
        let node = fs::metadata(self.node(node));
        node.expect("a node").ino()
    }

    fn unplug(&self, node: &str) {
        fs::remove_file(self.node(node)).expect("a node");
    }

    /// udev makes the link, in one step.
    fn links(&self, node: &str) {
        fs::create_dir_all(self.node("by-id")).expect("a folder");
        let new = self.node("by-id/.new");
        symlink(format!("../{node}"), &new).expect("a link");
        fs::rename(new, self.link()).expect("a link");
    }

    /// udev removes the link, and the folder with it.
    fn unlinks(&self) {
        fs::remove_file(self.link()).expect("a link");
        fs::remove_dir(self.node("by-id")).expect("an empty folder");
    }

    fn opener(&self) -> Opener {
        self.opener_at(Place::Target)
    }

    fn opener_at(&self, place: Place) -> Opener {
        Opener::start(Target::Path(self.link()), place, SandboxMode::On).expect("an opener")
    }
}

/// The next answer, or none within `patience`.
fn wait(opener: &Opener, patience: i64) -> Option<Answer> {
    let mut fds = [PollFd::new(opener, PollFlags::IN)];
    let patience = Timespec {
        tv_sec: patience,
        tv_nsec: 0,
    };
    match poll(&mut fds, Some(&patience)).expect("cannot wait") {
        0 => None,
        _ => Some(opener.answer().expect("the opener lives")),
    }
}

/// The next answer is an open node: its name and inode, and whether it is settled.
#[track_caller]
fn opened(opener: &Opener) -> (String, u64, bool) {
    match wait(opener, 60) {
        Some(Answer::Opened {
            file,
            node,
            settled,
        }) => {
            let inode = fs::File::from(file).metadata().expect("a node").ino();
            (node.to_string_lossy().into_owned(), inode, settled)
        }
        other => panic!("{other:?}"),
    }
}

/// The next answer is that `node` is another device.
#[track_caller]
fn refuses(opener: &Opener, node: &str) {
    match wait(opener, 60) {
        Some(Answer::Another { node: refused }) => assert_eq!(refused, node),
        answer => panic!("{answer:?}"),
    }
}

/// A device comes up as `node`, udev makes its link, and it is opened.
#[track_caller]
fn opens(opener: &Opener, dev: &Dev, node: &str) {
    let inode = dev.plug(node);
    dev.links(node);
    let (opened, found, _) = opened(opener);
    assert_eq!((opened.as_str(), found), (node, inode));
}

/// An opener whose device is there, as event5.
fn holding(dev: &Dev) -> Opener {
    dev.plug("event5");
    dev.links("event5");
    dev.opener()
}

#[test]
fn device_that_comes_back_under_another_number_is_opened() {
    let dev = Dev::new();
    let opener = holding(&dev);
    let mut before = "event5".to_owned();
    for number in 6..40 {
        dev.unplug(&before);
        opener.lost();
        dev.unlinks();
        let node = format!("event{number}");
        let inode = dev.plug(&node);
        dev.links(&node);
        let (name, found, _) = opened(&opener);
        assert_eq!((&name, found), (&node, inode));
        opener.accepted();
        before = node;
    }
}

#[test]
fn device_that_is_back_before_its_loss_is_noticed_is_opened() {
    let dev = Dev::new();
    let opener = holding(&dev);
    dev.unplug("event5");
    dev.unlinks();
    // The number may be the same.
    let inode = dev.plug("event5");
    dev.links("event5");
    opener.lost();
    let (node, found, _) = opened(&opener);
    assert_eq!((node.as_str(), found), ("event5", inode));
}

#[test]
fn device_that_was_absent_is_opened_when_it_comes() {
    let dev = Dev::new();
    dev.plug("event0");
    // udev is about to make its link.
    dev.plug("event1");
    let opener = dev.opener();
    opener.lost();
    dev.links("event1");
    let (node, _, _) = opened(&opener);
    assert_eq!(node, "event1");
}

/// Two devices of one model have the same link, which udev gives to the other one when one is gone.
#[test]
fn device_that_was_there_beside_it_is_never_opened() {
    let dev = Dev::new();
    dev.plug("event4");
    let opener = holding(&dev);
    dev.plug("event6");
    for other in ["event4", "event6"] {
        dev.links(other);
        if other == "event4" {
            dev.unplug("event5");
            opener.lost();
        }
        refuses(&opener, other);
    }
    // Unplugged and plugged in again it is as good as ours: nothing tells them apart.
    dev.unplug("event6");
    let inode = dev.plug("event6");
    let (_, found, _) = opened(&opener);
    assert_eq!(found, inode);
}

/// A process goes on with a device whose link leads to its twin by now.
#[test]
fn twin_that_has_the_link_when_a_successor_starts_is_not_opened() {
    let dev = Dev::new();
    dev.plug("event5");
    let kept = fs::File::open(dev.node("event5")).expect("a node");
    dev.plug("event6");
    dev.links("event6");
    let opener = dev.opener_at(Place::left(Some(kept.as_fd())));
    dev.unplug("event5");
    opener.lost();
    refuses(&opener, "event6");
    opens(&opener, &dev, "event5");
}

/// The device is event5 while a process opens it, and gone now.
fn left_by_a_predecessor(dev: &Dev) -> Place {
    dev.plug("event5");
    let kept = fs::File::open(dev.node("event5")).expect("a node");
    dev.unplug("event5");
    let place = Place::left(Some(kept.as_fd()));
    assert!(matches!(place, Place::Gone(_)), "{place:?}");
    place
}

/// Waits until the clock of the file system has gone on.
fn wait_for_a_tick(dev: &Dev) {
    let made = || {
        fs::write(dev.node("clock"), "").expect("a file");
        let made = Moment::made(&dev.node("clock")).expect("a file");
        fs::remove_file(dev.node("clock")).expect("a file");
        made
    };
    let before = made();
    while made() == before {}
}

/// It went and came back while no process lived, perhaps under the number it had, and with or without a link by then.
#[test]
fn device_that_came_back_before_a_successor_started_is_opened() {
    for node in ["event5", "event7"] {
        for linked in [true, false] {
            let dev = Dev::new();
            dev.plug("event4");
            wait_for_a_tick(&dev);
            let place = left_by_a_predecessor(&dev);
            let inode = dev.plug(node);
            if linked {
                dev.links(node);
            }
            let opener = dev.opener_at(place);
            opener.lost();
            if !linked {
                dev.links(node);
            }
            let (name, found, settled) = opened(&opener);
            assert_eq!((name.as_str(), found), (node, inode));
            assert!(!settled, "a link that is new is followed at once");
        }
    }
}

/// Its link leads to a twin, which was there before it went.
#[test]
fn twin_that_was_there_before_a_successor_started_is_not_opened() {
    let dev = Dev::new();
    dev.plug("event6");
    wait_for_a_tick(&dev);
    let place = left_by_a_predecessor(&dev);
    dev.links("event6");
    let opener = dev.opener_at(place);
    opener.lost();
    refuses(&opener, "event6");
    opens(&opener, &dev, "event5");
}

/// udev has not noticed yet that the device is gone, and another one has its number.
#[test]
fn old_link_is_not_followed_at_once_when_a_successor_starts() {
    let dev = Dev::new();
    dev.links("event5");
    wait_for_a_tick(&dev);
    let place = left_by_a_predecessor(&dev);
    dev.plug("event5");
    let opener = dev.opener_at(place);
    opener.lost();
    opens(&opener, &dev, "event7");
}

/// Nobody knows since when the device is gone.
#[test]
fn nodes_that_a_successor_finds_without_a_trace_of_the_device_are_not_opened() {
    let dev = Dev::new();
    dev.plug("event5");
    dev.links("event5");
    let opener = dev.opener_at(Place::left(None));
    opener.lost();
    refuses(&opener, "event5");
    opens(&opener, &dev, "event7");
}

/// The device is gone, and another one has its number before udev has removed the link.
#[test]
fn link_of_the_device_that_is_gone_is_not_followed_at_once() {
    let dev = Dev::new();
    let opener = holding(&dev);
    dev.unplug("event5");
    dev.plug("event5");
    opener.lost();
    // udev catches up.
    opens(&opener, &dev, "event7");
}

/// A link that is not udev's stays as it is.
#[test]
fn link_that_stays_is_followed_when_nothing_changes_any_more() {
    let dev = Dev::new();
    let opener = holding(&dev);
    dev.unplug("event5");
    opener.lost();
    let inode = dev.plug("event5");
    let (_, found, settled) = opened(&opener);
    assert_eq!((found, settled), (inode, true));
}

#[test]
fn device_that_is_refused_is_opened_once_more_and_then_not_again() {
    let dev = Dev::new();
    let opener = holding(&dev);
    dev.unplug("event5");
    opener.lost();
    dev.unlinks();
    dev.plug("event8");
    dev.links("event8");
    let mut settled = false;
    while !settled {
        let (node, _, now) = opened(&opener);
        assert_eq!(node, "event8");
        settled = now;
        opener.refused();
    }
    dev.plug("event7");
    assert!(wait(&opener, 2).is_none());
    opens(&opener, &dev, "event9");
}

/// Two devices of one model come up at once, and their link leads to the other one first.
#[test]
fn device_whose_link_leads_to_a_sibling_first_is_opened() {
    let dev = Dev::new();
    let opener = holding(&dev);
    dev.unplug("event5");
    opener.lost();
    dev.unlinks();
    dev.plug("event9");
    opens(&opener, &dev, "event8");
    opener.refused();
    dev.links("event9");
    let mut node = opened(&opener).0;
    while node == "event8" {
        opener.refused();
        node = opened(&opener).0;
    }
    assert_eq!(node, "event9");
}

#[test]
fn device_that_another_process_uses_is_tried_again() {
    let dev = Dev::new();
    let opener = holding(&dev);
    dev.unplug("event5");
    opener.lost();
    dev.unlinks();
    dev.plug("event8");
    dev.links("event8");
    for _ in 0..2 {
        while !opened(&opener).2 {
            opener.busy();
        }
        opener.busy();
    }
}

/// Only the kernel says that the device is gone: an order alone frees no other node.
#[test]
fn order_makes_no_other_node_the_devices() {
    let dev = Dev::new();
    let opener = holding(&dev);
    opener.lost();
    opener.refused();
    opener.lost();
    // The program's orders are obeyed before the node comes up.
    assert!(matches!(wait(&opener, 60), Some(Answer::Opened { .. })));
    opener.refused();
    dev.plug("event6");
    dev.links("event6");
    refuses(&opener, "event6");
}

/// Other devices come and go all the time.
#[test]
fn device_settles_amid_changes() {
    let dev = Dev::new();
    let opener = holding(&dev);
    dev.unplug("event5");
    opener.lost();
    let inode = dev.plug("event5");
    let mut found = None;
    for _ in 0..40 {
        dev.plug("event30");
        dev.unplug("event30");
        found = found.or_else(|| wait(&opener, 0));
        std::thread::sleep(std::time::Duration::from_millis(250));
    }
    match found {
        Some(Answer::Opened { file, .. }) => {
            let metadata = fs::File::from(file).metadata();
            assert_eq!(metadata.expect("a node").ino(), inode);
        }
        answer => panic!("{answer:?}"),
    }
}

#[test]
fn what_cannot_be_opened_is_reported() {
    let dev = Dev::new();
    let opener = holding(&dev);
    dev.unplug("event5");
    opener.lost();
    fs::create_dir(dev.node("event6")).expect("a folder");
    dev.links("event6");
    match wait(&opener, 60) {
        Some(Answer::Failed(error)) => assert_eq!(error.kind(), io::ErrorKind::IsADirectory),
        answer => panic!("{answer:?}"),
    }
}

/// Nothing but what is in the folder of the nodes, wherever the name leads to.
#[test]
fn nodes_elsewhere_cannot_be_opened() {
    let dev = Dev::new();
    let elsewhere = Dev::new();
    let opener = holding(&dev);
    elsewhere.plug("event5");
    dev.unplug("event5");
    opener.lost();
    dev.links(&format!("../..{}", elsewhere.node("event5").display()));
    match wait(&opener, 60) {
        Some(Answer::Failed(error)) => {
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        }
        answer => panic!("{answer:?}"),
    }
}

/// A host without any input device at the start has no folder for them: what lies beside that cannot be opened later.
#[test]
fn nodes_beside_a_folder_that_comes_later_cannot_be_opened() {
    let root = tempfile::tempdir().expect("a folder");
    let folders = InputFolders::apart(root.path());
    let [dev, sys] = ["dev", "sys"].map(|name| root.path().join(name));
    fs::create_dir(&dev).expect("a folder");
    fs::create_dir(&sys).expect("a folder");
    let rule = InputMatch::new("046d:c31c".parse().expect("numbers"));
    let target = Target::Match(rule, folders.clone(), Port::default());
    let opener = Opener::start(target, Place::Target, SandboxMode::On).expect("an opener");
    opener.lost();
    folders.plug("event3", &keyboard("A"));
    assert_eq!(opened(&opener).0, "event3");
    opener.accepted();
    folders.unplug("event3");
    opener.lost();
    fs::write(dev.join("outside"), "").expect("a file");
    // Before the kernel says of it what it is.
    symlink("../outside", dev.join("input/event4")).expect("a link");
    folders.plug("event4", &keyboard("A"));
    fs::write(dev.join("input/js0"), "").expect("a change");
    match wait(&opener, 60) {
        Some(Answer::Failed(error)) => {
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        }
        answer => panic!("{answer:?}"),
    }
    folders.unplug("event4");
    folders.plug("event5", &keyboard("A"));
    assert_eq!(opened(&opener).0, "event5");
}

#[test]
fn opener_ends_with_its_program() {
    let dev = Dev::new();
    let opener = dev.opener();
    rustix::net::shutdown(&opener.socket, rustix::net::Shutdown::Write).expect("a socket");
    let mut fds = [PollFd::new(&opener, PollFlags::IN)];
    poll(&mut fds, None).expect("cannot wait");
    let error = opener.answer().expect_err("it has ended");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

/// Nodes that are found by what the kernel says of them.
struct Matched {
    _root: TempDir,
    folders: InputFolders,
}

fn keyboard(serial: &str) -> InputIdentity {
    sysfs::keyboard("Keyboard", serial)
}

impl Matched {
    /// With a device of another kind, and one of the same model that is another node of it.
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let folders = InputFolders::within(root.path());
        let media = InputIdentity {
            name: "Keyboard Consumer Control".to_owned(),
            ..keyboard("A")
        };
        let mouse = InputIdentity {
            product: 0xc077,
            ..keyboard("A")
        };
        folders.plug("event3", &media);
        folders.plug("event4", &mouse);
        Self {
            _root: root,
            folders,
        }
    }

    fn opener(&self, serial: Option<&str>) -> Opener {
        self.opener_at(serial, Place::Target)
    }

    fn opener_at(&self, serial: Option<&str>, place: Place) -> Opener {
        let mut rule = InputMatch::new("046d:c31c".parse().expect("ids"));
        rule.ids.serial = serial.map(str::to_owned);
        rule.name = Some("Keyboard".to_owned());
        let target = Target::Match(rule, self.folders.clone(), Port::from("usb-2/input0"));
        Opener::start(target, place, SandboxMode::On).expect("an opener")
    }
}

#[test]
fn device_that_matches_is_opened_under_any_number() {
    let dev = Matched::new();
    dev.folders.plug("event5", &keyboard("A"));
    let opener = dev.opener(Some("A"));
    let mut before = "event5".to_owned();
    for number in 6..40 {
        dev.folders.unplug(&before);
        // The number that it had is another one's.
        let other = before.clone();
        dev.folders.plug(&other, &keyboard("B"));
        opener.lost();
        let node = format!("event{number}");
        dev.folders.plug(&node, &keyboard("A"));
        let (name, _, _) = opened(&opener);
        assert_eq!(name, node);
        opener.accepted();
        dev.folders.unplug(&other);
        before = node;
    }
}

#[test]
fn device_that_matches_and_was_absent_is_opened_when_it_comes() {
    let dev = Matched::new();
    let opener = dev.opener(None);
    opener.lost();
    dev.folders.plug("event5", &keyboard("B"));
    assert_eq!(opened(&opener).0, "event5");
}

#[test]
fn twin_that_was_there_beside_it_is_not_opened() {
    let dev = Matched::new();
    dev.folders.plug("event5", &keyboard(""));
    let opener = dev.opener(None);
    dev.folders.plug("event6", &keyboard(""));
    dev.folders.unplug("event5");
    opener.lost();
    refuses(&opener, "event6");
    dev.folders.plug("event7", &keyboard(""));
    assert_eq!(opened(&opener).0, "event7");
}

/// It came up while the program was about to open the device.
#[test]
fn twin_that_was_there_from_the_start_is_not_opened() {
    let dev = Matched::new();
    for node in ["event5", "event6"] {
        dev.folders.plug(node, &keyboard(""));
    }
    let opener = dev.opener(None);
    dev.folders.unplug("event5");
    opener.lost();
    refuses(&opener, "event6");
    dev.folders.plug("event5", &keyboard(""));
    assert_eq!(opened(&opener).0, "event5");
}

/// It came up while no process lived.
#[test]
fn twin_that_a_successor_finds_is_not_opened() {
    let dev = Matched::new();
    dev.folders.plug("event5", &keyboard(""));
    let kept = fs::File::open(dev.folders.nodes().join("event5")).expect("a node");
    dev.folders.plug("event4", &keyboard(""));
    let opener = dev.opener_at(None, Place::left(Some(kept.as_fd())));
    dev.folders.unplug("event5");
    opener.lost();
    refuses(&opener, "event4");
    dev.folders.plug("event5", &keyboard(""));
    assert_eq!(opened(&opener).0, "event5");
}

/// Both were unplugged: nothing tells which one is ours.
#[test]
fn twins_that_come_at_once_are_both_left_alone() {
    let dev = Matched::new();
    let opener = dev.opener(None);
    for node in ["event5", "event6"] {
        dev.folders.plug(node, &keyboard(""));
    }
    opener.lost();
    match wait(&opener, 60) {
        Some(Answer::Several { nodes }) => assert_eq!(nodes, ["event5", "event6"]),
        answer => panic!("{answer:?}"),
    }
    dev.folders.unplug("event5");
    assert_eq!(opened(&opener).0, "event6");
}

/// Behind a switch both go and come.
#[test]
fn of_twins_that_come_at_once_the_one_at_its_port_is_opened() {
    let dev = Matched::new();
    let opener = dev.opener(None);
    let here = InputIdentity {
        phys: "usb-2/input0".to_owned(),
        ..keyboard("")
    };
    for (node, device) in [("event5", &keyboard("")), ("event6", &here)] {
        dev.folders.plug(node, device);
    }
    opener.lost();
    assert_eq!(opened(&opener).0, "event6");
}

#[test]
fn other_devices_are_not_opened() {
    let dev = Matched::new();
    let opener = dev.opener(None);
    opener.lost();
    // Named like it, and with its numbers: not both.
    let other = InputIdentity {
        vendor: 1,
        ..keyboard("")
    };
    dev.folders.plug("event5", &other);
    assert!(wait(&opener, 2).is_none());
}
