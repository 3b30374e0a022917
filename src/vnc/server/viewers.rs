// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The viewers that are connected.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::peer::{ViewerPeer, status_text};
use super::places::{User, who_gives_up, who_leaves};
use super::poller::{EventFlags, Poller};
use super::tcp;
use crate::vnc::head::Head;
use crate::vnc::input::ViewerId;
use crate::vnc::viewer::{Viewer, ViewerError};

/// Most viewers, of all heads together.
const MAX_VIEWERS: usize = 32;
/// Most connections that have not done their handshake, or are just being told that there are too many viewers.
const MAX_UNFINISHED: usize = 32;
/// Tokens of viewers begin here.
pub(super) const FIRST_TOKEN: u64 = 1 << 32;
/// How long a viewer waits for the guest's picture before it gets a text.
const PATIENCE: Duration = Duration::from_secs(1);

/// A connected viewer.
pub(super) struct Connected {
    pub(super) viewer: Viewer,
    /// Which head it looks at.
    pub(super) head: usize,
    pub(super) peer: ViewerPeer,
    /// Whether it may vanish without the kernel's knowing.
    is_remote: bool,
    /// Whether it has done its handshake: then it counts.
    looks: bool,
    /// Until when it waits for the picture.
    patience: Option<Instant>,
    interest: EventFlags,
}

/// Where one more viewer can be.
enum Place {
    /// There is room.
    Free,
    /// In the place of this one, which leaves.
    Of(u64),
    /// Nowhere.
    None,
}

/// The viewers that are connected, by number.
#[derive(Default)]
pub(super) struct Viewers {
    connected: BTreeMap<u64, Connected>,
    last: u64,
    /// When to see next whether peers are still there.
    next_check: Option<Instant>,
}

impl Viewers {
    /// Adds a viewer of `head`, or one that is told that there are too many.
    pub(super) fn add(
        &mut self,
        socket: OwnedFd,
        peer: ViewerPeer,
        head: usize,
        poller: &Poller,
        now: Instant,
    ) -> io::Result<()> {
        let viewer = match self.place(peer.user()) {
            Place::None => {
                let reason = ViewerError::TooMany(MAX_VIEWERS).to_string();
                Viewer::refused(socket, &reason, now)
            }
            Place::Free | Place::Of(_) => Viewer::new(socket, now),
        };
        self.last += 1;
        let interest = EventFlags::IN;
        poller.add(viewer.socket(), FIRST_TOKEN + self.last, interest)?;
        let connected = Connected {
            is_remote: tcp::is_remote(viewer.socket()),
            viewer,
            head,
            peer,
            looks: false,
            patience: None,
            interest,
        };
        self.connected.insert(self.last, connected);
        Ok(())
    }

    /// The connection that is closed before another one of `user` is accepted: there are too many without a handshake.
    pub(super) fn surplus(&self, user: User) -> Option<u64> {
        let unfinished = self.users(false);
        let is_full = unfinished.clone().count() >= MAX_UNFINISHED;
        is_full.then(|| who_gives_up(unfinished, user)).flatten()
    }

    /// The place for one more viewer of `user`.
    fn place(&self, user: User) -> Place {
        let looking = self.users(true);
        if looking.clone().count() < MAX_VIEWERS {
            return Place::Free;
        }
        who_leaves(looking, user).map_or(Place::None, Place::Of)
    }

    /// Has a viewer count if it has just done its handshake.
    ///
    /// # Errors
    /// The viewer that has to leave, if it is the one too many or makes room, and why.
    pub(super) fn begin_to_look(
        &mut self,
        id: u64,
        now: Instant,
    ) -> Result<bool, (u64, ViewerError)> {
        let Some(connected) = self.connected.get(&id) else {
            return Ok(false);
        };
        if connected.looks || !connected.viewer.is_waiting() {
            return Ok(false);
        }
        match self.place(connected.peer.user()) {
            Place::Free => {}
            Place::Of(other) => return Err((other, ViewerError::MadeRoom)),
            Place::None => return Err((id, ViewerError::TooMany(MAX_VIEWERS))),
        }
        if let Some(connected) = self.connected.get_mut(&id) {
            connected.looks = true;
            connected.patience = Some(now + PATIENCE);
        }
        Ok(true)
    }

    /// The users of those that look, or of those that do not yet.
    fn users(&self, looking: bool) -> impl Iterator<Item = (u64, User)> + Clone {
        let all = self.connected.iter();
        let all = all.filter(move |(_, viewer)| viewer.looks == looking);
        all.map(|(id, viewer)| (*id, viewer.peer.user()))
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Connected> {
        self.connected.get_mut(&id)
    }

    /// Removes a viewer. Its connection is closed when it is dropped.
    pub(super) fn remove(&mut self, id: u64) -> Option<Connected> {
        self.connected.remove(&id)
    }

    /// The numbers of all, those after `start` first.
    pub(super) fn ids_after(&self, start: u64) -> Vec<u64> {
        let after = self.connected.range(start.saturating_add(1)..);
        let before = self.connected.range(..=start);
        after.chain(before).map(|(id, _)| *id).collect()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut Connected)> {
        self.connected.iter_mut().map(|(id, viewer)| (*id, viewer))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.connected.is_empty()
    }

    /// Whether anybody looks, or is about to.
    pub(super) fn look(&self) -> bool {
        self.connected.values().any(|viewer| viewer.looks)
    }

    /// The text for `STATUS=`.
    pub(super) fn status(&self) -> String {
        let looking = self.connected.values().filter(|viewer| viewer.looks);
        status_text(looking.map(|viewer| &viewer.peer))
    }

    /// When one of them has to be looked after.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let all = self.connected.values();
        all.flat_map(|viewer| [viewer.viewer.deadline(), viewer.patience])
            .chain([self.next_check])
            .flatten()
            .min()
    }

    /// Those that are to be disconnected, and why: they took too long, or vanished.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<(u64, ViewerError)> {
        let checks = self.next_check.is_some_and(|next| next <= now);
        let check = |connected: &Connected| {
            connected.viewer.check_deadline(now)?;
            match checks && connected.is_remote && tcp::is_gone(connected.viewer.socket()) {
                true => Err(ViewerError::Vanished),
                false => Ok(()),
            }
        };
        let all = self.connected.iter();
        let overdue = all.filter_map(|(id, connected)| Some((*id, check(connected).err()?)));
        let overdue = overdue.collect();
        if checks || self.next_check.is_none() {
            let remote = self.connected.values().any(|viewer| viewer.is_remote);
            self.next_check = remote.then(|| now + tcp::CHECK_INTERVAL);
        }
        overdue
    }
}

impl Connected {
    /// Whether it is to get the picture's size now. `settled`: the head's picture is the one that will stay.
    pub(super) fn is_due(&mut self, settled: bool, now: Instant) -> bool {
        let patient = self.patience.is_some_and(|until| now < until);
        let due = self.viewer.is_waiting() && (settled || !patient);
        if due {
            self.patience = None;
        }
        due
    }

    /// Whether it counts as a viewer.
    pub(super) fn looks(&self) -> bool {
        self.looks
    }

    /// Encodes and sends what is due. Returns whether there is more.
    pub(super) fn send(
        &mut self,
        head: &Head,
        stop: impl Fn() -> bool,
    ) -> Result<bool, ViewerError> {
        self.viewer.send(head, stop)
    }

    /// Waits for what it waits for.
    pub(super) fn update_interest(&mut self, id: u64, poller: &Poller) -> io::Result<()> {
        let mut interest = EventFlags::empty();
        interest.set(EventFlags::IN, self.viewer.wants_input());
        interest.set(EventFlags::OUT, self.viewer.is_blocked());
        if interest != self.interest {
            self.interest = interest;
            poller.modify(self.viewer.socket(), FIRST_TOKEN + id, interest)?;
        }
        Ok(())
    }
}

/// The viewer's name for the input devices.
pub(super) fn input_id(id: u64) -> ViewerId {
    ViewerId(id)
}
