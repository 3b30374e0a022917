// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The moment between accept(2) and the record of a connection, in which no successor knows it.

use std::collections::BTreeMap;

use super::tracer::{Moment, Point, Stop};

/// The thread that accepts consoles.
const WORKER: &str = "vring_worker";
/// The calls by which it tells a console something, or waits.
const ENDS: [i64; 3] = [
    libc::SYS_sendto,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
];

/// Watches for that moment. The main thread records the front-end's connection once it is in the locker, before its next
/// system call. The worker records a console's at the end of the event: before it tells the console anything, and before it
/// waits.
#[derive(Default)]
pub(super) struct AcceptWatch {
    /// The threads that accepted a connection without a record yet, and whether it is in the locker.
    accepted: BTreeMap<String, bool>,
}

impl AcceptWatch {
    /// Whether a process that dies at this stop, or soon after it, may leave a connection without a record. Until it is dead its
    /// other threads go on.
    pub(super) fn see(&mut self, stop: &Stop) -> bool {
        let Point { call, thread, .. } = &stop.point;
        let has_failed = stop.result.is_some_and(|result| result < 0);
        // What comes before the next call of this thread is not done for sure.
        let was_accepted = !self.accepted.is_empty();
        match (*call, stop.point.moment) {
            (libc::SYS_accept4, Moment::Entry) => {
                // It is done before its exit is seen, and another thread may be killed then.
                self.accepted.insert(thread.clone(), false);
                return was_accepted;
            }
            (libc::SYS_accept4, Moment::Exit) if has_failed => {
                self.accepted.remove(thread);
            }
            (libc::SYS_sendmsg, Moment::Exit) if thread != WORKER => {
                if let Some(is_kept) = self.accepted.get_mut(thread) {
                    *is_kept = true;
                }
            }
            (call, Moment::Entry) => {
                let is_recorded = match thread.as_str() {
                    WORKER => ENDS.contains(&call),
                    _ => self.accepted.get(thread) == Some(&true),
                };
                if is_recorded {
                    self.accepted.remove(thread);
                }
                return !self.accepted.is_empty();
            }
            _ => {}
        }
        was_accepted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the watch says of each call of a thread, at its entry and its exit.
    fn seen(calls: &[(&str, i64, Moment)]) -> Vec<bool> {
        let mut watch = AcceptWatch::default();
        let stops = calls.iter().map(|(thread, call, moment)| Stop {
            point: Point {
                thread: (*thread).to_owned(),
                call: *call,
                occurrence: 1,
                moment: *moment,
            },
            result: (*moment == Moment::Exit).then_some(5),
            number: 0,
        });
        stops.map(|stop| watch.see(&stop)).collect()
    }

    #[test]
    fn front_end_is_recorded_before_the_next_call_of_its_thread() {
        use Moment::{Entry, Exit};
        let (main, other) = ("main", "other");
        let seen = seen(&[
            (other, libc::SYS_mmap, Exit),
            (main, libc::SYS_accept4, Entry),
            (main, libc::SYS_accept4, Exit),
            (main, libc::SYS_sendmsg, Entry),
            (main, libc::SYS_sendmsg, Exit),
            // The main thread is at work.
            (other, libc::SYS_mmap, Entry),
            (other, libc::SYS_sendmsg, Exit),
            (main, libc::SYS_getsockopt, Entry),
            (other, libc::SYS_mmap, Exit),
        ]);
        assert_eq!(
            seen,
            [false, false, true, true, true, true, true, false, false]
        );
    }

    #[test]
    fn console_is_recorded_before_the_worker_waits_or_tells_it() {
        use Moment::{Entry, Exit};
        for end in [libc::SYS_sendto, libc::SYS_epoll_wait] {
            let seen = seen(&[
                (WORKER, libc::SYS_accept4, Entry),
                ("main", libc::SYS_poll, Exit),
                (WORKER, libc::SYS_accept4, Exit),
                (WORKER, libc::SYS_sendmsg, Exit),
                (WORKER, libc::SYS_fcntl, Entry),
                ("main", libc::SYS_sendto, Entry),
                (WORKER, end, Entry),
                ("main", libc::SYS_poll, Entry),
            ]);
            assert_eq!(seen, [false, true, true, true, true, true, false, false]);
        }
    }
}
