// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The server: waits for viewers, the GPU and the input devices, and gives each its turn.
//!
//! There is one thread. No call but epoll_wait(2) blocks, and what one turn does is bounded, so that a viewer that asks
//! for much or reads slowly delays neither the others nor the guest's input.

mod accounts;
mod listeners;
mod peer;
mod places;
mod poller;
mod tcp;
mod timing;
mod viewer_status;
mod viewers;
mod wishes;

use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rfb::server_message::LedState;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::backend::RateLimitedLog;
use crate::vnc::display::Display;
use crate::vnc::head::{Head, HeadState};
use crate::vnc::input::ConsoleInput;
use crate::vnc::viewer::{Action, ViewerError};
use crate::vnc::wire::to_u16;

use accounts::Accounts;
pub(super) use listeners::HeadSocket;
use listeners::Listeners;
use peer::ViewerPeer;
use poller::{EventFlags, Poller};
use timing::{Idle, Linger, WatchdogTimer};
use viewer_status::ViewerStatus;
use viewers::{FIRST_TOKEN, Viewers, input_id};
use wishes::Wishes;

/// How long all viewers together may encode before events have their turn.
const TURN: Duration = Duration::from_millis(8);

const SIGNAL: u64 = 0;
const DISPLAY: u64 = 1;
const INPUT: u64 = 2;
const FIRST_LISTENER: u64 = 16;

/// What the server is made of.
pub(super) struct Parts {
    /// Where viewers connect, for each head.
    pub(super) listeners: Vec<HeadSocket>,
    /// Whether to end when nobody looks: the service manager starts the program again.
    pub(super) ends_idle: bool,
    /// The VM's name.
    pub(super) vm: String,
    pub(super) display: Display,
    pub(super) input: ConsoleInput,
}

/// Why the server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExitReason {
    /// SIGTERM or SIGINT.
    Signal,
    /// Nobody looks.
    Idle,
}

impl std::fmt::Display for ExitReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Signal => "stopped by a signal",
            Self::Idle => "no viewer is left",
        })
    }
}

/// The server.
pub(super) struct Server {
    poller: Poller,
    /// Readable after a signal; in `poller`.
    _signals: UnixStream,
    listeners: Listeners,
    heads: Vec<Head>,
    display: Display,
    display_interest: EventFlags,
    input: ConsoleInput,
    /// How long both stay connected without a viewer.
    linger: Linger,
    viewers: Viewers,
    wishes: Wishes,
    accounts: Accounts,
    status: ViewerStatus,
    watchdog: Option<WatchdogTimer>,
    idle: Idle,
    viewer_log: RateLimitedLog,
    joined_log: RateLimitedLog,
    left_log: RateLimitedLog,
    /// The viewer that was the last to have its turn.
    last_turn: u64,
    /// There is more to do at once.
    busy: bool,
    /// There is more to read from the GPU.
    display_busy: bool,
}

impl Server {
    /// Prepares everything that needs files. From now on SIGTERM and SIGINT do not kill the process.
    ///
    /// # Errors
    /// As `epoll_create1(2)`, `epoll_ctl(2)` and `socketpair(2)`.
    pub(super) fn new(parts: Parts, now: Instant) -> io::Result<Self> {
        let (signals, signalled) = UnixStream::pair()?;
        for signal in [SIGTERM, SIGINT] {
            signal_hook::low_level::pipe::register(signal, signalled.try_clone()?)?;
        }
        let poller = Poller::new()?;
        poller.add(&signals, SIGNAL, EventFlags::IN)?;
        poller.add(parts.input.fd(), INPUT, EventFlags::IN)?;
        let count = HeadSocket::count_heads(&parts.listeners);
        let screens = (0..count).map(|index| {
            if count > 1 {
                format!("{} - head {index}", parts.vm)
            } else {
                parts.vm.clone()
            }
        });
        let heads = Head::all(screens);
        Ok(Self {
            listeners: Listeners::new(parts.listeners, FIRST_LISTENER, &poller)?,
            poller,
            _signals: signals,
            heads,
            display: parts.display,
            display_interest: EventFlags::empty(),
            input: parts.input,
            linger: Linger::default(),
            viewers: Viewers::default(),
            wishes: Wishes::default(),
            accounts: Accounts::read(),
            status: ViewerStatus::default(),
            watchdog: WatchdogTimer::of_unit(now),
            idle: Idle::new(parts.ends_idle, now),
            viewer_log: RateLimitedLog::default(),
            joined_log: RateLimitedLog::default(),
            left_log: RateLimitedLog::default(),
            last_turn: 0,
            busy: false,
            display_busy: false,
        })
    }

    /// The text for `STATUS=` at the start.
    pub(super) fn status(&self) -> String {
        self.viewers.status()
    }

    /// Serves until a signal comes, or nobody looks.
    ///
    /// # Errors
    /// As `epoll_wait(2)` and `epoll_ctl(2)`.
    pub(super) fn run(&mut self) -> io::Result<ExitReason> {
        loop {
            let now = Instant::now();
            let limit = if self.busy || self.display_busy {
                Some(Duration::ZERO)
            } else {
                self.deadline(now)
                    .map(|deadline| deadline.saturating_duration_since(now))
            };
            let mut display_ready = std::mem::take(&mut self.display_busy);
            self.busy = false;
            let mut served = Vec::new();
            for (token, flags) in self.poller.wait(limit)? {
                match token {
                    SIGNAL => return Ok(ExitReason::Signal),
                    DISPLAY => display_ready = true,
                    INPUT => self.serve_input()?,
                    FIRST_TOKEN.. => {
                        served.push(token - FIRST_TOKEN);
                        self.viewer_ready(token - FIRST_TOKEN, flags)?;
                    }
                    token => self.accept(token)?,
                }
            }
            let now = Instant::now();
            self.take_messages(&served);
            self.look_after(now)?;
            if self.idle.is_over(now) {
                return Ok(ExitReason::Idle);
            }
            if display_ready {
                self.serve_display(now);
            }
            self.start_viewers(now)?;
            self.send()?;
            self.update_display_interest()?;
        }
    }

    /// When something has to be done without an event.
    fn deadline(&self, now: Instant) -> Option<Instant> {
        let display = self.viewers.look().then(|| self.display.due(now)).flatten();
        let watchdog = self.watchdog.as_ref().map(WatchdogTimer::deadline);
        let all = [
            display,
            self.display.kept_until(),
            self.viewers.deadline(),
            self.input.deadline(),
            self.linger.deadline(),
            self.status.deadline(now),
            self.idle.deadline(),
            self.listeners.deadline(),
            self.wishes.deadline(),
            watchdog,
        ];
        all.into_iter().flatten().min()
    }

    /// Does what is due by the clock.
    fn look_after(&mut self, now: Instant) -> io::Result<()> {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.feed(now);
        }
        self.listeners.resume(&self.poller, now)?;
        self.input.tick(now);
        self.wishes.answer_late(&mut self.viewers, now);
        for (id, why) in self.viewers.overdue(now) {
            self.disconnect(id, &why);
        }
        self.display.forget_kept(&mut self.heads, now);
        if self.viewers.look() && self.display.connect(&mut self.heads, now) {
            self.display_interest = EventFlags::IN;
            if let Some(socket) = self.display.socket() {
                self.poller.add(socket, DISPLAY, EventFlags::IN)?;
            }
        }
        if self.linger.ends(now) {
            self.display.disconnect(&mut self.heads);
            self.wishes.forget_asked();
            self.input.disconnect();
        }
        self.idle.set(self.viewers.is_empty(), now);
        self.status.tell(now);
        Ok(())
    }

    /// Accepts viewers.
    fn accept(&mut self, token: u64) -> io::Result<()> {
        let (head, sockets) = self.listeners.accept(token, &self.poller)?;
        for socket in sockets {
            let peer = ViewerPeer::of(&socket, &self.accounts);
            if let Some(id) = self.viewers.surplus(peer.user()) {
                self.disconnect(id, &ViewerError::Overtaken);
            }
            let now = Instant::now();
            self.viewers.add(socket, peer, head, &self.poller, now)?;
        }
        Ok(())
    }

    /// Reads what a viewer sent.
    fn viewer_ready(&mut self, id: u64, flags: EventFlags) -> io::Result<()> {
        match self.viewers.get_mut(id) {
            Some(connected) if flags.contains(EventFlags::OUT) => connected.viewer.unblock(),
            _ => {}
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            self.receive(id, flags.intersects(EventFlags::HUP | EventFlags::ERR));
        }
        Ok(())
    }

    /// Takes messages of a viewer. One that is gone is disconnected after its last message.
    fn receive(&mut self, id: u64, gone: bool) {
        let mut actions = Vec::new();
        let mut result = Ok(());
        if let Some(connected) = self.viewers.get_mut(id) {
            let Some(head) = self.heads.get(connected.head) else {
                return;
            };
            result = if connected.viewer.wants_input() {
                connected.viewer.receive(head, &mut actions)
            } else if gone {
                Err(ViewerError::Closed)
            } else {
                Ok(())
            };
        }
        self.begin_to_look(id);
        self.act(id, &actions);
        if let Err(e) = result {
            self.disconnect(id, &e);
        }
    }

    /// Has a viewer that has just done its handshake count, if there is a place for it.
    fn begin_to_look(&mut self, id: u64) {
        let now = Instant::now();
        let mut begins = self.viewers.begin_to_look(id, now);
        if let Err((leaving, why)) = begins {
            self.disconnect(leaving, &why);
            begins = self.viewers.begin_to_look(id, now);
        }
        if let (Ok(true), Some(connected)) = (begins, self.viewers.get_mut(id)) {
            let (peer, head) = (&connected.peer, connected.head);
            self.joined_log
                .info(format_args!("viewer connected: {peer}, head {head}"));
            self.linger.cancel();
            self.input.viewer_joined(input_id(id));
            self.status.set(self.viewers.status());
        }
    }

    /// Takes messages that are read already, but were too many for a turn. The viewers `served` had this turn.
    fn take_messages(&mut self, served: &[u64]) {
        let ids = self.viewers.ids_after(0).into_iter();
        for id in ids.filter(|id| !served.contains(id)) {
            let viewer = self.viewers.get_mut(id);
            if viewer.is_some_and(|connected| connected.viewer.has_input()) {
                self.receive(id, false);
            }
        }
    }

    /// Does what a viewer asks of the VM.
    fn act(&mut self, id: u64, actions: &[Action]) {
        for action in actions {
            match *action {
                Action::Key {
                    down,
                    keysym,
                    keycode,
                } => match keycode {
                    Some(keycode) => {
                        self.input.extended_key(input_id(id), keysym, keycode, down);
                    }
                    None => self.input.key(input_id(id), keysym, down),
                },
                Action::Pointer {
                    buttons,
                    x,
                    y,
                    size,
                } => {
                    let size = (to_u16(size.width), to_u16(size.height));
                    self.input.pointer(input_id(id), buttons, (x, y), size);
                }
                Action::Resize(size) => {
                    let (heads, display) = (&self.heads, &mut self.display);
                    self.wishes.ask(id, size, &mut self.viewers, heads, display);
                }
            }
        }
    }

    fn disconnect(&mut self, id: u64, why: &ViewerError) {
        let Some(connected) = self.viewers.remove(id) else {
            return;
        };
        self.wishes.forget(id);
        let peer = &connected.peer;
        if connected.looks() {
            match why {
                ViewerError::Closed => self
                    .left_log
                    .info(format_args!("viewer disconnected: {peer}")),
                why => self
                    .left_log
                    .info(format_args!("viewer disconnected: {peer}: {why}")),
            }
            self.input.viewer_left(input_id(id));
            self.status.set(self.viewers.status());
            if !self.viewers.look() {
                self.linger.begin(Instant::now());
            }
        } else {
            self.viewer_log
                .warn(format_args!("{peer} was turned away: {why}"));
        }
    }

    fn serve_input(&mut self) -> io::Result<()> {
        if self.input.handle_ready()? {
            let leds = self.leds();
            for (_, connected) in self.viewers.iter_mut() {
                connected.viewer.set_leds(leds);
            }
        }
        Ok(())
    }

    fn leds(&self) -> LedState {
        let leds = self.input.leds();
        LedState {
            scroll: leds.scroll_lock,
            num: leds.num_lock,
            caps: leds.caps_lock,
        }
    }

    /// Reads what the GPU sent, and tells the viewers what changed.
    fn serve_display(&mut self, now: Instant) {
        let mut answers = Vec::new();
        self.display_busy = self.display.serve(&mut self.heads, &mut answers, now);
        let (heads, display) = (&self.heads, &mut self.display);
        self.wishes
            .take_answers(answers, &mut self.viewers, heads, display, now);
    }

    /// Begins to show the picture to viewers that wait for it.
    fn start_viewers(&mut self, now: Instant) -> io::Result<()> {
        let connected_gpu = self.display.socket().is_some();
        let leds = self.leds();
        for id in self.viewers.ids_after(0) {
            let mut actions = Vec::new();
            let Some(connected) = self.viewers.get_mut(id) else {
                continue;
            };
            let Some(head) = self.heads.get(connected.head) else {
                continue;
            };
            let settled = match head.state() {
                HeadState::On | HeadState::Off | HeadState::TooLarge(_) => true,
                HeadState::Waiting | HeadState::Unreachable => !connected_gpu,
            };
            if !connected.is_due(settled, now) {
                continue;
            }
            let started = connected.viewer.start(head, leds, &mut actions);
            self.act(id, &actions);
            if let Err(e) = started {
                self.disconnect(id, &e);
            }
        }
        Ok(())
    }

    /// Sends viewers what changed, in turns.
    fn send(&mut self) -> io::Result<()> {
        // Only what is sent counts: however long others took, at least one viewer has its turn.
        let start = Instant::now();
        self.wishes.note_changes(&mut self.viewers, &mut self.heads);
        let ids = self.viewers.ids_after(self.last_turn);
        let share = TURN / u32::try_from(ids.len()).unwrap_or(u32::MAX).max(1);
        for id in ids {
            let began = Instant::now();
            if began.saturating_duration_since(start) > TURN {
                // The others are the first ones of the next turn.
                self.busy = true;
                break;
            }
            self.last_turn = id;
            let Some(connected) = self.viewers.get_mut(id) else {
                continue;
            };
            let Some(head) = self.heads.get(connected.head) else {
                continue;
            };
            match connected.send(head, || began.elapsed() > share) {
                Ok(more) => {
                    self.busy |= more || connected.viewer.has_input();
                    connected.update_interest(id, &self.poller)?;
                }
                Err(e) => self.disconnect(id, &e),
            }
        }
        Ok(())
    }

    fn update_display_interest(&mut self) -> io::Result<()> {
        let Some(socket) = self.display.socket() else {
            return Ok(());
        };
        let mut interest = EventFlags::IN;
        interest.set(EventFlags::OUT, self.display.has_unsent());
        if interest != self.display_interest {
            self.display_interest = interest;
            self.poller.modify(socket, DISPLAY, interest)?;
        }
        Ok(())
    }
}
