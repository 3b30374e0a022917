use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use tempfile::TempDir;

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
        Opener::start(&self.link(), true).expect("an opener")
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
        match wait(&opener, 60) {
            Some(Answer::Another { node }) => assert_eq!(node, other),
            answer => panic!("{answer:?}"),
        }
    }
    // Unplugged and plugged in again it is as good as ours: nothing tells them apart.
    dev.unplug("event6");
    let inode = dev.plug("event6");
    let (_, found, _) = opened(&opener);
    assert_eq!(found, inode);
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
    dev.plug("event7");
    dev.links("event7");
    let (node, _, _) = opened(&opener);
    assert_eq!(node, "event7");
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
    dev.plug("event9");
    dev.links("event9");
    let (node, _, _) = opened(&opener);
    assert_eq!(node, "event9");
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
    dev.plug("event8");
    dev.links("event8");
    let (node, _, _) = opened(&opener);
    assert_eq!(node, "event8");
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
    match wait(&opener, 60) {
        Some(Answer::Another { node }) => assert_eq!(node, "event6"),
        answer => panic!("{answer:?}"),
    }
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
