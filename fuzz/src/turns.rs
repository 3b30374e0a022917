// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The turns of a device that a worker would give it.

use vhost_user_backends::backend::fuzzing::FakeContext;
use vmm_sys_util::epoll::EventSet;

/// More turns than any device needs for what a target asks of it.
const MAX_TURNS: usize = 4000;

/// Lets a device do what it has to, without waiting: `run` is what it is in, `program` its worker, and `turn` has it handle
/// an event.
///
/// # Panics
/// If it never comes to rest.
pub(crate) fn rest<R>(
    run: &mut R,
    program: impl Fn(&R) -> &FakeContext,
    mut turn: impl FnMut(&mut R, u16, EventSet),
) {
    for _ in 0..MAX_TURNS {
        let ready = program(run).ready(0);
        let ready = ready.expect("epoll_wait(2) does not fail");
        if ready.is_empty() {
            return;
        }
        for (event, set) in ready {
            turn(run, event, set);
        }
    }
    panic!("the device never comes to rest");
}
