// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A virtqueue as `vhost-user-backend` serves it, and what that crate does not tell a device: that
//! the front-end disabled the virtqueue, replaced its kick eventfd, or wants to hear of errors.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost_user_backend::{VringMutex, VringState, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::{Error, Queue, QueueT};
use vm_memory::GuestAddressSpace as _;

use super::GuestMemory;
use super::positions::{Position, PositionError, Positions};
use super::rings::publish_used;
use crate::backend::lock::lock;

/// Gets what the front-end does to a virtqueue. Called on the protocol thread, without the virtqueue's lock.
pub(crate) trait VringObserver: Send + Sync {
    /// The virtqueue `index` was disabled (`SET_VRING_ENABLE`, `RESET_DEVICE`).
    fn disabled(&self, index: u32);

    /// The running virtqueue gets another eventfd: stop watching `kick`.
    fn forget_kick(&self, kick: RawFd);

    /// The front-end set the position of a virtqueue, which is put into the device's ledger and not valid yet: commit it
    /// while the device does nothing.
    fn position_set(&self);
}

/// A virtqueue, as [`Device::handle_event`](crate::backend::Device::handle_event) gets it and [`QueuePass`]
/// serves it. Clones are the same virtqueue.
///
/// [`QueuePass`]: crate::backend::QueuePass
#[derive(Clone)]
pub struct Vring {
    vring: VringMutex,
    shared: Arc<Shared>,
}

struct Shared {
    memory: GuestMemory,
    observer: OnceLock<(u32, Arc<dyn VringObserver>)>,
    /// Where the virtqueue is kept for a successor, if it is.
    kept: OnceLock<KeptVring>,
    /// The virtqueue starts at the driver's used index.
    starts_at_used: AtomicBool,
    /// The driver chose a size that is not a power of two.
    has_wrong_size: AtomicBool,
    errors: Mutex<Errors>,
}

/// A virtqueue that is kept for a successor. Its state is changed under the virtqueue's lock only.
struct KeptVring {
    index: u32,
    positions: Positions,
    /// Whether a predecessor left a position.
    is_restored: bool,
    /// What is recorded, as [`Position::to_bits`]. Requests that are taken and not done lie behind it.
    position: AtomicU32,
    /// The driver is to be shown what a predecessor had done before it died, and then notified.
    owes_publication: AtomicBool,
    owes_notification: AtomicBool,
}

impl KeptVring {
    fn position(&self) -> Position {
        Position::from_bits(self.position.load(Ordering::Relaxed))
    }

    fn set_position(&self, position: Position) {
        self.position.store(position.to_bits(), Ordering::Relaxed);
    }

    /// Nothing is owed to the driver, or what follows from the death of a predecessor.
    fn set_debts(&self, owes: bool) {
        self.owes_publication.store(owes, Ordering::Relaxed);
        self.owes_notification.store(owes, Ordering::Relaxed);
    }

    /// Notifies the driver if that is due and the front-end has given an eventfd for it, whatever the driver asks for: it
    /// may have been asleep since before the predecessor died.
    fn notify(&self, vring: &VringState<GuestMemory>) {
        let is_published = !self.owes_publication.load(Ordering::Relaxed);
        let owes = is_published && self.owes_notification.load(Ordering::Relaxed);
        if owes && vring.get_call().is_some() {
            self.owes_notification.store(false, Ordering::Relaxed);
            if let Err(e) = vring.signal_used_queue() {
                log::debug!("cannot notify the driver: {e}");
            }
        }
    }

    fn put(&self, position: Position) {
        self.positions.put(self.index, position);
    }
}

#[derive(Default)]
struct Errors {
    /// The front-end's eventfd (`SET_VRING_ERR`).
    event: Option<File>,
    /// An error was reported before there was an eventfd.
    untold: bool,
}

impl Vring {
    /// Sets the observer of this virtqueue, whose index is `index`. Only the first call has an effect.
    pub(crate) fn observe(&self, index: u32, observer: Arc<dyn VringObserver>) {
        let _ = self.shared.observer.set((index, observer));
    }

    /// Has this virtqueue start at the driver's used index from now on, whatever the front-end says: see
    /// [`Device::USES_IN_ORDER`](crate::backend::Device::USES_IN_ORDER).
    pub(crate) fn start_at_used(&self) {
        let starts_at_used = &self.shared.starts_at_used;
        starts_at_used.store(true, Ordering::Relaxed);
    }

    /// Keeps this virtqueue, whose index is `index`, in `positions` for a successor. If a predecessor left a position there,
    /// the virtqueue is at this one, whatever the front-end's replayed messages say, and its driver is shown what the
    /// predecessor had done, and notified, when it starts. Only the first call has an effect, and none where nothing is
    /// kept.
    ///
    /// # Errors
    /// If the predecessor's record cannot be read.
    pub(crate) fn keep(&self, index: u32, positions: &Positions) -> Result<(), PositionError> {
        if !positions.are_kept() {
            return Ok(());
        }
        let mut vring = self.vring.get_mut();
        let queue = vring.get_queue_mut();
        let left = positions.get(index)?;
        if let Some(position) = left {
            queue.set_next_avail(position.next_avail);
            queue.set_next_used(position.next_used);
        }
        let _ = self.shared.kept.set(KeptVring {
            index,
            positions: positions.clone(),
            is_restored: left.is_some(),
            position: AtomicU32::new(left.unwrap_or_default().to_bits()),
            owes_publication: AtomicBool::new(left.is_some()),
            owes_notification: AtomicBool::new(left.is_some()),
        });
        Ok(())
    }

    /// `count` requests are done, and their used elements are written, if they have any: records where the virtqueue, which
    /// is `queue`, is now, and makes that valid with all that the device put for the requests.
    pub(super) fn record_done(&self, queue: &Queue, count: u16) {
        let Some(kept) = self.shared.kept.get() else {
            return;
        };
        // The requests that are taken and not done come after them: they are given back in their order.
        let position = Position {
            next_avail: kept.position().next_avail.wrapping_add(count),
            next_used: queue.next_used(),
        };
        kept.set_position(position);
        kept.positions.request_done(kept.index, position);
    }

    /// Whether the device put or removed a record since the last commit.
    pub(super) fn has_uncommitted_records(&self) -> bool {
        let kept = self.shared.kept.get();
        kept.is_some_and(|kept| kept.positions.has_uncommitted_records())
    }

    /// The front-end says where the virtqueue is: changes its queue and its position. What is replayed says so of a
    /// virtqueue of which nothing is recorded. One of [`Vring::start_at_used`] is put at its used index.
    fn set_position(&self, set: impl Fn(&mut Position)) {
        let mut vring = self.vring.get_mut();
        let queue = vring.get_queue_mut();
        // A running one may have requests under way, which are not to be taken twice.
        let starts_at_used = !queue.ready() && self.shared.starts_at_used.load(Ordering::Relaxed);
        let set = |position: &mut Position| {
            set(position);
            if starts_at_used {
                position.next_avail = position.next_used;
            }
        };
        let set_queue = |queue: &mut Queue| {
            let mut position = Position {
                next_avail: queue.next_avail(),
                next_used: queue.next_used(),
            };
            set(&mut position);
            queue.set_next_avail(position.next_avail);
            queue.set_next_used(position.next_used);
        };
        let Some(kept) = self.shared.kept.get() else {
            return set_queue(queue);
        };
        if kept.is_restored && kept.positions.is_replay() {
            return;
        }
        set_queue(queue);
        let mut position = kept.position();
        set(&mut position);
        kept.set_position(position);
        kept.set_debts(false);
        kept.put(position);
        drop(vring);
        if let Some((_, observer)) = self.observer() {
            observer.position_set();
        }
    }

    /// The virtqueue starts, or is stopped again: shows the driver what a predecessor had done.
    fn publish_debt(&self, vring: &mut VringState<GuestMemory>) {
        let Some(kept) = self.shared.kept.get() else {
            return;
        };
        if kept.owes_publication.load(Ordering::Relaxed) {
            let memory = self.shared.memory.memory();
            if let Err(e) = publish_used(vring.get_queue(), &memory) {
                log::debug!("virtqueue {}: {e}", kept.index);
            }
            kept.owes_publication.store(false, Ordering::Relaxed);
        }
        kept.notify(vring);
    }

    fn is_stopped_again(&self) -> bool {
        let kept = self.shared.kept.get();
        kept.is_some_and(|kept| kept.positions.is_stopped_again(kept.index))
    }

    /// The front-end gave an eventfd: notifies the driver of what a predecessor had done.
    fn notify_debt(&self, vring: &VringState<GuestMemory>) {
        if let Some(kept) = self.shared.kept.get() {
            kept.notify(vring);
        }
    }

    /// Tells the front-end that the driver broke this virtqueue (`VHOST_USER_SET_VRING_ERR`): now, or once it
    /// sets the eventfd for that.
    pub fn report_error(&self) {
        let mut errors = lock(&self.shared.errors);
        match &errors.event {
            Some(event) => signal(event),
            None => errors.untold = true,
        }
    }

    /// Whether the driver chose a size that is not a power of two.
    pub(crate) fn has_wrong_size(&self) -> bool {
        self.shared.has_wrong_size.load(Ordering::Relaxed)
    }

    /// Whether the front-end has started and enabled the virtqueue, which must not be touched otherwise.
    pub(crate) fn is_usable(&self) -> bool {
        let state = self.vring.get_ref();
        state.is_enabled() && state.get_queue().ready()
    }

    /// Whether the front-end has set addresses, which it can do only in memory that it shares.
    pub(crate) fn has_addresses(&self) -> bool {
        let state = self.vring.get_ref();
        let queue = state.get_queue();
        queue.desc_table() != 0 || queue.avail_ring() != 0 || queue.used_ring() != 0
    }

    /// The index of the available request that is taken next.
    pub(crate) fn next_available(&self) -> u16 {
        self.vring.get_ref().get_queue().next_avail()
    }

    fn observer(&self) -> Option<&(u32, Arc<dyn VringObserver>)> {
        self.shared.observer.get()
    }
}

/// Signals the eventfd `event` without blocking: a full one is signalled, and the front-end may have made it
/// blocking.
pub(crate) fn signal(event: impl AsFd) {
    let now = Timespec::default();
    let mut fds = [PollFd::new(&event, PollFlags::OUT)];
    if !poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0) {
        return;
    }
    if let Err(e) = rustix::io::write(&event, &1_u64.to_ne_bytes()) {
        log::debug!("cannot signal an eventfd of the front-end's: {e}");
    }
}

impl<'a> VringStateGuard<'a, GuestMemory> for Vring {
    type G = <VringMutex as VringStateGuard<'a, GuestMemory>>::G;
}

impl<'a> VringStateMutGuard<'a, GuestMemory> for Vring {
    type G = <VringMutex as VringStateMutGuard<'a, GuestMemory>>::G;
}

impl VringT<GuestMemory> for Vring {
    fn new(memory: GuestMemory, max_queue_size: u16) -> Result<Self, Error> {
        Ok(Self {
            vring: VringMutex::new(memory.clone(), max_queue_size)?,
            shared: Arc::new(Shared {
                memory,
                observer: OnceLock::new(),
                kept: OnceLock::new(),
                starts_at_used: AtomicBool::new(false),
                has_wrong_size: AtomicBool::new(false),
                errors: Mutex::default(),
            }),
        })
    }

    fn get_ref(&self) -> <Self as VringStateGuard<'_, GuestMemory>>::G {
        self.vring.get_ref()
    }

    fn get_mut(&self) -> <Self as VringStateMutGuard<'_, GuestMemory>>::G {
        self.vring.get_mut()
    }

    fn add_used(&self, desc_index: u16, len: u32) -> Result<(), Error> {
        self.vring.add_used(desc_index, len)
    }

    fn signal_used_queue(&self) -> io::Result<()> {
        self.vring.signal_used_queue()
    }

    fn enable_notification(&self) -> Result<bool, Error> {
        self.vring.enable_notification()
    }

    fn disable_notification(&self) -> Result<(), Error> {
        self.vring.disable_notification()
    }

    fn needs_notification(&self) -> Result<bool, Error> {
        self.vring.needs_notification()
    }

    fn set_enabled(&self, enabled: bool) {
        let mut state = self.vring.get_mut();
        let was_enabled = state.is_enabled();
        state.set_enabled(enabled);
        drop(state);
        match self.observer() {
            Some((index, observer)) if was_enabled && !enabled => observer.disabled(*index),
            _ => {}
        }
    }

    fn set_queue_info(
        &self,
        desc_table: u64,
        avail_ring: u64,
        used_ring: u64,
    ) -> Result<(), Error> {
        self.vring.set_queue_info(desc_table, avail_ring, used_ring)
    }

    fn queue_next_avail(&self) -> u16 {
        self.vring.queue_next_avail()
    }

    fn set_queue_next_avail(&self, base: u16) {
        self.set_position(|position| position.next_avail = base);
    }

    fn set_queue_next_used(&self, idx: u16) {
        self.set_position(|position| position.next_used = idx);
    }

    fn queue_used_idx(&self) -> Result<u16, Error> {
        self.vring.queue_used_idx()
    }

    /// The crate ignores a size that is not a power of two, and keeps the old one.
    fn set_queue_size(&self, num: u16) {
        let is_wrong = !num.is_power_of_two();
        let has_wrong_size = &self.shared.has_wrong_size;
        has_wrong_size.store(is_wrong, Ordering::Relaxed);
        if !is_wrong {
            self.vring.set_queue_size(num);
        }
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        self.vring.set_queue_event_idx(enabled);
    }

    fn set_queue_ready(&self, ready: bool) {
        let mut vring = self.vring.get_mut();
        // A predecessor may have died after it did requests and before it showed them, and its front-end goes on from here.
        if ready || self.is_stopped_again() {
            self.publish_debt(&mut vring);
        }
        vring.get_queue_mut().set_ready(ready);
    }

    /// The crate watches a new eventfd only when a virtqueue starts. So a running one is stopped here, and the crate
    /// starts it again.
    fn set_kick(&self, file: Option<File>) {
        let state = self.vring.get_ref();
        let runs = state.get_queue().ready();
        match (state.get_kick(), self.observer()) {
            (Some(kick), Some((_, observer))) if runs => observer.forget_kick(kick.as_raw_fd()),
            _ => {}
        }
        drop(state);
        if runs {
            self.vring.set_queue_ready(false);
        }
        self.vring.set_kick(file);
    }

    fn read_kick(&self) -> io::Result<bool> {
        self.vring.read_kick()
    }

    fn set_call(&self, file: Option<File>) {
        self.vring.set_call(file);
        self.notify_debt(&self.vring.get_ref());
    }

    /// The crate never uses it.
    fn set_err(&self, file: Option<File>) {
        let mut errors = lock(&self.shared.errors);
        errors.event = file;
        if let Some(event) = errors.event.as_ref().filter(|_| errors.untold) {
            signal(event);
            errors.untold = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::event::{EventfdFlags, eventfd};
    use vm_memory::{GuestAddress, GuestMemoryAtomic, GuestMemoryMmap};

    use super::*;

    #[derive(Default)]
    struct Heard {
        disabled: Mutex<Vec<u32>>,
        forgotten: Mutex<Vec<RawFd>>,
    }

    impl VringObserver for Heard {
        fn disabled(&self, index: u32) {
            lock(&self.disabled).push(index);
        }

        fn forget_kick(&self, kick: RawFd) {
            lock(&self.forgotten).push(kick);
        }

        fn position_set(&self) {}
    }

    fn observed() -> (Vring, Arc<Heard>) {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        let vring = Vring::new(GuestMemoryAtomic::new(memory), 256).unwrap();
        let heard = Arc::new(Heard::default());
        vring.observe(3, heard.clone());
        (vring, heard)
    }

    fn event() -> (OwnedFd, File) {
        let event = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let file = File::from(event.try_clone().unwrap());
        (event, file)
    }

    fn count(event: &OwnedFd) -> u64 {
        let mut count = [0; 8];
        let read = rustix::io::read(event, &mut count);
        read.map_or(0, |_| u64::from_ne_bytes(count))
    }

    #[test]
    fn observer_hears_only_of_a_vring_that_was_enabled() {
        let (vring, heard) = observed();
        vring.set_enabled(false);
        vring.set_enabled(true);
        assert!(lock(&heard.disabled).is_empty());
        vring.set_enabled(false);
        vring.set_enabled(false);
        assert_eq!(*lock(&heard.disabled), [3]);
    }

    #[test]
    fn replaced_kick_stops_a_running_virtqueue() {
        let (vring, heard) = observed();
        vring.set_kick(Some(event().1));
        vring.set_queue_ready(true);
        let kick = vring.get_ref().get_kick().as_ref().unwrap().as_raw_fd();
        vring.set_kick(Some(event().1));
        assert_eq!(*lock(&heard.forgotten), [kick]);
        // The crate starts it now.
        assert!(!vring.get_ref().get_queue().ready());
        vring.set_kick(None);
        assert_eq!(lock(&heard.forgotten).len(), 1);
    }

    #[test]
    fn errors_reach_the_front_end_now_or_once_it_sets_an_eventfd() {
        let (vring, _) = observed();
        vring.report_error();
        let (first, file) = event();
        vring.set_err(Some(file));
        assert_eq!(count(&first), 1);
        vring.report_error();
        vring.report_error();
        assert_eq!(count(&first), 2);
        let (second, file) = event();
        vring.set_err(Some(file));
        assert_eq!(count(&second), 0);
        vring.report_error();
        assert_eq!([count(&first), count(&second)], [0, 1]);
    }

    /// In whichever order the front-end sends base and addresses.
    #[test]
    fn stopped_virtqueue_that_is_used_in_order_starts_at_the_used_index() {
        let next = |vring: &Vring| vring.get_ref().get_queue().next_avail();
        let (vring, _) = observed();
        vring.set_queue_next_used(7);
        vring.set_queue_next_avail(9);
        assert_eq!(next(&vring), 9);

        vring.start_at_used();
        vring.set_queue_next_avail(9);
        assert_eq!(next(&vring), 7);
        vring.set_queue_next_avail(0);
        vring.set_queue_next_used(65535);
        assert_eq!(next(&vring), 65535);
        // Whose requests may be under way.
        vring.set_queue_ready(true);
        vring.set_queue_next_used(3);
        assert_eq!(next(&vring), 65535);
    }

    #[test]
    fn queue_size_must_be_a_power_of_two() {
        let (vring, _) = observed();
        for (size, is_wrong) in [(16, false), (3, true), (0, true), (256, false)] {
            vring.set_queue_size(size);
            assert_eq!(vring.has_wrong_size(), is_wrong, "{size}");
        }
        assert_eq!(vring.get_ref().get_queue().size(), 256);
    }

    #[test]
    fn signal_does_not_block_on_a_full_eventfd() {
        let full = eventfd(0, EventfdFlags::empty()).unwrap();
        rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        signal(&full);
        assert_eq!(count(&full), u64::MAX - 1);
    }
}
