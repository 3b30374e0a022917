// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a viewer knows of the picture's size.

use std::collections::VecDeque;

use rfb::server_message::{DesktopSizeReason, DesktopSizeStatus};
use rfb::{Encoding, EncodingSet};

use crate::geometry::Size;

/// Most answers that wait; a viewer that asks for more gets none for the others.
const MAX_ANSWERS: usize = 8;

/// A pseudo-rectangle about the size, which is an update of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SizeRect {
    /// DesktopSize.
    Plain(Size),
    /// ExtendedDesktopSize, with its reason and status.
    Extended {
        size: Size,
        reason: DesktopSizeReason,
        status: DesktopSizeStatus,
    },
}

/// The size that a viewer was told, and what it is to be told.
#[derive(Debug)]
pub(super) struct DesktopSize {
    known: Size,
    extended: bool,
    plain: bool,
    /// The viewer is to be told its size, though it may know it: it has just said that it takes others, or asked.
    announce: bool,
    /// The viewer was told this size and got no pixels since.
    is_told: bool,
    answers: VecDeque<DesktopSizeStatus>,
    /// Why the picture has this size, if the viewer was not told yet.
    cause: Option<(Size, DesktopSizeReason)>,
}

impl DesktopSize {
    /// The size in `ServerInit`.
    pub(super) fn new(known: Size) -> Self {
        Self {
            known,
            extended: false,
            plain: false,
            announce: false,
            is_told: false,
            answers: VecDeque::new(),
            cause: None,
        }
    }

    /// The size that the viewer knows. One that takes no other keeps the first: it sees what fits.
    pub(super) fn known(&self) -> Size {
        self.known
    }

    /// Takes what the viewer can do.
    pub(super) fn set_encodings(&mut self, encodings: &EncodingSet) {
        let extended = encodings.contains(Encoding::EXTENDED_DESKTOP_SIZE);
        self.announce |= extended && !self.extended;
        self.extended = extended;
        self.plain = encodings.contains(Encoding::DESKTOP_SIZE);
    }

    /// Has a viewer that takes ExtendedDesktopSize told its size, as each request for all pixels wants it. One that was
    /// just told gets the pixels: it may want all of them each time.
    pub(super) fn announce(&mut self) {
        self.announce |= self.extended && !self.is_told;
    }

    /// The viewer gets pixels.
    pub(super) fn pixels_follow(&mut self) {
        self.is_told = false;
    }

    /// Whether the viewer understands answers to requests.
    pub(super) fn takes_answers(&self) -> bool {
        self.extended
    }

    /// Answers a request of the viewer.
    pub(super) fn answer(&mut self, status: DesktopSizeStatus) {
        if self.extended && self.answers.len() < MAX_ANSWERS {
            self.answers.push_back(status);
        }
    }

    /// The picture has this size now, for this reason: a viewer that asked for it is answered by being told.
    pub(super) fn resized(&mut self, size: Size, reason: DesktopSizeReason) {
        self.answer_cause();
        self.cause = Some((size, reason));
    }

    /// Answers a viewer whose size was replaced before it was told of it.
    fn answer_cause(&mut self) {
        if let Some((_, DesktopSizeReason::ThisViewer)) = self.cause.take() {
            self.answer(DesktopSizeStatus::NoError);
        }
    }

    /// What to tell the viewer next, if the picture has `size` now.
    pub(super) fn next_rect(&mut self, size: Size) -> Option<SizeRect> {
        if self.extended && (self.announce || self.known != size) {
            self.announce = false;
            self.is_told = true;
            self.known = size;
            let reason = match self.cause {
                Some((of, reason)) if of == size => {
                    self.cause = None;
                    reason
                }
                _ => DesktopSizeReason::Server,
            };
            return Some(SizeRect::Extended {
                size,
                reason,
                status: DesktopSizeStatus::NoError,
            });
        }
        self.answer_cause();
        if self.plain && self.known != size {
            self.known = size;
            return Some(SizeRect::Plain(size));
        }
        let status = self.answers.pop_front()?;
        Some(SizeRect::Extended {
            size: self.known,
            reason: DesktopSizeReason::ThisViewer,
            status,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Size = Size::new(1024, 768);
    const OTHER: Size = Size::new(1920, 1080);

    fn desktop(encodings: &[Encoding]) -> DesktopSize {
        let mut desktop = DesktopSize::new(FIRST);
        desktop.set_encodings(&encodings.iter().copied().collect());
        desktop
    }

    #[test]
    fn viewer_without_either_keeps_its_size() {
        let mut desktop = desktop(&[]);
        assert_eq!(desktop.next_rect(OTHER), None);
        desktop.answer(DesktopSizeStatus::NoError);
        assert_eq!(desktop.next_rect(OTHER), None);
        assert_eq!(desktop.known(), FIRST);
    }

    #[test]
    fn desktop_size_is_told_once() {
        let mut desktop = desktop(&[Encoding::DESKTOP_SIZE]);
        assert_eq!(desktop.next_rect(FIRST), None);
        assert_eq!(desktop.next_rect(OTHER), Some(SizeRect::Plain(OTHER)));
        assert_eq!(desktop.next_rect(OTHER), None);
        assert_eq!(desktop.known(), OTHER);
    }

    #[test]
    fn extended_desktop_size_is_announced_and_answers_requests() {
        let both = [Encoding::DESKTOP_SIZE, Encoding::EXTENDED_DESKTOP_SIZE];
        let mut desktop = desktop(&both);
        let rect = |size, reason, status| {
            Some(SizeRect::Extended {
                size,
                reason,
                status,
            })
        };
        let by_server = |size| rect(size, DesktopSizeReason::Server, DesktopSizeStatus::NoError);
        let by_viewer = |size, status| rect(size, DesktopSizeReason::ThisViewer, status);
        assert_eq!(desktop.next_rect(FIRST), by_server(FIRST));
        assert_eq!(desktop.next_rect(FIRST), None);
        desktop.set_encodings(&both.into_iter().collect());
        assert_eq!(desktop.next_rect(FIRST), None);
        desktop.answer(DesktopSizeStatus::Prohibited);
        let prohibited = by_viewer(FIRST, DesktopSizeStatus::Prohibited);
        assert_eq!(desktop.next_rect(FIRST), prohibited);
        // The new size comes before the answer.
        desktop.answer(DesktopSizeStatus::Forwarded);
        assert_eq!(desktop.next_rect(OTHER), by_server(OTHER));
        let forwarded = by_viewer(OTHER, DesktopSizeStatus::Forwarded);
        assert_eq!(desktop.next_rect(OTHER), forwarded);
        assert_eq!(desktop.next_rect(OTHER), None);
    }

    #[test]
    fn new_size_names_who_asked_for_it() {
        use DesktopSizeReason::{OtherViewer, Server, ThisViewer};
        let mut desktop = desktop(&[Encoding::EXTENDED_DESKTOP_SIZE]);
        let rect = |size, reason| {
            Some(SizeRect::Extended {
                size,
                reason,
                status: DesktopSizeStatus::NoError,
            })
        };
        assert_eq!(desktop.next_rect(FIRST), rect(FIRST, Server));
        for (size, reason) in [(OTHER, ThisViewer), (FIRST, OtherViewer), (OTHER, Server)] {
            desktop.resized(size, reason);
            assert_eq!(desktop.next_rect(size), rect(size, reason));
            assert_eq!(desktop.next_rect(size), None);
        }
        // Announced again, which nobody asked for.
        desktop.pixels_follow();
        desktop.announce();
        assert_eq!(desktop.next_rect(OTHER), rect(OTHER, Server));
        // There and back again before it was told: the answer is not lost.
        for last in [FIRST, OTHER] {
            desktop.resized(Size::new(1, 1), ThisViewer);
            desktop.resized(last, OtherViewer);
            if last == FIRST {
                assert_eq!(desktop.next_rect(last), rect(last, OtherViewer));
            } else {
                desktop.resized(last, Server);
                assert_eq!(desktop.next_rect(last), rect(last, Server));
            }
            assert_eq!(desktop.next_rect(last), rect(last, ThisViewer));
            assert_eq!(desktop.next_rect(last), None);
        }
    }

    #[test]
    fn flood_of_requests_is_not_kept() {
        let mut desktop = desktop(&[Encoding::EXTENDED_DESKTOP_SIZE]);
        for _ in 0..1000 {
            desktop.answer(DesktopSizeStatus::InvalidLayout);
        }
        assert_eq!(desktop.answers.len(), MAX_ANSWERS);
    }
}
