// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who may have the source's events.

/// Who has the source's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The host: no guest runs.
    Host,
    /// Still the host, although a guest runs: a key is pressed whose release the host has to see.
    HostUntilReleased,
    /// The guest.
    Guest,
    /// Nobody: the host has asked for it, and gets it once a key is released that was meant for the guest.
    Releasing,
    /// The host, although a guest runs: it has asked for it, or another process has grabbed it.
    Released,
}

/// How [`Ownership::update`](super::ownership::Ownership::update) changed the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnerChange {
    /// Not at all.
    None,
    /// A guest started to run. It has the source, or waits for it.
    GuestStarted,
    /// The guest stopped. The host has the source.
    GuestStopped,
}
