// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The answer to `--print-capabilities`.

use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use conventions::{Capabilities, DeviceType};
use rustix::fs::inotify;

use super::CONVENTIONS;
use crate::outcome::{Flaw, Seen, fails};
use crate::point::Point;
use crate::process::{End, Launch, OUTPUT_MAX};
use crate::trial::{Trial, path_option};

const SCHEMA: &str = "vhost-user.json, VHostUserBackendCapabilities";

pub(super) const POINTS: &[Point] = &[
    Point::required(
        "conventions/print-capabilities",
        CONVENTIONS,
        "With --print-capabilities the program prints a JSON object with its type, and nothing else, on standard output, \
         and ends with status 0.",
        printed,
    ),
    Point::required(
        "conventions/capabilities-type",
        SCHEMA,
        "The type in the capabilities is one of the schema's types.",
        known_type,
    ),
    Point::recommended(
        "conventions/capabilities-features",
        SCHEMA,
        "The capabilities list the features, even if there are none, and only those that the schema has for the type: \
         libvirt ignores a GPU without the list.",
        features,
    ),
    Point::recommended(
        "conventions/capabilities-ignore-options",
        CONVENTIONS,
        "With --print-capabilities all other options and arguments are ignored, before it and after it, also those that \
         the program does not know.",
        other_options,
    ),
    Point::recommended(
        "conventions/capabilities-touch-nothing",
        CONVENTIONS,
        "With --print-capabilities the program does not do its work: it makes no socket, answers no front-end and opens \
         no device.",
        touches_nothing,
    ),
];

/// The capabilities that the program prints when it is started so.
fn ask(trial: &Trial, launch: Launch) -> Result<Capabilities, Flaw> {
    let mut program = launch.spawn()?;
    match program.wait_end(&trial.deadline)? {
        None => return fails("it runs on"),
        Some(End::Status(0)) => {}
        Some(end) => return fails(format!("it ends with {end}")),
    }
    let printed = program.stdout_bytes();
    match Capabilities::parse(&printed) {
        Ok(capabilities) => Ok(capabilities),
        Err(_) if printed.trim_ascii().is_empty() => fails("it prints nothing"),
        Err(_) if printed.len() >= OUTPUT_MAX => fails(format!(
            "it prints {} KiB or more, of which the check reads no more: no capabilities are so long",
            OUTPUT_MAX >> 10
        )),
        Err(error) => fails(format!("it prints no capabilities: {error}")),
    }
}

fn plain(trial: &Trial) -> Result<Capabilities, Flaw> {
    ask(trial, trial.bare(["--print-capabilities"]))
}

/// The capabilities for points that are about more than that there are some: `print-capabilities` tells what is wrong where
/// there are none.
fn told(trial: &Trial) -> Result<Capabilities, Flaw> {
    plain(trial).map_err(|flaw| match flaw {
        Flaw::Fails(_) => Flaw::NotTried("it prints no capabilities".into()),
        other => other,
    })
}

fn shown(capabilities: &Capabilities) -> String {
    let features = match &capabilities.features {
        None => "no list of features".to_owned(),
        Some(features) if features.is_empty() => "no features".to_owned(),
        Some(features) => features.join(", "),
    };
    format!("type {}, {features}", capabilities.device_type)
}

fn printed(trial: &Trial) -> Seen {
    plain(trial).map(|capabilities| shown(&capabilities))
}

fn known_type(trial: &Trial) -> Seen {
    let told = told(trial)?.device_type;
    match told.parse::<DeviceType>() {
        Ok(device_type) => Ok(format!("type {device_type}")),
        Err(error) => fails(error.to_string()),
    }
}

fn features(trial: &Trial) -> Seen {
    let capabilities = told(trial)?;
    let Some(features) = &capabilities.features else {
        return fails("there is no list of features");
    };
    let known: &[&str] = match capabilities.device_type.as_str() {
        "input" => &["evdev-path", "no-grab"],
        "gpu" => &["render-node", "virgl"],
        "block" => &["read-only", "blk-file"],
        // The schema lists none, and virtiofsd has its own.
        _ => return Ok(shown(&capabilities)),
    };
    match features.iter().find(|&it| !known.contains(&it.as_str())) {
        Some(feature) => fails(format!(
            "the schema has no feature '{feature}' of {}",
            capabilities.device_type
        )),
        None => Ok(shown(&capabilities)),
    }
}

fn other_options(trial: &Trial) -> Seen {
    let expected = told(trial)?;
    const ASK: &str = "--print-capabilities";
    let cases: [&[&str]; 6] = [
        &["--no-such-option", ASK],
        &[ASK, "--no-such-option=1"],
        &[ASK, "stray"],
        &["stray", ASK],
        &["--fd=999", "--socket-path=/missing/socket", ASK],
        &[
            "--evdev-path=/missing",
            "--render-node=/missing",
            "--blk-file=/missing",
            ASK,
        ],
    ];
    for case in cases {
        let told = ask(trial, trial.bare(case)).map_err(|flaw| match flaw {
            Flaw::Fails(seen) => Flaw::Fails(format!("with {}: {seen}", case.join(" "))),
            other => other,
        })?;
        if told != expected {
            return fails(format!("with {}: {}", case.join(" "), shown(&told)));
        }
    }
    Ok(format!("the same in {} cases", cases.len()))
}

fn touches_nothing(trial: &Trial) -> Seen {
    told(trial)?;
    let device = trial.folder().join("device");
    fs::write(&device, "")?;
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
    inotify::add_watch(&watch, &device, inotify::WatchFlags::OPEN)?;
    let path = trial.socket_path();
    let mut launch = trial.bare(["--print-capabilities"]).arg(path_option(&path));
    // Options that the program knows: what it does with others is another point's.
    let named = match trial.facts.device_type {
        Some(DeviceType::Gpu) => Some("render-node"),
        Some(DeviceType::Input) => Some("evdev-path"),
        Some(DeviceType::Block) => Some("blk-file"),
        _ => None,
    };
    if let Some(name) = named {
        let mut option = std::ffi::OsString::from(format!("--{name}="));
        option.push(&device);
        launch = launch.arg(option);
    }
    ask(trial, launch)?;
    let mut space = [std::mem::MaybeUninit::uninit(); 512];
    let mut events = inotify::Reader::new(&watch, &mut space);
    if events.next().is_ok() {
        return fails("it opens the device");
    }
    if path.exists() {
        return fails(format!("it makes a socket at {}", path.display()));
    }
    // A front-end that asks before the program starts: its question stays unanswered.
    let listener_path = trial.folder().join("socket/listener");
    let listener = UnixListener::bind(&listener_path)?;
    let front_end = question(&listener_path)?;
    let launch = trial.bare(["--print-capabilities", "--fd=5"]);
    ask(trial, launch.fd(5, listener.try_clone()?))?;
    listener.set_nonblocking(true)?;
    if listener.accept().is_err() {
        return fails("it accepts the front-end that waits");
    }
    drop(front_end);
    Ok("no socket, no device opened, no front-end accepted".into())
}

/// A front-end that has sent GET_FEATURES.
fn question(path: &Path) -> Result<UnixStream, Flaw> {
    let stream = UnixStream::connect(path)?;
    let words: [u32; 3] = [1, 1, 0];
    std::io::Write::write_all(&mut &stream, &words.map(u32::to_ne_bytes).concat())?;
    Ok(stream)
}
