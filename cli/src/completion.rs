//! What a shell can complete beyond words that are known beforehand. Whatever goes wrong, there are no
//! candidates: nobody wants to read of it while typing.

use std::ffi::OsStr;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use clap::{Command, CommandFactory as _};
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};

use crate::args::Args;
use crate::descriptors::{self, DescriptorState, known};
use crate::devices::Devices;
use crate::output::printable;
use crate::systemd::{Manager, Target};

/// The variable by which the scripts of the shells ask for candidates.
const VARIABLE: &str = "VHOSTCTL_COMPLETE";
/// How long somebody who types may wait.
const PATIENCE: Duration = Duration::from_secs(2);

/// Answers a shell that asks for candidates, or for its script, and ends; returns if none does.
pub(crate) fn answer(definition: fn() -> Command) {
    CompleteEnv::with_factory(definition)
        .var(VARIABLE)
        .bin("vhostctl")
        .completer("vhostctl")
        .complete();
}

/// Backends, as `VM:NAME`, and VMs.
pub(crate) fn backends() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| candidates(current, every_backend))
}

/// VMs.
pub(crate) fn vms() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        candidates(current, || {
            let mut vms = every_backend();
            vms.retain(|(name, _)| !name.contains(':'));
            vms
        })
    })
}

/// Verbs.
pub(crate) fn verbs() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        candidates(current, || {
            let program = Args::command();
            let verbs = program.get_subcommands().map(|verb| {
                let about = verb.get_about().map(ToString::to_string);
                (verb.get_name().to_owned(), about.unwrap_or_default())
            });
            verbs.collect()
        })
    })
}

/// Input devices, by the names that last.
pub(crate) fn input_devices() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        candidates(current, || {
            let devices = Devices::new().inputs().unwrap_or_default();
            let named = devices.into_iter().map(|device| {
                let node = device.stable().to_owned();
                (node, device.name.unwrap_or_default())
            });
            named.collect()
        })
    })
}

/// Render nodes, by the names that last.
pub(crate) fn render_nodes() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        candidates(current, || {
            let nodes = Devices::new().render_nodes().unwrap_or_default();
            let named = nodes.into_iter().map(|node| {
                let name = node.stable().to_owned();
                (name, node.model.or(node.driver).unwrap_or_default())
            });
            named.collect()
        })
    })
}

/// Installed backends, by the names of their descriptors or, where none is needed, of their programs.
pub(crate) fn installed_backends() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        candidates(current, || {
            let all = descriptors::list(&descriptors::folders(), false);
            all.into_iter()
                .filter(|descriptor| descriptor.state == DescriptorState::Usable)
                .map(|descriptor| (descriptor.name, descriptor.description.unwrap_or_default()))
                .chain(
                    known::all_installed().map(|(name, what)| (name.to_owned(), what.to_owned())),
                )
                .collect()
        })
    })
}

/// A candidate and what it is.
type Named = (String, String);

fn every_backend() -> Vec<Named> {
    let listed = async { Manager::connect(&Target::default()).await?.backends().await };
    let mut names = Vec::new();
    for backend in zbus::block_on(listed).unwrap_or_default() {
        let vm = (backend.vm.clone(), "virtual machine".to_owned());
        if names.last() != Some(&vm) && !names.contains(&vm) {
            names.push(vm);
        }
        let what = format!("{}, {}", backend.device_type, backend.state);
        names.push((backend.instance.to_string(), what));
    }
    names
}

/// Those that begin with what is there, if they can be had in time.
fn candidates(
    current: &OsStr,
    find: impl FnOnce() -> Vec<Named> + Send + 'static,
) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else {
        return Vec::new();
    };
    let (sender, receiver) = channel();
    thread::spawn(move || {
        // Somebody may have gone on.
        let _ = sender.send(find());
    });
    let found = receiver.recv_timeout(PATIENCE).unwrap_or_default();
    found
        .into_iter()
        // What would steer the terminal cannot be typed either.
        .filter(|(name, _)| name.starts_with(current) && *printable(name) == **name)
        .map(|(name, what)| {
            let what = (!what.is_empty()).then(|| printable(&what).into_owned().into());
            CompletionCandidate::new(name).help(what)
        })
        .collect()
}
