// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl list-devices`: the devices of the host that can be assigned to a VM.

use conventions::InputIds;
use serde::Serialize;

use crate::assignments::DeviceAssignments;
use crate::devices::{Devices, InputDevice, RenderNode};
use crate::instance::UnitKind;
use crate::output::{Cell, Output, Row};
use crate::unit_folders::UnitFolders;

use super::error::Error;

/// List the render nodes and input devices of the host
#[derive(Debug, clap::Args)]
#[command(after_help = "\
NODE is the device node now. LINK is its stable name, which outlasts reboots and replugging, if udev has one: use
it in configuration. ID is VENDOR:PRODUCT for 'vhostctl add input VM --match='; the serial number, if the device has
one, is shown by --json. VM lists the backends that the device is assigned to.")]
pub(crate) struct Args {
    /// Show devices of one type only (gpu, input)
    #[arg(
        short = 't',
        long = "type",
        value_name = "TYPE",
        value_enum,
        hide_possible_values = true
    )]
    kind: Option<UnitKind>,
}

/// A device, and the backends that it is assigned to.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Shown {
    Gpu(Box<Gpu>),
    Input(Box<Input>),
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "gpu")]
struct Gpu {
    #[serde(flatten)]
    device: RenderNode,
    used_by: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "input")]
struct Input {
    #[serde(flatten)]
    device: InputDevice,
    used_by: Vec<String>,
}

impl Row for Gpu {
    const HEADER: &[&str] = &[
        "NODE", "DRIVER", "VENDOR", "MODEL", "BOOT-VGA", "SEAT", "VM", "LINK",
    ];

    fn cells(&self) -> Vec<Cell> {
        let device = &self.device;
        vec![
            Cell::new(&device.node),
            Cell::optional(device.driver.as_ref()),
            Cell::optional(device.vendor.as_ref()),
            Cell::optional(device.model.as_ref()),
            Cell::new(if device.boot_vga { "yes" } else { "no" }),
            Cell::new(&device.seat),
            Cell::new(self.used_by.join(",")),
            Cell::optional(device.stable_link()),
        ]
    }
}

impl Row for Input {
    const HEADER: &[&str] = &["NODE", "KIND", "NAME", "BUS", "ID", "SEAT", "VM", "LINK"];

    fn cells(&self) -> Vec<Cell> {
        let device = &self.device;
        let kinds: Vec<_> = device.kinds.iter().map(ToString::to_string).collect();
        vec![
            Cell::new(&device.node),
            Cell::new(kinds.join(",")),
            Cell::optional(device.name.as_ref()),
            Cell::optional(device.bus.as_ref()),
            Cell::optional(device.ids().map(|ids| InputIds {
                serial: None,
                ..ids
            })),
            Cell::new(&device.seat),
            Cell::new(self.used_by.join(",")),
            Cell::optional(device.stable_link()),
        ]
    }
}

pub(super) fn run(args: &Args, output: &Output) -> Result<(), Error> {
    let devices = Devices::new();
    let wanted = |kind| args.kind.is_none_or(|only| only == kind);
    let assignments = DeviceAssignments::read(&UnitFolders::system());
    let mut gpus = Vec::new();
    if wanted(UnitKind::Gpu) {
        gpus.extend(devices.render_nodes()?.into_iter().map(|device| Gpu {
            used_by: assignments.gpu_holders(&device),
            device,
        }));
    }
    let mut inputs = Vec::new();
    if wanted(UnitKind::Input) {
        inputs.extend(devices.inputs()?.into_iter().map(|device| Input {
            used_by: assignments.input_holders(&device),
            device,
        }));
    }

    let count = gpus.len() + inputs.len();
    if output.is_json() {
        let gpus = gpus.into_iter().map(Box::new).map(Shown::Gpu);
        let all: Vec<_> = gpus
            .chain(inputs.into_iter().map(Box::new).map(Shown::Input))
            .collect();
        output.json(&all)?;
        return Ok(());
    }
    output.table(&gpus)?;
    if output.legend() && !gpus.is_empty() && !inputs.is_empty() {
        output.blank()?;
    }
    output.table(&inputs)?;
    output.count(count, "device")?;
    Ok(())
}
