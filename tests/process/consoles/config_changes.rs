// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sizes that consoles ask for where the VMM has no display: the guest is told by a configuration change.

use std::io::Write as _;
use std::thread::sleep;
use std::time::Instant;

use display_protocol::ResizeResult;
use frontend::gpu::Edid;
use frontend::{Channel, Session};
use vhost::vhost_user::message::VhostUserProtocolFeatures;

use super::*;
use crate::common::asker::Asker;

/// VHOST_USER_BACKEND_CONFIG_CHANGE_MSG.
const CONFIG_CHANGE: u32 = 2;
const VERSION: u32 = 1;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;
/// Least time between two changes.
const INTERVAL: Duration = Duration::from_millis(250);
/// How long nothing must come by the channel.
const SILENCE: Duration = Duration::from_millis(400);

use ResizeResult::{Done, Refused};

/// A VMM without a display, whose guest can be told of changes.
struct Vmm {
    gpu: Gpu,
    /// What the backend sends by itself.
    channel: Channel,
    asker: Asker,
    program: Program,
}

fn with_changes() -> VhostUserProtocolFeatures {
    Session::usual_protocol_features() | VhostUserProtocolFeatures::BACKEND_REQ
}

impl Vmm {
    /// Whose driver has not begun.
    fn connected(features: VhostUserProtocolFeatures, options: &[&str]) -> Self {
        let command = listening().arg("--allow-resize").args(options);
        let mut program = command.spawn().unwrap();
        let mut session = program.session().unwrap();
        let offer = session.negotiate(features).unwrap();
        let offered = offer.protocol_features;
        assert!(offered.contains(VhostUserProtocolFeatures::BACKEND_REQ));
        let (channel, theirs) = UnixStream::pair().unwrap();
        if features.contains(VhostUserProtocolFeatures::BACKEND_REQ) {
            session.set_backend_channel(theirs).unwrap();
        }
        let asker = Asker::connect(&mut program);
        let gpu = Gpu::on(session, offer, &guest_memory(), GpuOptions::default()).unwrap();
        Self {
            gpu,
            channel: Channel::new(channel),
            asker,
            program,
        }
    }

    /// Whose driver has read the sizes.
    fn running() -> Self {
        Self::running_with(with_changes(), &[])
    }

    fn running_with(features: VhostUserProtocolFeatures, options: &[&str]) -> Self {
        let mut vmm = Self::connected(features, options);
        vmm.begin();
        vmm
    }

    /// Starts a new driver, which reads the sizes.
    fn begin(&mut self) {
        self.gpu.restart(None::<&UnixStream>).unwrap();
        self.gpu.get_display_info().unwrap();
    }

    /// Starts the virtqueues where they were, as after a pause.
    fn resume(&mut self) {
        let session = &mut self.gpu.session;
        session.start_queue(0, &self.gpu.control.queue).unwrap();
        session.start_queue(1, &self.gpu.cursor.queue).unwrap();
    }

    /// Waits for the message.
    fn told(&mut self) {
        let message = self.channel.receive().unwrap();
        let flags = match self.gpu.session.protocol_features() {
            features if features.contains(VhostUserProtocolFeatures::REPLY_ACK) => {
                VERSION | NEED_REPLY
            }
            _ => VERSION,
        };
        let header = (message.request, message.flags);
        assert_eq!(header, (CONFIG_CHANGE, flags));
        assert_eq!((message.body.len(), message.fds.len()), (0, 0));
    }

    fn acknowledge(&mut self, value: u64) {
        let body = value.to_ne_bytes();
        let sent = self
            .channel
            .send(CONFIG_CHANGE, VERSION | REPLY, &body, &[]);
        sent.unwrap();
    }

    fn assert_not_told(&self) {
        let deadline = Deadline::after(SILENCE);
        let ready = deadline.ready(self.channel.socket(), PollFlags::IN);
        assert!(!ready.unwrap(), "the guest was told");
    }

    fn events(&mut self) -> u32 {
        let bytes = self.gpu.session.config(0, 4).unwrap();
        u32::from_le_bytes(bytes.try_into().unwrap())
    }

    /// The places and sizes of the heads.
    fn heads(&mut self) -> Vec<Rect> {
        let modes = self.gpu.get_display_info().unwrap();
        let enabled = modes.into_iter().filter(|mode| mode.enabled);
        enabled.map(|mode| mode.rect).collect()
    }

    fn preferred(&mut self, head: u32) -> (u32, u32) {
        let edid = self.gpu.get_edid(head).unwrap();
        let edid = Edid::parse(&edid).unwrap();
        (edid.width, edid.height)
    }

    fn finish(self) {
        let Self {
            gpu,
            asker,
            mut program,
            ..
        } = self;
        drop(asker);
        drop(gpu);
        assert_clean_exit(&mut program);
    }
}

#[test]
fn guest_is_told_and_finds_the_size() {
    let mut vmm = Vmm::connected(with_changes(), &["--resolution=800x600,640x480"]);
    // Who has not read the sizes reads them anyway.
    assert_eq!(vmm.asker.ask((0, 1000, 700)), Refused);
    vmm.gpu.restart(None::<&UnixStream>).unwrap();
    assert_eq!(vmm.asker.ask((0, 1000, 700)), Refused);
    let second = |x| Rect::new(x, 0, 640, 480);
    assert_eq!(vmm.heads(), [Rect::sized(800, 600), second(800)]);
    assert_eq!(vmm.events(), 0);

    assert_eq!(vmm.asker.ask((0, 1000, 700)), Done);
    vmm.told();
    assert_eq!(vmm.events(), 1);
    assert_eq!(vmm.preferred(0), (1000, 700));
    assert_eq!(vmm.preferred(1), (640, 480));
    assert_eq!(vmm.heads(), [Rect::sized(1000, 700), second(1000)]);
    vmm.gpu.session.set_config(4, &[1, 0, 0, 0]).unwrap();
    assert_eq!(vmm.events(), 0);
    vmm.acknowledge(0);

    // The other head, by a front-end that writes the whole structure.
    assert_eq!(vmm.asker.ask((1, 320, 200)), Done);
    vmm.told();
    assert_eq!(vmm.events(), 1);
    assert_eq!(vmm.preferred(1), (320, 200));
    let expected = [Rect::sized(1000, 700), Rect::new(1000, 0, 320, 200)];
    assert_eq!(vmm.heads(), expected);
    let written = [1_u32, 1, 2, 0].map(u32::to_le_bytes).concat();
    vmm.gpu.session.set_config(0, &written).unwrap();
    assert_eq!(vmm.events(), 0);
    vmm.acknowledge(0);

    for (wanted, result) in [
        ((2, 640, 480), ResizeResult::NoSuchScanout),
        ((0, 0, 480), ResizeResult::InvalidSize),
        ((0, 16385, 480), ResizeResult::InvalidSize),
        // What they have.
        ((0, 1000, 700), Done),
        ((1, 320, 200), Done),
    ] {
        assert_eq!(vmm.asker.ask(wanted), result, "{wanted:?}");
    }
    vmm.assert_not_told();
    vmm.finish();
}

#[test]
fn without_the_option_no_channel_is_offered_and_sizes_stay() {
    let mut program = listening().spawn().unwrap();
    let mut session = program.session().unwrap();
    let offer = session.negotiate(VhostUserProtocolFeatures::all()).unwrap();
    let offered = offer.protocol_features;
    assert!(!offered.contains(VhostUserProtocolFeatures::BACKEND_REQ));
    let mut asker = Asker::connect(&mut program);
    let mut gpu = Gpu::on(session, offer, &guest_memory(), GpuOptions::default()).unwrap();
    gpu.restart(None::<&UnixStream>).unwrap();
    let before = gpu.get_display_info().unwrap();
    assert_eq!(asker.ask((0, 1000, 700)), Refused);
    assert_eq!(gpu.get_display_info().unwrap(), before);
    drop((gpu, asker));
    assert_clean_exit(&mut program);
}

/// The VMM's display has its own say, and QEMU's refuses the message.
#[test]
fn vmm_with_a_display_is_not_sent_changes() {
    let mut vmm = Vmm::connected(with_changes(), &[]);
    let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
    vmm.gpu.restart(Some(socket)).unwrap();
    let before = vmm.gpu.get_display_info().unwrap();
    assert_eq!(vmm.asker.ask((0, 1000, 700)), Refused);
    assert_eq!(vmm.gpu.get_display_info().unwrap(), before);
    vmm.assert_not_told();
    vmm.finish();
    display.finish().unwrap();
}

#[test]
fn stopped_guest_is_not_told() {
    let mut vmm = Vmm::running();
    for (n, stop) in [(1, &[0][..]), (2, &[1]), (3, &[0, 1]), (4, &[1, 0])] {
        for index in stop {
            vmm.gpu.session.stop_queue(*index).unwrap();
        }
        // With only the cursor's queue stopped the GPU is in the middle of it.
        let wanted = (0, 1000 + n, 700);
        let answer = vmm.asker.ask(wanted);
        vmm.assert_not_told();
        if answer == Refused {
            assert_ne!(stop, [1]);
        }
        for index in stop {
            let queue = match index {
                0 => &vmm.gpu.control.queue,
                _ => &vmm.gpu.cursor.queue,
            };
            vmm.gpu.session.start_queue(*index, queue).unwrap();
        }
        // The guest goes on.
        assert_eq!(vmm.asker.ask(wanted), Done);
        vmm.told();
        vmm.acknowledge(0);
        assert_eq!(vmm.heads(), [Rect::sized(1000 + n, 700)]);
    }
    // Disabled, as by libkrun, and reset.
    for index in [0, 1] {
        vmm.gpu.session.enable_queue(index, false).unwrap();
    }
    assert_eq!(vmm.asker.ask((0, 900, 700)), Refused);
    for index in [0, 1] {
        vmm.gpu.session.enable_queue(index, true).unwrap();
    }
    vmm.gpu.stop().unwrap();
    vmm.gpu.restart(None::<&UnixStream>).unwrap();
    assert_eq!(vmm.asker.ask((0, 900, 700)), Refused);
    vmm.assert_not_told();
    // The size stays over a reboot.
    assert_eq!(vmm.heads(), [Rect::sized(1004, 700)]);
    assert_eq!(vmm.events(), 0);
    vmm.finish();
}

#[test]
fn flood_of_wishes_is_told_by_and_by_and_the_last_one_wins() {
    let mut vmm = Vmm::running();
    for width in 0..200 {
        assert_eq!(vmm.asker.ask((0, 1000 + width, 700)), Done);
    }
    vmm.told();
    // Unanswered: no other one.
    vmm.assert_not_told();
    assert_eq!(vmm.heads(), [Rect::sized(1199, 700)]);
    vmm.acknowledge(0);
    // The guest has read it already.
    vmm.assert_not_told();

    // Answered at once: at intervals. Each was sent after `before` and before it is received here.
    let mut before = Instant::now();
    for n in 0..4 {
        let began = Instant::now();
        assert_eq!(vmm.asker.ask((0, 500 + 100 * n, 400)), Done);
        vmm.told();
        if n > 0 {
            assert!(before.elapsed() >= INTERVAL, "{:?}", before.elapsed());
        }
        before = began;
        vmm.acknowledge(0);
    }
    assert_eq!(vmm.heads(), [Rect::sized(800, 400)]);
    vmm.finish();
}

/// The second of two wishes, told only after the pause, and not to a driver that begins anew.
#[test]
fn wish_that_waits_outlives_a_pause_but_not_the_driver() {
    for new_driver in [false, true] {
        let mut vmm = Vmm::running();
        assert_eq!(vmm.asker.ask((0, 1000, 700)), Done);
        vmm.told();
        assert_eq!(vmm.asker.ask((0, 1100, 700)), Done);
        vmm.gpu.stop().unwrap();
        vmm.acknowledge(0);
        vmm.assert_not_told();
        if new_driver {
            vmm.begin();
            vmm.assert_not_told();
        } else {
            vmm.resume();
            vmm.told();
        }
        assert_eq!(vmm.heads(), [Rect::sized(1100, 700)]);
        vmm.finish();
    }
}

#[test]
fn front_end_that_acknowledges_nothing_is_told_at_intervals() {
    let features = with_changes() - VhostUserProtocolFeatures::REPLY_ACK;
    let mut vmm = Vmm::running_with(features, &[]);
    for width in [1000, 1100, 1200] {
        assert_eq!(vmm.asker.ask((0, width, 700)), Done);
        vmm.told();
    }
    assert_eq!(vmm.heads(), [Rect::sized(1200, 700)]);
    vmm.finish();
}

#[test]
fn front_end_without_a_usable_channel_gets_no_changes() {
    let without = Session::usual_protocol_features();
    let mut vmm = Vmm::running_with(without, &[]);
    assert_eq!(vmm.asker.ask((0, 1000, 700)), Refused);
    vmm.finish();

    let mut vmm = Vmm::running();
    let full = UnixStream::pair().unwrap();
    full.0.set_nonblocking(true).unwrap();
    while (&full.0).write(&[0; 4096]).is_ok() {}
    let closed = UnixStream::pair().unwrap().0;
    let session = &mut vmm.gpu.session;
    for socket in [&full.0, &closed] {
        session.set_backend_channel(socket).unwrap();
        assert_eq!(vmm.asker.ask((0, 1000, 700)), Refused);
    }
    // A good one helps.
    let (channel, theirs) = UnixStream::pair().unwrap();
    session.set_backend_channel(theirs).unwrap();
    vmm.channel = Channel::new(channel);
    assert_eq!(vmm.asker.ask((0, 1000, 700)), Done);
    vmm.told();
    vmm.finish();
}

#[test]
fn channel_that_is_no_stream_socket_ends_the_connection() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let (datagram, _peer) = std::os::unix::net::UnixDatagram::pair().unwrap();
    for fd in [file.as_fd(), datagram.as_fd()] {
        let mut vmm = Vmm::running();
        vmm.gpu.session.set_backend_channel(fd).unwrap_err();
        let words = ["SOCK_STREAM"];
        assert_early_failure(&mut vmm.program, &words);
    }
}

#[test]
fn front_end_that_refuses_or_closes_gets_no_more_changes() {
    type Fault = fn(&mut Vmm);
    let faults: [Fault; 4] = [
        |vmm| vmm.acknowledge(1),
        |vmm| vmm.channel.send(7, VERSION | REPLY, &[0; 8], &[]).unwrap(),
        |vmm| vmm.channel.send_bytes(&[0xff; 100], &[]).unwrap(),
        |vmm| {
            let (other, _) = UnixStream::pair().unwrap();
            vmm.channel = Channel::new(other);
        },
    ];
    for fault in faults {
        let mut vmm = Vmm::running();
        assert_eq!(vmm.asker.ask((0, 1000, 700)), Done);
        vmm.told();
        fault(&mut vmm);
        let warned = vmm
            .program
            .wait_stderr("cannot be told that the configuration changed");
        warned.unwrap();
        assert_eq!(vmm.asker.ask((0, 1100, 700)), Refused);
        // The guest goes on.
        assert_eq!(vmm.heads(), [Rect::sized(1000, 700)]);
        vmm.finish();
    }
}

/// The GPU does not wait for it, and after some seconds not even for the next wish.
#[test]
fn front_end_that_does_not_answer_stalls_nobody() {
    let mut vmm = Vmm::running();
    assert_eq!(vmm.asker.ask((0, 1000, 700)), Done);
    let began = Instant::now();
    let mut width = 1000;
    loop {
        width = if width == 1000 { 1100 } else { 1000 };
        match vmm.asker.ask((0, width, 700)) {
            Done => assert!(began.elapsed() < DEFAULT_LIMIT),
            answer => {
                assert_eq!(answer, Refused);
                break;
            }
        }
        assert_eq!(vmm.heads().len(), 1);
        sleep(Duration::from_millis(50));
    }
    assert!(began.elapsed() > Duration::from_secs(4));
    vmm.told();
    vmm.assert_not_told();
    vmm.finish();
}
