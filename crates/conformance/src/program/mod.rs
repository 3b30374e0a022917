// SPDX-License-Identifier: Apache-2.0 OR MIT
//! QEMU's "Backend program conventions": how a management layer finds, starts and ends a backend program.

mod capabilities;
mod descriptor;
mod ends;
mod manager;
mod sockets;
mod starts;

use crate::outcome::{Seen, fails};
use crate::point::Point;
use crate::process::{Backend, End, Launch};
use crate::trial::Trial;

/// The document that has the conventions.
const CONVENTIONS: &str = "vhost-user.rst, Backend program conventions";
/// Of what no document says.
const RELIED_ON: &str =
    "no document; management layers take a program that goes on for one that does what was asked";

pub(crate) fn points() -> impl Iterator<Item = &'static Point> {
    [
        descriptor::POINTS,
        capabilities::POINTS,
        sockets::POINTS,
        starts::POINTS,
        ends::POINTS,
        manager::POINTS,
    ]
    .into_iter()
    .flatten()
}

/// That a program ends by itself, soon, with a status other than 0.
fn refuses(trial: &Trial, launch: Launch, what: &str) -> Seen {
    let mut backend = launch.spawn()?;
    refused(trial, &mut backend, what)
}

fn refused(trial: &Trial, backend: &mut Backend, what: &str) -> Seen {
    match backend.wait_end(&trial.deadline)? {
        None => fails(format!("{what}: it runs on")),
        Some(End::Status(0)) => fails(format!("{what}: it ends with status 0")),
        Some(End::Status(101)) if backend.stderr().contains("panicked") => {
            fails(format!("{what}: it panics"))
        }
        Some(end @ End::Signal(_)) => fails(format!("{what}: it is ended by {end}")),
        Some(end) => {
            let complaint = backend.complaint();
            let said = match complaint.is_empty() {
                true => String::new(),
                false => format!(", \"{complaint}\""),
            };
            Ok(format!("{what}: {end}{said}"))
        }
    }
}
