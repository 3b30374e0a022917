//! `vhostctl list-devices`: what of the host can be given to a VM.

use crate::devices::{Device, Devices, InputDevice, RenderNode};
use crate::instance::Kind;
use crate::output::{Cell, Output, Row};
use crate::systemd::Target;

use super::Error;

/// List the render nodes and input devices of the host
#[derive(Debug, clap::Args)]
#[command(after_help = "\
NODE is the device as it is now. LINK is a name for it that stays over reboots and replugging, where
udev has one: use it in configuration.")]
pub struct Args {
    /// Show devices of one type only (gpu, input)
    #[arg(
        short = 't',
        long = "type",
        value_name = "TYPE",
        value_enum,
        hide_possible_values = true
    )]
    kind: Option<Kind>,
}

impl Row for RenderNode {
    const HEADER: &[&str] = &[
        "NODE", "DRIVER", "VENDOR", "MODEL", "BOOT-VGA", "SEAT", "LINK",
    ];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::new(&self.node),
            Cell::optional(self.driver.as_ref()),
            Cell::optional(self.vendor.as_ref()),
            Cell::optional(self.model.as_ref()),
            Cell::new(if self.boot_vga { "yes" } else { "no" }),
            Cell::new(&self.seat),
            Cell::optional(self.by_path.as_ref()),
        ]
    }
}

impl Row for InputDevice {
    const HEADER: &[&str] = &["NODE", "KIND", "NAME", "BUS", "SEAT", "LINK"];

    fn cells(&self) -> Vec<Cell> {
        let kinds: Vec<_> = self.kinds.iter().map(ToString::to_string).collect();
        vec![
            Cell::new(&self.node),
            Cell::new(kinds.join(",")),
            Cell::optional(self.name.as_ref()),
            Cell::optional(self.bus.as_ref()),
            Cell::new(&self.seat),
            Cell::optional(self.by_id.as_ref().or(self.by_path.as_ref())),
        ]
    }
}

pub fn run(args: &Args, target: &Target, output: &Output) -> Result<(), Error> {
    target.local_only("list-devices")?;
    let devices = Devices::new();
    let wanted = |kind| args.kind.is_none_or(|only| only == kind);
    let gpus = if wanted(Kind::Gpu) {
        devices.render_nodes()?
    } else {
        Vec::new()
    };
    let inputs = if wanted(Kind::Input) {
        devices.inputs()?
    } else {
        Vec::new()
    };

    let count = gpus.len() + inputs.len();
    if output.is_json() {
        let all: Vec<_> = gpus
            .into_iter()
            .map(Device::Gpu)
            .chain(inputs.into_iter().map(Device::Input))
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
