// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The opener at work, within its own process.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::backend::NarrowedFiles;
use crate::input::source::evdev_source::open_file::open_file;

use super::message::{Answer, Order};
use super::names::Link;
use super::place::{Moment, Place};
use super::target::{Node, Target};

/// A new device is settled when nothing has changed for this long. udev sets its group, its links and the ranges of
/// its axes within milliseconds.
const SETTLES: Duration = Duration::from_secs(1);
/// However much goes on beside it, a device is settled this long after the first change.
const SETTLES_AT_LAST: Duration = Duration::from_secs(5);
/// A device that another process uses is tried again after this long.
const RETRIES: Duration = Duration::from_secs(5);

/// The search for a device by its name, or by what it says of itself, whenever it is gone.
///
/// Two devices of the same model may share a name, which leads to the other one when one is gone. So the names of all
/// nodes that came up while the device was there are kept: they belong to others, until they are deleted. inotify
/// reports creations and deletions in their order, however late they are read: what is created after the device's own
/// node was deleted may be the device.
#[derive(Debug)]
pub(super) struct Search {
    target: Target,
    /// The folder with the nodes.
    folder: PathBuf,
    inotify: Inotify,
    folder_watch: Option<WatchDescriptor>,
    nodes: Nodes,
    /// The nodes that the program has refused.
    refused: BTreeSet<OsString>,
    /// The link by which the device was found last.
    link: Option<Link>,
    /// What was opened last, until the program says whether it is the device.
    opened: Option<Opened>,
    /// Whether the device is gone.
    searches: bool,
    /// When the last change is to be taken as settled.
    settled_at: Option<Instant>,
    /// When the first change was seen that is not settled yet.
    unsettled_since: Option<Instant>,
    /// What the process gives up later.
    narrowed: Option<NarrowedFiles>,
}

/// What was opened, as if it were the device.
#[derive(Debug)]
struct Opened {
    link: Option<Link>,
    settled: bool,
    /// The name of its node, if that is in the folder.
    name: Option<OsString>,
    /// The nodes as they were before, and what became of them since: so they are if this is not the device.
    before: Nodes,
}

/// Whose the nodes of the folder are.
#[derive(Clone, Debug, Default)]
struct Nodes {
    /// The device's own node, while it exists.
    own: Option<OsString>,
    /// The nodes beside it.
    others: BTreeSet<OsString>,
}

impl Nodes {
    /// The device has the node `own`; all others in `folder` belong to others.
    fn held(folder: &Path, own: Option<OsString>) -> Self {
        let mut others = nodes(folder);
        if let Some(own) = &own {
            others.remove(own);
        }
        Self { own, others }
    }

    /// The device is gone since `moment`; what was made before belongs to others. Of what was made within the same
    /// tick of the clock nobody plugged in another one.
    fn since(folder: &Path, moment: Moment) -> Self {
        let mut others = nodes(folder);
        others.retain(|node| Moment::made(&folder.join(node)).is_some_and(|made| made < moment));
        Self { own: None, others }
    }

    fn created(&mut self, node: &OsStr) {
        if self.own.is_none() {
            // It may have been seen before this was told.
            self.others.remove(node);
        } else if self.own.as_deref() != Some(node) {
            self.others.insert(node.to_owned());
        }
    }

    fn deleted(&mut self, node: &OsStr) {
        self.others.remove(node);
        if self.own.as_deref() == Some(node) {
            self.own = None;
        }
    }

    /// Changes were lost, and the nodes `there` exist.
    fn follow_overflow(&mut self, mut there: BTreeSet<OsString>) {
        match &self.own {
            Some(own) if there.remove(own) => self.others = there,
            _ => {
                self.own = None;
                self.others.retain(|node| there.contains(node));
            }
        }
    }
}

impl Search {
    /// The search for a device that is at `place`.
    ///
    /// Once the folder of the nodes is there, the process gives up what is not in `narrowed`.
    pub(super) fn new(
        target: Target,
        place: Place,
        narrowed: Option<NarrowedFiles>,
    ) -> io::Result<Self> {
        let mut search = Self {
            folder: target.node_folder(),
            target,
            inotify: Inotify::init()?,
            folder_watch: None,
            nodes: Nodes::default(),
            refused: BTreeSet::new(),
            link: None,
            opened: None,
            searches: false,
            settled_at: None,
            unsettled_since: None,
            narrowed,
        };
        search.watch()?;
        search.link = search.target.link();
        if let Place::Gone(moment) = place {
            // One that udev has made since is not that of the device that is gone.
            search.link = search.link.filter(|link| link.made() < moment);
        }
        search.nodes = search.nodes_at(place);
        Ok(search)
    }

    /// Whose the nodes are if the device is at `place`.
    fn nodes_at(&self, place: Place) -> Nodes {
        let folder = &self.folder;
        match place {
            Place::Target => {
                let nodes = self.target.nodes(folder).unwrap_or_default();
                match <[Node; 1]>::try_from(nodes) {
                    Ok([own]) => Nodes::held(folder, own.name),
                    // What is there when the device is not may be the device: udev may be about to make its link.
                    Err(nodes) if nodes.is_empty() => Nodes::default(),
                    // One came up since the program chose the other: until it is deleted, its own is taken for
                    // another's.
                    Err(_) => Nodes::held(folder, None),
                }
            }
            Place::Node(node) => Nodes::held(folder, node.name_in(folder)),
            Place::Gone(moment) => Nodes::since(folder, moment),
            Place::Unknown => Nodes::held(folder, None),
        }
    }

    /// Serves the program until it ends.
    pub(super) fn run(mut self, socket: &OwnedFd) -> io::Result<()> {
        loop {
            let now = Instant::now();
            let timeout = self.settled_at.map(|at| at.saturating_duration_since(now));
            let timeout = timeout.map(Timespec::try_from).transpose();
            let timeout = timeout.map_err(io::Error::other)?;
            let mut fds = [
                PollFd::new(socket, PollFlags::IN),
                PollFd::from_borrowed_fd(self.inotify.as_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ordered = !fds[0].revents().is_empty();
            let order = if ordered {
                match Order::receive(socket)? {
                    None => return Ok(()),
                    order => order,
                }
            } else {
                None
            };
            // After the order: the node of a device that is lost was deleted before.
            let changed = self.follow_changes()?;
            let begun = order.is_some_and(|order| self.obey(order));
            if self.searches {
                self.search(changed || begun, socket)?;
            }
        }
    }

    /// Returns whether a search begins.
    fn obey(&mut self, order: Order) -> bool {
        let opened = self.opened.take();
        match order {
            Order::Accepted => {
                if let Some(opened) = opened {
                    self.link = opened.link;
                    self.refused.clear();
                }
                self.searches = false;
                self.settle_at(None);
                false
            }
            Order::Lost => {
                // Nobody's word makes others' nodes the device's: its own is gone when the kernel has deleted it.
                self.searches = true;
                true
            }
            Order::Refused | Order::Busy => {
                if let Some(opened) = opened {
                    self.close(opened, order);
                }
                false
            }
        }
    }

    /// What was opened is not the device, or cannot be used now.
    fn close(&mut self, opened: Opened, order: Order) {
        self.nodes = opened.before;
        self.searches = true;
        let now = Instant::now();
        match order {
            // It is opened once more: its owner or the ranges of its axes may be set late.
            _ if !opened.settled => self.settle_at(Some(now + SETTLES)),
            Order::Busy => self.settle_at(Some(now + RETRIES)),
            _ => self.refused.extend(opened.name),
        }
    }

    fn settle_at(&mut self, at: Option<Instant>) {
        self.settled_at = at;
        self.unsettled_since = None;
    }

    /// Watches the folders that say when the device is back.
    fn watch(&mut self) -> io::Result<()> {
        let mask = WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::ATTRIB
            | WatchMask::DELETE_SELF
            | WatchMask::ONLYDIR;
        let mut watches = self.inotify.watches();
        self.folder_watch = watches.add(&self.folder, mask).ok();
        // A folder may be made just before the one above is watched: then it is the nearest one the next time.
        let mut before = Vec::new();
        loop {
            let folders = self.target.folders();
            if folders == before {
                return Ok(());
            }
            for folder in &folders {
                match watches.add(folder, mask) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            before = folders;
        }
    }

    /// Takes note of the nodes that were made and deleted. Returns whether anything changed.
    fn follow_changes(&mut self) -> io::Result<bool> {
        let mut changed = false;
        let mut buffer = [0; 4096];
        loop {
            let events = match self.inotify.read_events(&mut buffer) {
                Ok(events) => events,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changed),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let mut overflow = false;
            for event in events {
                changed = true;
                overflow |= event.mask.contains(EventMask::Q_OVERFLOW);
                let of_node = self.folder_watch.as_ref() == Some(&event.wd);
                let Some(node) = event.name.filter(|_| of_node) else {
                    continue;
                };
                if event
                    .mask
                    .intersects(EventMask::CREATE | EventMask::MOVED_TO)
                {
                    self.created(node);
                } else if event
                    .mask
                    .intersects(EventMask::DELETE | EventMask::MOVED_FROM)
                {
                    self.deleted(node);
                }
            }
            if overflow {
                self.follow_overflow();
            }
        }
    }

    /// The nodes as they are, and as they were before one was opened.
    fn all_nodes(&mut self) -> impl Iterator<Item = &mut Nodes> {
        let before = self.opened.as_mut().map(|opened| &mut opened.before);
        std::iter::once(&mut self.nodes).chain(before)
    }

    fn created(&mut self, node: &OsStr) {
        self.refused.remove(node);
        self.all_nodes().for_each(|nodes| nodes.created(node));
    }

    fn deleted(&mut self, node: &OsStr) {
        self.refused.remove(node);
        self.all_nodes().for_each(|nodes| nodes.deleted(node));
    }

    /// Changes were lost.
    fn follow_overflow(&mut self) {
        let there = nodes(&self.folder);
        self.all_nodes()
            .for_each(|nodes| nodes.follow_overflow(there.clone()));
    }

    /// Opens the device if it is back.
    fn search(&mut self, changed: bool, socket: &OwnedFd) -> io::Result<()> {
        if changed {
            let now = Instant::now();
            let since = *self.unsettled_since.get_or_insert(now);
            self.settled_at = Some((now + SETTLES).min(since + SETTLES_AT_LAST));
        }
        let settled = self.settled_at.is_some_and(|at| Instant::now() >= at);
        if !changed && !settled {
            return Ok(());
        }
        if settled {
            self.settle_at(None);
        }
        self.watch()?;
        if let Some(narrowed) = self.narrowed.take_if(|_| self.folder.is_dir()) {
            narrowed.enter()?;
        }
        let Some(answer) = self.find(settled) else {
            return Ok(());
        };
        if let Answer::Opened { .. } = answer {
            self.searches = false;
        }
        answer.send(socket)?;
        Ok(())
    }

    /// What may be the device now; `None` if it is to be looked for again after the next change.
    fn find(&mut self, settled: bool) -> Option<Answer> {
        let link = self.target.link();
        let mut nodes = match self.target.nodes(&self.folder) {
            Ok(nodes) => nodes,
            Err(error) => return settled.then_some(Answer::Failed(error)),
        };
        let is_in = |set: &BTreeSet<OsString>, node: &Node| {
            let name = node.name.as_ref();
            name.is_some_and(|name| set.contains(name))
        };
        nodes.retain(|node| !is_in(&self.refused, node));
        let (others, mut nodes): (Vec<_>, Vec<_>) = nodes
            .into_iter()
            .partition(|node| is_in(&self.nodes.others, node));
        if nodes.iter().filter(|node| node.is_at_port).count() == 1 {
            nodes.retain(|node| node.is_at_port);
        }
        let name = |node: Node| node.name.unwrap_or_default();
        let node = match <[Node; 1]>::try_from(nodes) {
            Ok([node]) => node,
            Err(nodes) => {
                let another = others.into_iter().next();
                let answer = match nodes.is_empty() {
                    true => Answer::Another {
                        node: name(another?),
                    },
                    // Nothing tells them apart.
                    false => Answer::Several {
                        nodes: nodes.into_iter().map(name).collect(),
                    },
                };
                return settled.then_some(answer);
            }
        };
        // udev may not have noticed yet that the link's device is gone, and the node may be of another one already.
        if link.is_some() && link == self.link && !settled {
            return None;
        }
        match open_file(&node.path) {
            Ok(file) => {
                let held = Nodes::held(&self.folder, node.name.clone());
                self.opened = Some(Opened {
                    link,
                    settled,
                    name: node.name,
                    before: std::mem::replace(&mut self.nodes, held),
                });
                Some(Answer::Opened {
                    file: file.into(),
                    node: node.path.file_name().unwrap_or_default().to_owned(),
                    settled,
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => settled.then_some(Answer::Failed(error)),
        }
    }
}

/// The names of the nodes in `folder`.
fn nodes(folder: &Path) -> BTreeSet<OsString> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.flatten().map(|entry| entry.file_name()).collect()
}
