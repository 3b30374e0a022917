// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What viewers press, move and turn, on its way to the VM's virtual keyboard and tablet.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

use rustix::event::{Timespec, epoll};

use super::events_link::EventsLink;
use super::keyboard::Keyboard;
use super::keyboard_layout::KeyboardLayout;
use super::led_state::LedState;
use super::tablet::{Place, Tablet};
use super::viewer_id::ViewerId;
use super::xt_keycode::key_of_xt_keycode;
use crate::evdev_event::Event;

const KEYBOARD: u64 = 0;
const TABLET: u64 = 1;

/// The keyboard and the pointer that all viewers of a VM share.
///
/// A key or button is pressed in the VM while any viewer presses it, and released with the last one. The events sockets are
/// connected from the first viewer on until [`ConsoleInput::disconnect`]; if one is missing, full or closed, what viewers
/// do is dropped, and the device is told later what is pressed then. No method blocks, and memory is bounded: some 10 KiB, and 200 bytes and the keys it presses
/// for a viewer.
///
/// The caller waits for [`ConsoleInput::fd`] to become readable, then calls [`ConsoleInput::handle_ready`]; and calls
/// [`ConsoleInput::tick`] at [`ConsoleInput::deadline`].
#[derive(Debug)]
pub struct ConsoleInput {
    epoll: OwnedFd,
    keyboard: Keyboard,
    tablet: Tablet,
    keyboard_link: Option<EventsLink>,
    tablet_link: Option<EventsLink>,
    viewers: Vec<ViewerId>,
    leds: LedState,
}

impl ConsoleInput {
    /// For the events sockets of a keyboard and a tablet of vhost-user-input. Without one, what it would take is ignored.
    /// `layout` is the guest's keyboard layout, for viewers that send no keycodes.
    ///
    /// # Errors
    /// Those of `epoll_create1(2)`.
    pub fn new(
        keyboard: Option<PathBuf>,
        tablet: Option<PathBuf>,
        layout: KeyboardLayout,
    ) -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            keyboard: Keyboard::new(layout),
            tablet: Tablet::default(),
            keyboard_link: keyboard.map(|path| EventsLink::new(path, "keyboard", KEYBOARD)),
            tablet_link: tablet.map(|path| EventsLink::new(path, "tablet", TABLET)),
            viewers: Vec::new(),
            leds: LedState::default(),
        })
    }

    /// An epoll descriptor, the same one always: readable when [`Self::handle_ready`] has something to do.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// A viewer may type and point from now on. With the first one the events sockets are connected.
    pub fn viewer_joined(&mut self, viewer: ViewerId) {
        self.viewer_joined_at(viewer, Instant::now());
    }

    fn viewer_joined_at(&mut self, viewer: ViewerId, now: Instant) {
        if !self.viewers.contains(&viewer) {
            self.viewers.push(viewer);
        }
        let epoll = self.epoll.as_fd();
        if let Some(link) = &mut self.keyboard_link {
            link.open(&self.keyboard.held(), epoll, now);
        }
        if let Some(link) = &mut self.tablet_link {
            link.open(&self.tablet.held(), epoll, now);
        }
    }

    /// A viewer is gone. What only it pressed is released. After the last one no events socket is connected again, but
    /// connections stay, as another viewer may come soon.
    pub fn viewer_left(&mut self, viewer: ViewerId) {
        self.viewers.retain(|other| *other != viewer);
        let keys = self.keyboard.release(viewer);
        self.send_to_keyboard(&keys, Instant::now());
        let buttons = self.tablet.release(viewer);
        self.send_to_tablet(buttons, Instant::now());
        if self.viewers.is_empty() {
            self.links().for_each(EventsLink::let_be);
        }
    }

    /// Closes the events sockets, until another viewer comes; not while there are viewers.
    pub fn disconnect(&mut self) {
        if self.viewers.is_empty() {
            self.links().for_each(EventsLink::close);
        }
    }

    fn links(&mut self) -> impl Iterator<Item = &mut EventsLink> {
        let links = [&mut self.keyboard_link, &mut self.tablet_link];
        links.into_iter().flatten()
    }

    /// RFB's KeyEvent: a viewer pressed or released the key that types `keysym` for it. Modifiers that the guest needs to
    /// type the same, and that no viewer presses, are pressed around it. A repeated press is ignored: the guest repeats.
    pub fn key(&mut self, viewer: ViewerId, keysym: u32, down: bool) {
        if self.viewers.contains(&viewer) {
            let now = Instant::now();
            let reports = self.keyboard.keysym(viewer, keysym, down, now);
            self.send_to_keyboard(&reports, now);
        }
    }

    /// QEMU's Extended Key Event: a viewer pressed or released the key with the scancode `keycode` (set 1 of a PC, with
    /// bit 7 set after a prefix 0xe0). An unknown scancode, such as 0, leaves the choice to `keysym`.
    pub fn extended_key(&mut self, viewer: ViewerId, keysym: u32, keycode: u32, down: bool) {
        let Some(key) = key_of_xt_keycode(keycode) else {
            return self.key(viewer, keysym, down);
        };
        if self.viewers.contains(&viewer) {
            let now = Instant::now();
            let reports = self.keyboard.key(viewer, key, down, now);
            self.send_to_keyboard(&reports, now);
        }
    }

    /// RFB's PointerEvent: a viewer's pointer is at the pixel `at` of a picture of `size` pixels, with the buttons of the
    /// mask `buttons` pressed: bit 0 left, 1 middle, 2 right, 3 to 6 a click of the wheel up, down, left or right, 7 back
    /// (`BTN_SIDE`) and 8 forward (`BTN_EXTRA`).
    pub fn pointer(&mut self, viewer: ViewerId, buttons: u16, at: (u16, u16), size: (u16, u16)) {
        if self.viewers.contains(&viewer) {
            let report = self.tablet.point(viewer, buttons, Place { at, size });
            self.send_to_tablet(report, Instant::now());
        }
    }

    /// The LEDs of the guest's keyboard; all off while nobody knows.
    pub fn leds(&self) -> LedState {
        self.leds
    }

    /// Reads LEDs and writes what waited. Returns whether [`Self::leds`] changed.
    ///
    /// # Errors
    /// Those of `epoll_wait(2)`.
    pub fn handle_ready(&mut self) -> io::Result<bool> {
        let none = epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        };
        let mut events = [none; 2];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let count = match epoll::wait(&self.epoll, events.as_mut_slice(), Some(&at_once)) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        let (now, before) = (Instant::now(), self.leds);
        for event in events.iter().take(count) {
            // An unaligned field.
            let token = event.data;
            self.handle_link(token.u64(), now);
        }
        Ok(self.leds != before)
    }

    /// When [`Self::tick`] has something to do; `None` for never, as things are.
    pub fn deadline(&self) -> Option<Instant> {
        let links = [&self.keyboard_link, &self.tablet_link];
        links
            .into_iter()
            .flatten()
            .filter_map(EventsLink::deadline)
            .min()
    }

    /// Connects again to events sockets whose time has come.
    pub fn tick(&mut self, now: Instant) {
        let epoll = self.epoll.as_fd();
        if let Some(link) = &mut self.keyboard_link {
            link.tick(&self.keyboard.held(), epoll, now);
        }
        if let Some(link) = &mut self.tablet_link {
            link.tick(&self.tablet.held(), epoll, now);
        }
    }

    fn handle_link(&mut self, token: u64, now: Instant) {
        let epoll = self.epoll.as_fd();
        let is_ready = |link: &&mut EventsLink| link.token() == token;
        let keyboard_link = self.keyboard_link.as_mut().filter(is_ready);
        let leds = keyboard_link.and_then(|link| link.ready(&self.keyboard.held(), epoll, now));
        if let Some(leds) = leds {
            self.leds = leds;
            self.keyboard.set_leds(leds);
        }
        if let Some(link) = self.tablet_link.as_mut().filter(is_ready) {
            link.ready(&self.tablet.held(), epoll, now);
        }
    }

    fn send_to_keyboard(&mut self, reports: &[Vec<Event>], now: Instant) {
        if let Some(link) = &mut self.keyboard_link {
            link.send(reports, &self.keyboard.held(), self.epoll.as_fd(), now);
        }
    }

    fn send_to_tablet(&mut self, report: Option<Vec<Event>>, now: Instant) {
        if let (Some(link), Some(report)) = (&mut self.tablet_link, report) {
            link.send(&[report], &self.tablet.held(), self.epoll.as_fd(), now);
        }
    }
}

#[cfg(test)]
mod tests;
