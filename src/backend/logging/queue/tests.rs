// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use log::Metadata;

use super::*;

/// A log that writes a message only when it is let.
struct Slow {
    let_through: Mutex<mpsc::Receiver<()>>,
    written: Mutex<Vec<String>>,
}

impl Log for Slow {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // An error: all are let through now.
        let _ = lock(&self.let_through).recv();
        lock(&self.written).push(format!("{}: {}", record.level(), record.args()));
    }

    fn flush(&self) {}
}

fn log(queue: &Queue, text: &str) -> bool {
    queue.push(
        &Record::builder()
            .level(Level::Info)
            .args(format_args!("{text}"))
            .build(),
    )
}

fn slow() -> (mpsc::Sender<()>, &'static Slow, &'static Queue) {
    let (let_one, let_through) = mpsc::channel();
    let slow = Slow {
        let_through: Mutex::new(let_through),
        written: Mutex::default(),
    };
    (
        let_one,
        Box::leak(Box::new(slow)),
        Box::leak(Box::default()),
    )
}

#[test]
fn unread_log_blocks_nobody_and_counts_dropped_messages() {
    let (let_one, slow, queue) = slow();
    assert!(!log(queue, "nobody serves"));
    queue.serve(slow).unwrap();
    let large = "x".repeat(MOST / 4);
    assert!(log(queue, "first"));
    // The thread has it in its hands.
    while !lock(&queue.state).writing {
        thread::yield_now();
    }
    for _ in 0..100 {
        assert!(log(queue, &large));
    }
    // It would fit, but those before it did not.
    assert!(log(queue, "late"));
    assert!(lock(&queue.state).bytes <= MOST);
    drop(let_one);
    queue.flush(Duration::from_secs(10));
    assert!(log(queue, "afterwards"));
    queue.flush(Duration::from_secs(10));

    let written = lock(&slow.written);
    let [first, middle @ .., count, last] = &written[..] else {
        panic!("{} messages", written.len());
    };
    assert_eq!(first, "INFO: first");
    assert_eq!(middle.len(), 3);
    assert!(middle.iter().all(|text| text.ends_with(&large)));
    assert_eq!(
        count,
        "WARN: 98 messages dropped: the log reader did not keep up"
    );
    assert_eq!(last, "INFO: afterwards");
}

#[test]
fn flush_waits_for_the_log_within_a_limit() {
    let (let_one, slow, queue) = slow();
    // Where no thread is, nothing waits.
    queue.flush(Duration::MAX);
    queue.serve(slow).unwrap();
    log(queue, "last words");
    let begun = Instant::now();
    queue.flush(Duration::from_millis(50));
    assert!(begun.elapsed() >= Duration::from_millis(50));
    assert!(lock(&slow.written).is_empty());

    static LET: AtomicBool = AtomicBool::new(false);
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        LET.store(true, Ordering::Relaxed);
        drop(let_one);
    });
    queue.flush(Duration::from_secs(10));
    assert!(LET.load(Ordering::Relaxed));
    assert_eq!(*lock(&slow.written), ["INFO: last words"]);
}
