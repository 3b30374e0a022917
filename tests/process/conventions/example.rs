// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The library's example, a vhost-user-rng: a backend of another author is held to the same conventions.

use frontend::{Buffer, Memory, Queue, VhostUserProtocolFeatures};

use super::*;

/// VIRTIO_F_VERSION_1, VIRTIO_F_EVENT_IDX and VHOST_USER_F_PROTOCOL_FEATURES.
const FEATURES: u64 = 1 << 32 | 1 << 29 | 1 << 30;
const QUEUE_SIZE: u16 = 128;
const LENGTH: u32 = 32;

fn rng(form: SocketForm) -> Program {
    let command = Command::new(rng_program()).socket(form);
    command.spawn().unwrap()
}

/// The driver's side of the device (virtio 1.2, 5.4).
struct Driver {
    session: Session,
    memory: Memory,
    queue: Queue,
}

impl Driver {
    fn start(mut session: Session) -> Self {
        let offer = session
            .negotiate(VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK)
            .unwrap();
        assert_eq!(offer.queues, 1);
        assert_eq!(offer.features & FEATURES, FEATURES);
        let memory = Memory::with_size(1 << 20).unwrap();
        let queue = Queue::new(&memory, QUEUE_SIZE, true).unwrap();
        session.set_features(FEATURES).unwrap();
        session.set_memory(&memory).unwrap();
        session.start_queue(0, &queue).unwrap();
        session.enable_queue(0, true).unwrap();
        Self {
            session,
            memory,
            queue,
        }
    }

    /// What the device puts into `count` buffers that are offered at once.
    fn draw(&mut self, count: u16) -> Vec<[u8; LENGTH as usize]> {
        let mut places = Vec::new();
        for _ in 0..count {
            let place = self.memory.alloc(u64::from(LENGTH), 8).unwrap();
            self.queue.add(&[Buffer::writable(place, LENGTH)]).unwrap();
            places.push(place);
        }
        self.queue.submit().unwrap();
        for _ in 0..count {
            let used = self.queue.wait_used(DEFAULT_LIMIT).unwrap();
            assert_eq!(used.len, LENGTH);
        }
        let read = |place| {
            let mut bytes = [0; LENGTH as usize];
            self.memory.read(place, &mut bytes).unwrap();
            bytes
        };
        places.into_iter().map(read).collect()
    }
}

#[test]
fn example_prints_its_capabilities() {
    let command = Command::new(rng_program());
    let args = ["--no-such-option", "--print-capabilities"];
    let mut program = command.args(args).spawn().unwrap();
    assert!(program.wait_exit(DEFAULT_LIMIT).unwrap().success());
    let json: serde_json::Value = serde_json::from_str(&program.stdout()).unwrap();
    assert_eq!(json, serde_json::json!({"type": "rng", "features": []}));
}

#[test]
fn example_fails_early_for_an_unusable_option() {
    let command = Command::new(rng_program()).socket(SocketForm::Path);
    let mut program = command.arg("--max-bytes=0").spawn().unwrap();
    let status = assert_early_failure(&mut program, &["--max-bytes", "1..=256"]);
    assert_eq!(status.code(), Some(2));
}

#[test]
fn example_delivers_random_bytes_over_every_socket() {
    for form in FORMS {
        let mut program = rng(form);
        let mut driver = Driver::start(program.session().unwrap());
        // More than the device serves in a pass.
        let mut drawn = driver.draw(QUEUE_SIZE);
        drawn.extend(driver.draw(1));
        let total = drawn.len();
        drawn.sort();
        drawn.dedup();
        assert_eq!(drawn.len(), total, "bytes come twice");
        drop(driver);
        assert_clean_exit(&mut program);
    }
}

#[test]
fn example_is_ready_and_stops_on_sigterm() {
    let command = Command::new(rng_program()).socket(SocketForm::Path);
    let mut program = command.notify().spawn().unwrap();
    program.notify().unwrap().wait_ready(DEFAULT_LIMIT).unwrap();
    let mut driver = Driver::start(program.session().unwrap());
    driver.draw(1);
    program.signal(Signal::TERM).unwrap();
    assert_clean_exit(&mut program);
    driver.session.channel.wait_closed().unwrap();
    assert!(!program.socket_path().exists(), "the socket stays behind");
}

#[test]
fn example_survives_a_broken_virtqueue() {
    let mut program = rng(SocketForm::Path);
    let mut driver = Driver::start(program.session().unwrap());
    driver.draw(1);
    driver.queue.force_available_index(u16::MAX / 2).unwrap();
    driver.queue.kick().unwrap();
    program.wait_stderr("request queue:").unwrap();
    driver.session.stop_queue(0).unwrap();
    driver.queue.reset().unwrap();
    driver.session.start_queue(0, &driver.queue).unwrap();
    driver.session.enable_queue(0, true).unwrap();
    driver.draw(2);
    drop(driver);
    assert_clean_exit(&mut program);
}

#[test]
fn example_keeps_to_its_most_bytes() {
    let command = Command::new(rng_program()).socket(SocketForm::Path);
    let mut program = command.arg("--max-bytes=5").spawn().unwrap();
    let mut driver = Driver::start(program.session().unwrap());
    let at = driver.memory.alloc(512, 8).unwrap();
    let buffers = [
        Buffer::writable(at, 3),
        Buffer::writable(at + 32, u32::from(u8::MAX)),
    ];
    driver.queue.add(&buffers).unwrap();
    driver.queue.submit().unwrap();
    assert_eq!(driver.queue.wait_used(DEFAULT_LIMIT).unwrap().len, 5);
}

/// A VMM whose vhost-user-gpu-pci is given the socket of another device.
#[test]
fn example_refuses_a_display_socket() {
    let mut program = rng(SocketForm::Path);
    let mut driver = Driver::start(program.session().unwrap());
    let (display, _front_end) = UnixStream::pair().unwrap();
    let refused = driver.session.set_gpu_socket(&display);
    assert!(refused.is_err(), "a display socket is accepted");
    let status = program.wait_exit(DEFAULT_LIMIT).unwrap();
    assert_eq!(status.code(), Some(1), "{}", program.stderr());
    program.wait_stderr("not a GPU").unwrap();
}
