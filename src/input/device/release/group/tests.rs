// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::fs;

use tempfile::TempDir;

use crate::input::device::release::ReleasedBy;

use super::*;

const BY_CHORD: GrabRequest = GrabRequest::Release(ReleasedBy::Chord);
const BY_COMMAND: GrabRequest = GrabRequest::Release(ReleasedBy::Command);

/// The folder of a group.
struct Group(TempDir);

impl Group {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn join(&self) -> GrabGroup {
        self.join_resumed(false)
    }

    fn join_resumed(&self, is_resumed: bool) -> GrabGroup {
        let group = GrabGroup::join(&self.file("released"), SandboxMode::On, is_resumed);
        group.expect("the folder is there")
    }

    fn files(&self) -> Vec<String> {
        let files = fs::read_dir(self.0.path()).expect("the folder is there");
        let names = files.map(|file| file.expect("a file").file_name().into_string());
        names.map(|name| name.expect("UTF-8")).collect()
    }
}

/// The next word, or none within `patience` milliseconds.
fn wait(member: &GrabGroup, patience: i64) -> Option<GrabRequest> {
    let patience = Timespec {
        tv_sec: patience / 1000,
        tv_nsec: patience % 1000 * 1_000_000,
    };
    let mut fds = [PollFd::new(member, PollFlags::IN)];
    match poll(&mut fds, Some(&patience)).expect("cannot wait") {
        0 => None,
        _ => member.next().expect("the helper lives"),
    }
}

fn next(member: &GrabGroup) -> Option<GrabRequest> {
    wait(member, 60_000)
}

#[test]
fn members_hear_of_each_other() {
    let group = Group::new();
    let [keyboard, mouse] = [group.join(), group.join()];
    for member in [&keyboard, &mouse] {
        assert_eq!(member.first(), Some(GrabRequest::Grab));
    }
    for _ in 0..20 {
        for request in [BY_CHORD, BY_COMMAND, GrabRequest::Grab] {
            keyboard.tell(request);
            assert_eq!(next(&mouse), Some(request));
        }
        for request in [BY_COMMAND, BY_CHORD, GrabRequest::Grab] {
            mouse.tell(request);
            assert_eq!(next(&keyboard), Some(request));
        }
    }
    assert_eq!(group.files(), [""; 0]);
}

#[test]
fn scripts_make_and_remove_the_file() {
    let group = Group::new();
    let member = group.join();
    fs::write(group.file("released"), "").expect("a file");
    assert_eq!(next(&member), Some(BY_COMMAND));
    fs::write(group.file("released.not"), "").expect("a file");
    fs::remove_file(group.file("released")).expect("the file is there");
    assert_eq!(next(&member), Some(GrabRequest::Grab));
    assert_eq!(wait(&member, 0), None);
}

#[test]
fn member_that_comes_later_is_told() {
    let group = Group::new();
    let keyboard = group.join();
    keyboard.tell(BY_CHORD);
    let mouse = group.join();
    // It may have joined before the word got around.
    if mouse.first() != Some(BY_CHORD) {
        assert_eq!(next(&mouse), Some(BY_CHORD));
    }
    // One that starts anew, too.
    drop(keyboard);
    assert_eq!(group.join().first(), Some(BY_CHORD));
}

/// The helpers of a VM that has ended are gone soon after.
#[test]
fn group_without_members_begins_anew() {
    let group = Group::new();
    fs::write(group.file("released"), "").expect("a file");
    fs::write(group.file("released.chord"), "").expect("a file");
    assert_eq!(group.join().first(), Some(GrabRequest::Grab));
    assert_eq!(group.files(), [""; 0]);
}

/// Their VM runs on.
#[test]
fn group_whose_members_are_all_restarted_goes_on() {
    let group = Group::new();
    fs::write(group.file("released.chord"), "").expect("a file");
    let [keyboard, mouse] = [group.join_resumed(true), group.join_resumed(true)];
    for member in [&keyboard, &mouse] {
        assert_eq!(member.first(), Some(BY_CHORD));
    }
    keyboard.tell(GrabRequest::Grab);
    assert_eq!(next(&mouse), Some(GrabRequest::Grab));
    assert_eq!(group.files(), [""; 0]);
}

#[test]
fn folder_that_cannot_be_used_is_an_error_at_the_start() {
    let group = Group::new();
    let file = group.file("missing/released");
    let error = GrabGroup::join(&file, SandboxMode::On, false).expect_err("there is no folder");
    let text = error.to_string();
    assert!(
        text.contains("missing/released") && text.contains("No such file"),
        "{text}"
    );
}

#[test]
fn helper_that_cannot_write_ends() {
    let group = Group::new();
    let member = group.join();
    fs::remove_dir(group.0.path()).expect("it is empty");
    member.tell(BY_CHORD);
    let mut fds = [PollFd::new(&member, PollFlags::IN)];
    assert_eq!(poll(&mut fds, None).ok(), Some(1));
    let error = member.next().expect_err("the helper has ended");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    fs::create_dir(group.0.path()).expect("a folder");
}
