// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host asks for the source while a guest runs, and gives it again.
//!
//! The guest is told at once that everything is released, in one report as after an unplug, and gets nothing more. But
//! the device stays grabbed until its keys are up, as QEMU does it: the host would otherwise see the end of a chord, and
//! a key that it repeats until a release that it never gets.

use crate::input::device::release::{AskedBy, GrabRequest};
use crate::input::source::{EventSource, HostAccess};
use crate::input::virtio_input::VirtioInput;

use super::{Owner, Ownership};

/// Does what the event `token` asks for.
pub(in crate::input::device) fn take_request<S: EventSource>(
    ownership: &mut Ownership<S>,
    token: u16,
    virtio_input: &mut VirtioInput,
) {
    if let Some(request) = ownership.requests.take(token, &ownership.context) {
        obey(ownership, request, virtio_input);
    }
}

/// Does what the chord asks for, if it was struck.
pub(super) fn follow_chord<S: EventSource>(
    ownership: &mut Ownership<S>,
    virtio_input: &mut VirtioInput,
) {
    // Without a guest, or while the source changes hands, it asks for nothing.
    let has_guest = ownership.owner == Owner::Guest;
    let heard = ownership.source.take_chord() && (has_guest || ownership.owner == Owner::Released);
    let request = heard.then(|| ownership.requests.by_chord(has_guest));
    if let Some(request) = request.flatten() {
        // What was read before: to obey commits.
        virtio_input.reports_mut().record();
        obey(ownership, request, virtio_input);
    }
}

/// Does what `request` of the host asks for.
pub(in crate::input::device) fn obey<S: EventSource>(
    ownership: &mut Ownership<S>,
    request: GrabRequest,
    virtio_input: &mut VirtioInput,
) {
    if ownership.is_shut_down {
        return;
    }
    ownership.requests.begin(request, AskedBy::Host);
    match (request, ownership.owner) {
        (_, Owner::Host) => publish_host(ownership),
        (GrabRequest::Release(_), Owner::HostUntilReleased) => {
            leave_to_host(ownership, virtio_input);
            publish_host(ownership);
        }
        // The guest was told already.
        (GrabRequest::Release(_), Owner::Guest) if ownership.source.is_gone() => {
            ownership.owner = Owner::Released;
            ownership.publish_gone();
        }
        (GrabRequest::Release(_), Owner::Guest) => {
            virtio_input.source_gone();
            ownership.owner = Owner::Releasing;
            ownership.record();
            // First: a successor of the guest's would set the guest's LEDs.
            ownership.source.commit();
            release(ownership, virtio_input);
        }
        (GrabRequest::Release(_), Owner::Releasing) => {}
        (GrabRequest::Release(_), Owner::Released) => {
            ownership.fds.stop_timer();
            publish_host(ownership);
        }
        (GrabRequest::Grab, Owner::HostUntilReleased | Owner::Guest) => {}
        (GrabRequest::Grab, Owner::Releasing) => {
            ownership.fds.stop_timer();
            ownership.continues = true;
            let state = ownership.source.state();
            ownership.hand_over(state, virtio_input);
        }
        (GrabRequest::Grab, Owner::Released) => grab_again(ownership, virtio_input),
    }
    ownership.record();
}

/// The guest was told that it has the source no longer.
pub(super) fn release<S: EventSource>(
    ownership: &mut Ownership<S>,
    virtio_input: &mut VirtioInput,
) {
    ownership.source.send(virtio_input.host_leds());
    release_once_up(ownership, false);
}

/// Gives the source to the host if no key is pressed that the host would never see released, as the end of the chord.
/// `waited` says that it waits already.
pub(super) fn release_once_up<S: EventSource>(ownership: &mut Ownership<S>, waited: bool) {
    let is_grabbed = ownership.source.host_access() == HostAccess::UntilGrab;
    let state = ownership.source.state().filter(|_| is_grabbed);
    let label = ownership.source.label();
    if let Some(key) = ownership.key_to_wait_for(state.as_ref(), waited) {
        ownership.service_status.publish_releasing(&label, key);
        return;
    }
    ownership.fds.stop_timer();
    ownership.owner = Owner::Released;
    ownership.record();
    // A successor that finds it being released takes the source for grabbed.
    ownership.source.commit();
    ownership.source.ungrab();
    ownership
        .source
        .inform(format_args!("{label} is released to the host"));
    publish_host(ownership);
}

/// Gives a source that the host has to a guest that had it, or waits for it.
pub(super) fn grab_again<S: EventSource>(
    ownership: &mut Ownership<S>,
    virtio_input: &mut VirtioInput,
) {
    if ownership.source.is_gone() {
        ownership.owner = Owner::Guest;
        ownership.publish_gone();
        return;
    }
    ownership.continues = true;
    ownership.give_to_guest(virtio_input);
}

/// The host keeps the source from a guest that runs, and has been told nothing yet, or to wait.
pub(super) fn leave_to_host<S: EventSource>(
    ownership: &mut Ownership<S>,
    virtio_input: &mut VirtioInput,
) {
    ownership.fds.stop_timer();
    ownership.release_all(virtio_input);
    ownership.owner = Owner::Released;
}

/// Another process has grabbed the source.
pub(super) fn leave_to_other<S: EventSource>(
    ownership: &mut Ownership<S>,
    virtio_input: &mut VirtioInput,
) {
    leave_to_host(ownership, virtio_input);
    match ownership.requests.grabbed_by_other() {
        AskedBy::Host => ownership.fds.try_again(),
        AskedBy::Guest => ownership.source.warn_grabbed(),
    }
    ownership.record();
    publish_host(ownership);
}

/// The host has the source, unless that is gone.
pub(super) fn publish_host<S: EventSource>(ownership: &Ownership<S>) {
    if ownership.source.is_gone() {
        ownership.publish_gone();
    } else {
        let waits = ownership.owner == Owner::Released;
        let label = ownership.source.label();
        let status = &ownership.service_status;
        ownership.requests.publish(status, &label, waits);
    }
}

/// Somebody waits for long: says so in the log, not only in the service's status. Or a source that another process has
/// grabbed is to be tried again.
pub(in crate::input::device) fn timer_rang<S: EventSource>(
    ownership: &mut Ownership<S>,
    virtio_input: &mut VirtioInput,
) {
    if !ownership.fds.timer_rang() {
        return;
    }
    let (who, place) = match ownership.owner {
        Owner::HostUntilReleased => ("the guest", " on the host"),
        Owner::Releasing => ("the host", ""),
        Owner::Released => return grab_again(ownership, virtio_input),
        Owner::Host | Owner::Guest => return,
    };
    let state = ownership.source.state();
    let key = ownership.source.key_to_release(state.as_ref());
    match (key, ownership.owner) {
        (Some(key), _) => ownership.source.warn_waiting(who, key, place),
        // No event will say so: the kernel took it back when the state was read.
        (None, Owner::Releasing) => release_once_up(ownership, true),
        (None, _) => ownership.give_to_guest(virtio_input),
    }
}
