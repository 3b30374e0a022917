// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The sizes that viewers ask for, on their way to the guest and back: the GPU says at once whether it told the guest, and
//! the guest follows later, or not at all.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use display_protocol::ResizeResult;
use rfb::server_message::{DesktopSizeReason, DesktopSizeStatus};

use super::viewers::Viewers;
use crate::geometry::Size;
use crate::vnc::display::Display;
use crate::vnc::head::Head;

/// How long a viewer waits for the guest, before it is told that its wish was passed on. Viewers ask for the next size
/// only then.
const PATIENCE: Duration = Duration::from_secs(1);

/// A viewer wants its head to have this size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wish {
    viewer: u64,
    head: usize,
    size: Size,
}

/// The wishes of all viewers.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// The GPU has not answered these. Each viewer has one at most: there is a limit for all of them together.
    asked: VecDeque<Wish>,
    /// The newest further wishes of viewers that have one in `asked`.
    next: Vec<Wish>,
    /// The guest was told of these, one of each viewer; until when the viewer waits.
    told: Vec<(Wish, Instant)>,
}

impl Wishes {
    /// A viewer wants its head to have this size.
    pub(super) fn ask(
        &mut self,
        viewer: u64,
        size: Size,
        viewers: &mut Viewers,
        heads: &[Head],
        display: &mut Display,
    ) {
        let Some(connected) = viewers.get_mut(viewer) else {
            return;
        };
        let head = connected.head;
        let is_known = heads.get(head).map(Head::size) == Some(size);
        if is_known && !self.concern(head) {
            connected.viewer.answer_resize(DesktopSizeStatus::NoError);
            return;
        }
        let wish = Wish { viewer, head, size };
        if self.asked.iter().any(|asked| asked.viewer == viewer) {
            if self.ask_next(wish) {
                // The one that it replaces ends as if the guest had not followed it.
                connected.viewer.answer_resize(DesktopSizeStatus::Forwarded);
            }
            return;
        }
        match display.resize(head as u32, size, viewer) {
            Some(answer) => connected.viewer.answer_resize(status_of(answer)),
            None => self.asked.push_back(wish),
        }
    }

    /// Takes the GPU's answers, and passes them on to viewers that need not wait for the guest. Asks for what these want
    /// next.
    pub(super) fn take_answers(
        &mut self,
        answers: Vec<(u64, ResizeResult)>,
        viewers: &mut Viewers,
        heads: &[Head],
        display: &mut Display,
        now: Instant,
    ) {
        for (viewer, answer) in answers {
            let status = self.answered(viewer, answer, heads, now);
            if let (Some(status), Some(connected)) = (status, viewers.get_mut(viewer)) {
                connected.viewer.answer_resize(status);
            }
            if let Some(wish) = self.take_next(viewer) {
                self.ask(viewer, wish.size, viewers, heads, display);
            }
        }
    }

    /// The connection to the GPU was closed: no answers come.
    pub(super) fn forget_asked(&mut self) {
        self.asked.clear();
        self.next.clear();
    }

    /// Answers viewers whose guest takes its time.
    pub(super) fn answer_late(&mut self, viewers: &mut Viewers, now: Instant) {
        for viewer in self.expire(now) {
            if let Some(connected) = viewers.get_mut(viewer) {
                let status = DesktopSizeStatus::Forwarded;
                connected.viewer.answer_resize(status);
            }
        }
    }

    /// Has the viewers note what changed on their heads, and who asked for a new size.
    pub(super) fn note_changes(&mut self, viewers: &mut Viewers, heads: &mut [Head]) {
        let sizes = heads.iter().map(Head::size).enumerate();
        let fulfilled: Vec<_> = sizes
            .map(|(index, size)| self.fulfil(index, size))
            .collect();
        for (id, connected) in viewers.iter_mut() {
            let head = heads.get(connected.head);
            if let Some(head) = head.filter(|head| !head.changes().is_empty()) {
                connected.viewer.note_changes(head);
                if head.changes().picture {
                    let askers = fulfilled.get(connected.head);
                    let reason = reason_for(id, askers);
                    connected.viewer.resized(head.size(), reason);
                }
            }
        }
        heads.iter_mut().for_each(Head::forget_changes);
    }

    /// The GPU answered the wish of `viewer`. Returns what that viewer is told now: nothing while it waits for the guest.
    fn answered(
        &mut self,
        viewer: u64,
        answer: ResizeResult,
        heads: &[Head],
        now: Instant,
    ) -> Option<DesktopSizeStatus> {
        let wish = self.take_asked(viewer)?;
        if answer != ResizeResult::Done {
            return Some(status_of(answer));
        }
        if heads.get(wish.head).map(Head::size) == Some(wish.size) {
            return Some(DesktopSizeStatus::NoError);
        }
        self.tell(wish, now).then(|| status_of(answer))
    }

    fn take_asked(&mut self, viewer: u64) -> Option<Wish> {
        let position = self.asked.iter().position(|wish| wish.viewer == viewer)?;
        self.asked.remove(position)
    }

    /// Keeps a wish until the GPU has answered the viewer's wish before it. Returns whether it replaces another one.
    fn ask_next(&mut self, wish: Wish) -> bool {
        let replaced = self.take_next(wish.viewer);
        self.next.push(wish);
        replaced.is_some()
    }

    fn take_next(&mut self, viewer: u64) -> Option<Wish> {
        let position = self.next.iter().position(|wish| wish.viewer == viewer)?;
        Some(self.next.swap_remove(position))
    }

    /// The guest was told. Returns whether the viewer waits for another size already, and will not any more.
    fn tell(&mut self, wish: Wish, now: Instant) -> bool {
        let before = self.told.len();
        self.told.retain(|(other, _)| other.viewer != wish.viewer);
        let replaces = self.told.len() != before;
        self.told.push((wish, now + PATIENCE));
        replaces
    }

    /// Whether the head may get another size by a wish.
    fn concern(&self, head: usize) -> bool {
        let told = self.told.iter().map(|(wish, _)| wish);
        let mut all = self.asked.iter().chain(&self.next).chain(told);
        all.any(|wish| wish.head == head)
    }

    /// The head has this size now: removes the wishes for it, and returns whose they were.
    fn fulfil(&mut self, head: usize, size: Size) -> Vec<u64> {
        self.remove(|wish, _| wish.head == head && wish.size == size)
    }

    /// Removes the wishes that the guest has not followed in time, and returns whose they were.
    fn expire(&mut self, now: Instant) -> Vec<u64> {
        self.remove(|_, until| until <= now)
    }

    /// The viewer left.
    pub(super) fn forget(&mut self, viewer: u64) {
        self.remove(|wish, _| wish.viewer == viewer);
        self.take_next(viewer);
    }

    /// When [`Self::expire`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.told.iter().map(|(_, until)| *until).min()
    }

    fn remove(&mut self, is_over: impl Fn(&Wish, Instant) -> bool) -> Vec<u64> {
        let mut viewers = Vec::new();
        self.told.retain(|(wish, until)| {
            let is_over = is_over(wish, *until);
            if is_over {
                viewers.push(wish.viewer);
            }
            !is_over
        });
        viewers
    }
}

/// What a viewer is told of the GPU's answer.
fn status_of(answer: ResizeResult) -> DesktopSizeStatus {
    match answer {
        ResizeResult::Done => DesktopSizeStatus::Forwarded,
        ResizeResult::InvalidSize => DesktopSizeStatus::InvalidLayout,
        ResizeResult::Refused | ResizeResult::NoSuchScanout => DesktopSizeStatus::Prohibited,
    }
}

/// Why a head has another size, if these viewers asked for it.
fn reason_for(viewer: u64, askers: Option<&Vec<u64>>) -> DesktopSizeReason {
    match askers {
        Some(askers) if askers.contains(&viewer) => DesktopSizeReason::ThisViewer,
        Some(askers) if !askers.is_empty() => DesktopSizeReason::OtherViewer,
        _ => DesktopSizeReason::Server,
    }
}

#[cfg(test)]
mod tests;
