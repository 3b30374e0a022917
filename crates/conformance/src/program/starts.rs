// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Starts that fail, and what a program is after a start.

use std::time::Duration;

use conventions::DeviceType;
use frontend::{Deadline, FrontendReq};

use super::ends::terminates;
use super::{CONVENTIONS, RELIED_ON, refuses};
use crate::outcome::{Seen, fails, not_tried};
use crate::point::Point;
use crate::process::Streams;
use crate::trial::{Form, Trial};

pub(super) const POINTS: &[Point] = &[
    Point::recommended(
        "conventions/unknown-option",
        RELIED_ON,
        "With an option that the program does not know it fails at its start: what was asked for cannot be had.",
        unknown_option,
    ),
    Point::recommended(
        "conventions/unusable-device",
        CONVENTIONS,
        "With a device or file that cannot be opened (--evdev-path, --render-node, --blk-file) the program fails at its \
         start, with a status other than 0.",
        unusable_device,
    )
    .of(&[DeviceType::Gpu, DeviceType::Input, DeviceType::Block]),
    Point::recommended(
        "conventions/message-on-stderr",
        CONVENTIONS,
        "A start that fails is explained on standard error.",
        explains,
    ),
    Point::required(
        "conventions/foreground",
        CONVENTIONS,
        "The program does not daemonize itself: the process that was started serves the front-end, and what it started ends \
         with it.",
        stays,
    ),
    Point::required(
        "conventions/null-descriptors",
        CONVENTIONS,
        "Descriptors 0, 1 and 2 may all be /dev/null.",
        null_descriptors,
    ),
];

fn unknown_option(trial: &Trial) -> Seen {
    let form = trial.form()?;
    let mut started = trial.start_with(form, |launch| launch.arg("--no-such-option"))?;
    super::refused(trial, &mut started.backend, "--no-such-option")
}

/// The option of a type's device, and whether it is to be tried.
fn unusable_device(trial: &Trial) -> Seen {
    let option = match trial.device_type()? {
        DeviceType::Gpu => "render-node",
        DeviceType::Input => "evdev-path",
        _ => "blk-file",
    };
    let told = trial.facts.capabilities.as_ref();
    let Some(told) = told else {
        return not_tried("the program prints no capabilities");
    };
    if !told.has(option) {
        return not_tried(format!("the capabilities do not list {option}"));
    }
    let path = trial.socket_path();
    let launch = trial.bare([format!("--{option}=/missing/device")]);
    let launch = launch.arg(crate::trial::path_option(&path));
    refuses(trial, launch, &format!("--{option}=/missing/device"))
}

fn explains(trial: &Trial) -> Seen {
    let form = trial.form()?;
    let mut started = trial.start_with(form, |launch| launch.arg("--no-such-option"))?;
    if started.backend.wait_end(&trial.deadline)?.is_none() {
        return not_tried("the start with an unknown option does not fail");
    }
    match started.backend.complaint() {
        said if said.is_empty() => fails("it says nothing"),
        said => Ok(format!("\"{said}\"")),
    }
}

fn stays(trial: &Trial) -> Seen {
    let mut served = trial.serve()?;
    served.session.get_u64(FrontendReq::GET_FEATURES)?;
    // The one that was started may end a moment after its child answers.
    let moment = Deadline::after(Duration::from_millis(500));
    let backend = &mut served.started.backend;
    if let Some(end) = backend.wait_end(&moment)? {
        let others = backend.others().len();
        return fails(format!("it ends with {end}, and {others} others go on"));
    }
    if backend.others().is_empty() {
        return Ok("the process that was started serves".into());
    }
    // A child may do the work, if it ends with its parent.
    terminates(trial, backend)?;
    Ok("the process that was started serves with others, which end with it".into())
}

fn null_descriptors(trial: &Trial) -> Seen {
    let form: Form = trial.form()?;
    let mut started = trial.start_with(form, |mut launch| {
        launch.streams = Streams::Null;
        launch
    })?;
    let features = started.session(trial)?.get_u64(FrontendReq::GET_FEATURES)?;
    Ok(format!("served, features {features:#x}"))
}
