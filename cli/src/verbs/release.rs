// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl release` and `grab`: who has an input device while its VM runs, the host or the guest.

use rustix::process::Signal;

use crate::assignments::is_address_of;
use crate::backends::{self, Backend};
use crate::completion;
use crate::devices::{Devices, InputDevice};
use crate::instance::UnitKind;
use crate::output::Output;
use crate::selector::Selector;
use crate::settings::DeviceAddress;
use crate::systemd::{BackendState, Manager, Target, UnitSignals};

use super::error::Error;
use super::shared::unit_control::UnitController;

/// The signals of vhost-user-input(8). By default they are ignored, so a program of an older version is not harmed.
const RELEASE: Signal = Signal::URG;
const GRAB: Signal = Signal::WINCH;

/// Give input devices of running VMs to the host, until 'vhostctl grab'
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The guest is told that everything is released, and gets no more events. The host gets the device once no key of a
keyboard and no mouse button is held. The devices of a group (vhostctl add input --grab-group) change hands together.")]
pub(crate) struct ReleaseArgs {
    /// Release these: all host input devices of a VM, or one
    #[arg(value_name = "VM[:NAME]", required = true, add = completion::backends())]
    backends: Vec<Selector>,
}

/// Give input devices to their running VMs again
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Another VM that has the same device gives it first. A device that another program has grabbed is waited for.")]
pub(crate) struct GrabArgs {
    /// Grab these: all host input devices of a VM, or one
    #[arg(value_name = "VM[:NAME]", required = true, add = completion::backends())]
    backends: Vec<Selector>,
}

/// Who is to have the devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NewOwner {
    Host,
    Guest,
}

/// The devices, and who is to have them.
pub(crate) struct HandOver<'a> {
    backends: &'a [Selector],
    to: NewOwner,
}

impl<'a> From<&'a ReleaseArgs> for HandOver<'a> {
    fn from(args: &'a ReleaseArgs) -> Self {
        Self {
            backends: &args.backends,
            to: NewOwner::Host,
        }
    }
}

impl<'a> From<&'a GrabArgs> for HandOver<'a> {
    fn from(args: &'a GrabArgs) -> Self {
        Self {
            backends: &args.backends,
            to: NewOwner::Guest,
        }
    }
}

pub(crate) fn run<'a>(
    args: impl Into<HandOver<'a>>,
    target: &Target,
    output: &Output,
) -> Result<(), Error> {
    let HandOver { backends, to } = args.into();
    zbus::block_on(async {
        let mut controller = UnitController::connect(target, output).await?;
        let selected = controller.select(backends).await?;
        let all: Vec<_> = backends::list(controller.manager(), |_| true).await?;
        let (chosen, others): (Vec<_>, Vec<_>) = all
            .into_iter()
            .filter(is_host_input)
            .partition(|backend| selected.contains(&backend.instance));
        for selector in backends {
            let matches_other = selected.iter().any(|instance| selector.matches(instance));
            let mut chosen = chosen.iter();
            if matches_other && !chosen.any(|backend| selector.matches(&backend.instance)) {
                let text = selector.to_string();
                let error = match selector.is_of_vm() {
                    true => Error::NoInputDeviceOfVm { vm: text },
                    false => Error::NoInputDevice { selector: text },
                };
                controller.keep(Err::<(), _>(error))?;
            }
        }
        for backend in &chosen {
            let done = match to {
                NewOwner::Host => release(controller.manager(), backend, output).await,
                NewOwner::Guest => grab(controller.manager(), backend, &others, output).await,
            };
            controller.keep(done)?;
        }
        controller.finish()
    })
}

async fn release(manager: &Manager, backend: &Backend, output: &Output) -> Result<(), Error> {
    let instance = &backend.instance;
    if !runs(backend) {
        output.hint(&format!(
            "{instance} serves no VM, so the host has its device."
        ));
        return Ok(());
    }
    send(manager, backend, RELEASE, "release").await?;
    output.hint(&format!(
        "The host gets {} of {instance} once its keys are up. To give it again: vhostctl grab {instance}",
        device(backend)
    ));
    Ok(())
}

async fn grab(
    manager: &Manager,
    backend: &Backend,
    others: &[Backend],
    output: &Output,
) -> Result<(), Error> {
    let instance = &backend.instance;
    if !runs(backend) {
        return Err(Error::NotRunning {
            instance: instance.to_string(),
        });
    }
    let devices = match manager.is_local() {
        true => Devices::new().inputs()?,
        false => Vec::new(),
    };
    let holders = others
        .iter()
        .filter(|other| runs(other) && is_same_device(&backend.device, &other.device, &devices));
    for holder in holders {
        send(manager, holder, RELEASE, "release").await?;
        output.hint(&format!("{} gives its device.", holder.instance));
    }
    send(manager, backend, GRAB, "grab").await?;
    output.hint(&format!(
        "The guest gets {} of {instance} once its keys are up.",
        device(backend)
    ));
    Ok(())
}

async fn send(
    manager: &Manager,
    backend: &Backend,
    signal: Signal,
    word: &'static str,
) -> Result<(), Error> {
    let signals = UnitSignals::new(manager);
    Ok(signals
        .send(&backend.service_unit, signal.as_raw(), word)
        .await?)
}

fn is_host_input(backend: &Backend) -> bool {
    backend.instance.kind() == UnitKind::Input && backend.device.is_some()
}

/// Whether its program runs, and is ready for signals.
fn runs(backend: &Backend) -> bool {
    backend.state == BackendState::Running
}

fn device(backend: &Backend) -> String {
    let device = backend.device.as_ref();
    device.map(ToString::to_string).unwrap_or_default()
}

/// Whether two backends have one of these devices, by whatever names. Those of another host are not known: there, the
/// same name has to do.
fn is_same_device(
    one: &Option<DeviceAddress>,
    other: &Option<DeviceAddress>,
    devices: &[InputDevice],
) -> bool {
    let (Some(one), Some(other)) = (one, other) else {
        return false;
    };
    let is_both = |device: &InputDevice| is_address_of(one, device) && is_address_of(other, device);
    one == other || devices.iter().any(is_both)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::testing::input_device;

    fn device(number: u32) -> InputDevice {
        let link = format!("/dev/input/by-path/p{number}");
        InputDevice {
            by_path: Some(link.clone()),
            ..input_device(number, &[&link])
        }
    }

    #[test]
    fn names_of_one_device_are_told_from_others() {
        let devices = [device(3), device(4)];
        let path = |path: &str| Some(DeviceAddress::Path(path.to_owned()));
        let (node, link) = (path("/dev/input/event3"), path("/dev/input/by-path/p3"));
        let other = path("/dev/input/event4");
        assert!(is_same_device(&node, &link, &devices));
        assert!(is_same_device(&link, &link, &devices));
        assert!(!is_same_device(&other, &link, &devices));
        // Another host's links may lead elsewhere.
        assert!(!is_same_device(&node, &link, &[]) && is_same_device(&link, &link, &[]));
        assert!(!is_same_device(&None, &None, &devices));
    }
}
