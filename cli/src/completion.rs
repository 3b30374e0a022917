// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Completion of names in the shell: backends, VMs, devices. On an error there are no candidates, and no message
//! disturbs who is typing.

use std::ffi::OsStr;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use clap::Command;
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use conventions::{DeviceType, InputIds, printable};

use crate::backends;
use crate::descriptors::{self, DescriptorState, known};
use crate::devices::Devices;
use crate::instance::UnitKind;
use crate::systemd::{self, Target};

/// The variable by which the shell scripts request candidates.
const VARIABLE: &str = "VHOSTCTL_COMPLETE";
/// How long completion may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Answers a shell that requests candidates or its script, and exits; otherwise returns.
pub(crate) fn answer(definition: fn() -> Command) {
    CompleteEnv::with_factory(definition)
        .var(VARIABLE)
        .bin("vhostctl")
        .completer("vhostctl")
        .complete();
}

/// Completes backends, as `VM:NAME`, and VMs.
pub(crate) fn backends() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| candidates(current, every_backend))
}

/// Completes VMs.
pub(crate) fn vms() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        candidates(current, || {
            let mut vms = every_backend();
            vms.retain(|vm| !vm.name.contains(':'));
            vms
        })
    })
}

/// Completes VMs with a console.
pub(crate) fn vms_with_console() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        candidates(current, || {
            let mut vms = every_backend();
            let server = |vm: &str| format!("{vm}:{}", UnitKind::Vnc.name());
            let names: Vec<_> = vms.iter().map(|vm| vm.name.clone()).collect();
            vms.retain(|vm| names.contains(&server(&vm.name)));
            vms
        })
    })
}

/// Completes input devices, by their stable names.
pub(crate) fn input_devices() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        candidates(current, || {
            let devices = Devices::new().inputs().unwrap_or_default();
            let named = devices.into_iter().map(|device| {
                let name = device.preferred_path().to_owned();
                let help = device.name.unwrap_or_default();
                Candidate { name, help }
            });
            named.collect()
        })
    })
}

/// Completes the numbers of input devices.
pub(crate) fn input_ids() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        candidates(current, || {
            let devices = Devices::new().inputs().unwrap_or_default();
            let mut found: Vec<Candidate> = Vec::new();
            for device in devices {
                let Some(ids) = device.ids() else {
                    continue;
                };
                let help = device.name.unwrap_or_default();
                let short = InputIds {
                    serial: None,
                    ..ids.clone()
                };
                for ids in [short, ids] {
                    let name = ids.to_string();
                    if found.iter().all(|candidate| candidate.name != name) {
                        let help = help.clone();
                        found.push(Candidate { name, help });
                    }
                }
            }
            found
        })
    })
}

/// Completes render nodes, by their stable names.
pub(crate) fn render_nodes() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        candidates(current, || {
            let nodes = Devices::new().render_nodes().unwrap_or_default();
            let named = nodes.into_iter().map(|node| {
                let name = node.preferred_path().to_owned();
                let help = node.model.or(node.driver).unwrap_or_default();
                Candidate { name, help }
            });
            named.collect()
        })
    })
}

/// Completes installed programs of the type that "add" names, by the names of their descriptors or, if none is needed, of
/// their programs.
pub(crate) fn installed_programs() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        candidates(current, || {
            let wanted = type_to_add(std::env::args());
            let is_wanted =
                |of_program: &str| wanted.as_ref().is_none_or(|wanted| *wanted == of_program);
            let all = descriptors::list(&descriptors::folders(), false);
            all.into_iter()
                .filter(|descriptor| descriptor.state == DescriptorState::Usable)
                .filter(|descriptor| descriptor.device_type.as_deref().is_none_or(is_wanted))
                .map(|descriptor| Candidate {
                    name: descriptor.name,
                    help: descriptor.description.unwrap_or_default(),
                })
                .chain(
                    known::all_installed()
                        .filter(|(_, device_type)| is_wanted(device_type))
                        .map(|(name, device_type)| Candidate {
                            name: name.to_owned(),
                            help: device_type.to_owned(),
                        }),
                )
                .collect()
        })
    })
}

/// The type of device in the command line that a shell completes, `vhostctl -- vhostctl ... add TYPE ...`; none without one.
fn type_to_add(arguments: impl Iterator<Item = String>) -> Option<String> {
    let line = arguments.skip_while(|word| word != "--").skip(1);
    let behind = line.skip_while(|word| word != "add").skip(1);
    let mut words = behind.filter(|word| !word.starts_with('-'));
    words
        .next()
        .filter(|word| word.parse::<DeviceType>().is_ok())
}

/// A word that completes the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub name: String,
    pub help: String,
}

fn every_backend() -> Vec<Candidate> {
    let listed = systemd::ask(&Target::default(), async |queries| {
        backends::list(queries, |_| true).await
    });
    let mut candidates = Vec::new();
    for backend in listed.unwrap_or_default() {
        let vm = Candidate {
            name: backend.vm.clone(),
            help: "virtual machine".to_owned(),
        };
        if !candidates.contains(&vm) {
            candidates.push(vm);
        }
        candidates.push(Candidate {
            name: backend.instance.to_string(),
            help: format!("{}, {}", backend.device_type, backend.state),
        });
    }
    candidates
}

/// The candidates that begin with the current word, if they are found in time.
pub(crate) fn candidates(
    current: &OsStr,
    find: impl FnOnce() -> Vec<Candidate> + Send + 'static,
) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else {
        return Vec::new();
    };
    let (sender, receiver) = channel();
    thread::spawn(move || {
        // The receiver is gone after a timeout.
        let _ = sender.send(find());
    });
    let found = receiver.recv_timeout(TIMEOUT).unwrap_or_default();
    found
        .into_iter()
        // Unprintable characters cannot be typed either.
        .filter(|it| it.name.starts_with(current) && *printable(&it.name) == *it.name)
        .map(|Candidate { name, help }| {
            let help = (!help.is_empty()).then(|| printable(&help).into_owned().into());
            CompletionCandidate::new(name).help(help)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_is_that_of_the_completed_line() {
        let of = |line: &str| type_to_add(line.split(' ').map(str::to_owned));
        assert_eq!(
            of("vhostctl -- vhostctl add fs --backend=").as_deref(),
            Some("fs")
        );
        assert_eq!(
            of("vhostctl -- vhostctl -H x add --now fs v").as_deref(),
            Some("fs")
        );
        assert_eq!(of("vhostctl -- vhostctl add --backend="), None);
        assert_eq!(of("vhostctl -- vhostctl add unknown"), None);
        assert_eq!(of("vhostctl -- vhostctl list fs"), None);
        assert_eq!(of("vhostctl add fs"), None);
    }
}
