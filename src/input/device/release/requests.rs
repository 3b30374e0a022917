// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the host has asked for, and whether its wish is still to be done.

use std::cell::Cell;
use std::io;

use crate::backend::DeviceContext;
use crate::backend::continuity::{Ledger, RecordKey, ValueError, ValueReader};
use crate::input::device::service_status::InputStatus;
use crate::input::device::watched_fds::GROUP;
use crate::input::records::{RecordError, tables};

use super::{ChordWatch, GrabControl, GrabRequest, ReleasedBy};

const HOLD: RecordKey = RecordKey::new(tables::OWNERSHIP, 1);

/// Why the host keeps a source from a guest that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// It was released.
    Released(ReleasedBy),
    /// Another process had grabbed it when the guest was to get it, perhaps for another guest. It is tried again when a new
    /// driver starts.
    Grabbed,
}

/// On whose behalf the source is grabbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::input::device) enum AskedBy {
    /// The guest, which began to run.
    Guest,
    /// The host: a source that another process has grabbed is waited for.
    Host,
}

/// The requests of the host, and what came of the last one.
#[derive(Debug)]
pub(in crate::input::device) struct HostRequests {
    control: GrabControl,
    hold: Option<Hold>,
    asked_by: AskedBy,
    first: Option<GrabRequest>,
    /// What is recorded of `hold`.
    recorded: Cell<Option<Option<Hold>>>,
}

impl Hold {
    /// The hold that begins with `request`; `None` if it ends one.
    fn of(request: GrabRequest) -> Option<Self> {
        match request {
            GrabRequest::Grab => None,
            GrabRequest::Release(by) => Some(Self::Released(by)),
        }
    }

    fn decode(value: &mut ValueReader<'_>) -> Result<Option<Self>, ValueError> {
        Ok(match value.u8()? {
            0 => None,
            1 => Some(Self::Released(ReleasedBy::Chord)),
            2 => Some(Self::Released(ReleasedBy::Command)),
            3 => Some(Self::Grabbed),
            _ => {
                let text = "there is no such reason to keep the device";
                return Err(ValueError::Content(text));
            }
        })
    }
}

impl HostRequests {
    /// Hears the requests that come by `control`.
    ///
    /// # Errors
    /// Those of [`DeviceContext::watch`]; outside of these, if the record of a predecessor is invalid.
    pub(in crate::input::device) fn load(
        control: GrabControl,
        context: &DeviceContext,
        ledger: &Ledger,
    ) -> Result<io::Result<Self>, RecordError> {
        let kept = ledger.read(HOLD, Hold::decode)?;
        // A predecessor's last word counts, but others of the group may have asked for it since.
        let first = control.first_request().filter(|request| match kept {
            None | Some(None) => *request != GrabRequest::Grab,
            Some(Some(_)) => false,
        });
        let hold = kept.flatten().or(first.and_then(Hold::of));
        // The files may not say it: a new member of the group may have begun it anew meanwhile.
        if let Some(Some(Hold::Released(by))) = kept {
            control.tell_group(GrabRequest::Release(by));
        }
        let requests = control.watch(context).map(|()| Self {
            control,
            hold,
            asked_by: AskedBy::Guest,
            first,
            recorded: Cell::new(None),
        });
        Ok(requests)
    }

    /// Records what was asked for last.
    pub(in crate::input::device) fn put(&self, ledger: &Ledger) {
        if self.recorded.replace(Some(self.hold)) == Some(self.hold) {
            return;
        }
        let hold = match self.hold {
            None => 0,
            Some(Hold::Released(ReleasedBy::Chord)) => 1,
            Some(Hold::Released(ReleasedBy::Command)) => 2,
            Some(Hold::Grabbed) => 3,
        };
        ledger.write(HOLD, |value| {
            value.u8(hold);
        });
    }

    /// What the group asked for as this process joined it, once.
    pub(in crate::input::device) fn take_first(&mut self) -> Option<GrabRequest> {
        self.first.take()
    }

    /// Watches for the chord, as a predecessor did.
    ///
    /// # Errors
    /// If its record is invalid.
    pub(in crate::input::device) fn chord_watch(
        &self,
        ledger: &Ledger,
    ) -> Result<ChordWatch, RecordError> {
        self.control.chord_watch(ledger)
    }

    /// The request that raised `token`, which others of the group hear of as well.
    pub(in crate::input::device) fn take(
        &mut self,
        token: u16,
        context: &DeviceContext,
    ) -> Option<GrabRequest> {
        let request = self.control.take(token, context)?;
        if token != GROUP {
            self.control.tell_group(request);
        }
        Some(request)
    }

    /// What the chord asks for, of a source that the guest has if `has_guest`.
    pub(in crate::input::device) fn by_chord(&mut self, has_guest: bool) -> Option<GrabRequest> {
        let released_by_chord = self.hold == Some(Hold::Released(ReleasedBy::Chord));
        let request = match has_guest {
            true => GrabRequest::Release(ReleasedBy::Chord),
            false if released_by_chord => GrabRequest::Grab,
            false => return None,
        };
        self.control.tell_group(request);
        Some(request)
    }

    /// `request` is done from now on, on behalf of `asked_by`.
    pub(in crate::input::device) fn begin(&mut self, request: GrabRequest, asked_by: AskedBy) {
        self.asked_by = asked_by;
        self.hold = Hold::of(request);
    }

    /// A new driver starts: a source that another process had grabbed may be free by now.
    pub(in crate::input::device) fn driver_started(&mut self) {
        if self.hold == Some(Hold::Grabbed) {
            self.hold = None;
        }
    }

    /// Whether the host keeps the source from a guest that runs.
    pub(in crate::input::device) fn host_keeps(&self) -> bool {
        self.hold.is_some()
    }

    /// Whether the source is grabbed because the host asked for it.
    pub(in crate::input::device) fn is_asked_for(&self) -> bool {
        self.asked_by == AskedBy::Host
    }

    /// The guest has the source.
    pub(in crate::input::device) fn grabbed(&mut self) {
        self.asked_by = AskedBy::Guest;
    }

    /// Another process has grabbed the source. Returns on whose behalf it was to be grabbed: a guest that only begins to
    /// run leaves it to the host when that process gives it.
    pub(in crate::input::device) fn grabbed_by_other(&mut self) -> AskedBy {
        if self.asked_by == AskedBy::Guest {
            self.hold = Some(Hold::Grabbed);
        }
        self.asked_by
    }

    /// Publishes that the host has the source, which `waits` for a guest that runs.
    pub(in crate::input::device) fn publish(&self, status: &InputStatus, label: &str, waits: bool) {
        match self.hold {
            Some(Hold::Released(_)) => status.publish_released(label, None),
            Some(Hold::Grabbed) => {
                status.publish_released(label, Some("which another process has grabbed"));
            }
            None if waits => status.publish_gone(label, Some("another process has grabbed it")),
            None => status.publish_no_guest(label),
        }
    }
}
