// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How many updates may be on their way to a viewer.

use rfb::Fence;

/// Most updates that the viewer has not confirmed. With a slow network between, what it sees is not older than so
/// many updates; those that do not start are merged.
const MAX_UNCONFIRMED: u32 = 3;

/// Counts updates by fences that follow them, for viewers that get updates without requests.
#[derive(Debug, Default)]
pub(super) struct Flow {
    sent: u32,
    confirmed: u32,
}

impl Flow {
    /// Whether another update may start.
    pub(super) fn has_room(&self) -> bool {
        self.sent.wrapping_sub(self.confirmed) < MAX_UNCONFIRMED
    }

    /// The fence to send after an update.
    pub(super) fn next_fence(&mut self) -> Option<Fence> {
        self.sent = self.sent.wrapping_add(1);
        let flags = Fence::REQUEST | Fence::BLOCK_BEFORE;
        Fence::new(flags, &self.sent.to_be_bytes())
    }

    /// Takes the viewer's answer to a fence. Any other payload is ignored.
    pub(super) fn confirm(&mut self, fence: &Fence) {
        let Ok(payload) = fence.payload().try_into() else {
            return;
        };
        let number = u32::from_be_bytes(payload);
        let unconfirmed = self.sent.wrapping_sub(self.confirmed);
        // One that is on its way, not an older one or one that was never sent.
        if self.sent.wrapping_sub(number) < unconfirmed {
            self.confirmed = number;
        }
    }

    /// Forgets what is on its way: the viewer asks for each update from now on.
    pub(super) fn reset(&mut self) {
        self.confirmed = self.sent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(number: u32) -> Fence {
        Fence::new(0, &number.to_be_bytes()).unwrap()
    }

    #[test]
    fn updates_wait_for_the_viewer() {
        let mut flow = Flow::default();
        for number in 1..=MAX_UNCONFIRMED {
            assert!(flow.has_room());
            let fence = flow.next_fence().unwrap();
            assert_eq!(fence.payload(), number.to_be_bytes());
        }
        assert!(!flow.has_room());
        flow.confirm(&answer(1));
        assert!(flow.has_room());
        flow.next_fence();
        assert!(!flow.has_room());
        flow.reset();
        assert!(flow.has_room());
    }

    #[test]
    fn invented_answers_confirm_nothing() {
        let mut flow = Flow::default();
        for _ in 0..MAX_UNCONFIRMED {
            flow.next_fence();
        }
        flow.confirm(&answer(0));
        flow.confirm(&answer(MAX_UNCONFIRMED + 1));
        flow.confirm(&answer(u32::MAX));
        flow.confirm(&Fence::new(0, b"hello").unwrap());
        assert!(!flow.has_room());
        flow.confirm(&answer(3));
        flow.confirm(&answer(2));
        assert_eq!(flow.confirmed, 3);
    }
}
