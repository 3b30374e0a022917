// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a virtual device keeps for a successor: its clients, and what they made of it.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream;

use crate::backend::continuity::{
    Continuity, FdId, Ledger, Locker, Owner, RecordKey, Slot, ValueError,
};
use crate::input::device_info::DeviceInfo;
use crate::input::protocol::Bitmap;
use crate::input::records::{self, RecordError, tables};

use super::MAX_CLIENTS;
use super::kept_client::{CountedSlot, KeptClient, LeftClient};

const LEDS: RecordKey = RecordKey::new(tables::VIRTUAL_LEDS, 0);

const _: () = assert!(MAX_CLIENTS <= Slot::EVENTS_CLIENTS as usize);

/// Where the clients are kept.
#[derive(Debug, Default)]
pub(super) struct KeptClients {
    ledger: Ledger,
    locker: Locker,
    /// Those without a client.
    slots: Vec<CountedSlot>,
    /// No record names them after the next commit.
    replaced: Vec<FdId>,
}

/// What a predecessor left.
#[derive(Default)]
pub(super) struct LeftSource {
    pub(super) clients: Vec<LeftClient>,
    pub(super) axes: BTreeMap<u16, i32>,
    pub(super) leds: Bitmap,
}

impl KeptClients {
    /// With what a predecessor left of a device `info`, if there was one.
    ///
    /// # Errors
    /// If a record is invalid, or the host has no memory left.
    pub(super) fn load(
        continuity: &Continuity,
        info: &DeviceInfo,
    ) -> io::Result<(Self, LeftSource)> {
        let mut kept = Self {
            ledger: continuity.ledger(Owner::Device),
            locker: continuity.locker(),
            ..Self::default()
        };
        let mut left = LeftSource::default();
        if !continuity.is_kept() {
            return Ok((kept, left));
        }
        for number in (0..Slot::EVENTS_CLIENTS).take(MAX_CLIENTS) {
            let slot = continuity.slot(Slot::EventsClient(number))?;
            let slot = CountedSlot { number, slot };
            let client = KeptClient::take_left(slot, info, &kept.ledger, &kept.locker);
            match client.map_err(io::Error::other)? {
                Ok(client) => left.clients.push(client),
                Err(slot) => kept.slots.push(slot),
            }
        }
        kept.read(&mut left).map_err(io::Error::other)?;
        Ok((kept, left))
    }

    fn read(&self, left: &mut LeftSource) -> Result<(), RecordError> {
        let axes = self.ledger.read_table(tables::VIRTUAL_AXES, |id, value| {
            let axis = u16::try_from(id);
            let axis = axis.map_err(|_| ValueError::Content("there is no such axis"))?;
            Ok((axis, value.i32()?))
        })?;
        left.axes = axes.into_iter().collect();
        let leds = self.ledger.read(LEDS, records::read_codes)?;
        left.leds = leds.unwrap_or_default();
        Ok(())
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Keeps a new client, if anything is kept.
    pub(super) fn keep(&mut self, stream: &UnixStream) -> Option<KeptClient> {
        let slot = self.slots.pop()?;
        Some(KeptClient::new(stream, slot, &self.locker))
    }

    /// A client has ended.
    pub(super) fn remove(&mut self, client: KeptClient) {
        let (slot, id) = client.remove(&self.ledger);
        self.slots.push(slot);
        self.replaced.extend(id);
    }

    /// An absolute axis has a new value.
    pub(super) fn put_axis(&self, axis: u16, value: i32) {
        let key = RecordKey::new(tables::VIRTUAL_AXES, axis.into());
        self.ledger.write(key, |to| {
            to.i32(value);
        });
    }

    /// The guest has set LEDs.
    pub(super) fn put_leds(&self, leds: &Bitmap) {
        self.ledger.put(LEDS, leds.trimmed());
    }

    /// What was recorded is valid.
    pub(super) fn committed(&mut self) {
        for id in self.replaced.drain(..) {
            self.locker.forget(id);
        }
    }
}
