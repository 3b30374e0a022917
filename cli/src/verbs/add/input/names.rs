// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a VM calls an input device.

use crate::devices::{InputDevice, InputKind};
use crate::instance::{Instance, UnitKind};
use crate::verbs::add::args::Args;
use crate::verbs::add::plan::{HostInventory, Plan, free_name};
use crate::verbs::error::AddError;

/// The instance for the device, beside those of `plans`.
pub(super) fn instance(
    args: &Args,
    host: &HostInventory,
    device: &InputDevice,
    plans: &[Plan],
) -> Result<Instance, AddError> {
    let named = |name: &str| Ok(Instance::checked(UnitKind::Input, &args.vm, Some(name))?);
    // A device that is added twice keeps its instance.
    let same = host.assignments.holder_in(&args.vm, device);
    match (&args.name, same) {
        (Some(name), _) if !args.all_nodes => named(name),
        (_, Some(same)) => Ok(same.clone()),
        (name, None) => {
            let role = default_name(device);
            let default = match name {
                // The others have what they are behind it.
                Some(name) if plans.is_empty() => name.clone(),
                Some(name) => format!("{name}-{role}"),
                None => role.to_owned(),
            };
            let planned: Vec<_> = plans.iter().map(|plan| plan.instance.clone()).collect();
            named(&free_name(&default, &args.vm, &host.assignments, &planned))
        }
    }
}

/// What HID calls the applications of a keyboard beside its keys, as the kernel puts it behind its name.
const MEDIA_KEYS: &str = " Consumer Control";
const POWER_KEYS: &str = " System Control";

/// What a VM calls such a device by default.
fn default_name(device: &InputDevice) -> &'static str {
    let name = device.name.as_deref().unwrap_or_default();
    let kind = device.kinds.first().copied().unwrap_or(InputKind::Other);
    match kind {
        InputKind::Keyboard | InputKind::Button if name.ends_with(MEDIA_KEYS) => "media",
        InputKind::Keyboard | InputKind::Button if name.ends_with(POWER_KEYS) => "system",
        InputKind::Keyboard => "kbd",
        InputKind::Mouse | InputKind::Trackball | InputKind::PointingStick => "mouse",
        InputKind::Touchpad => "touchpad",
        InputKind::Touchscreen => "touch",
        InputKind::Tablet | InputKind::TabletPad => "tablet",
        InputKind::Joystick => "joystick",
        InputKind::Button | InputKind::Switch | InputKind::Accelerometer | InputKind::Other => {
            "input"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::add::input::testing::{Node, node};

    #[test]
    fn name_says_what_the_node_is() {
        let called = |name, kinds: &[InputKind]| {
            let at = Node {
                name,
                serial: "",
                port: "1-1:1.0",
                phys: "",
            };
            let mut device = node(1, at);
            device.kinds = kinds.to_vec();
            default_name(&device)
        };
        use InputKind::{Button, Keyboard, Mouse, Switch};
        assert_eq!(called("Acme", &[Keyboard]), "kbd");
        assert_eq!(called("Acme", &[Keyboard, Mouse]), "kbd");
        assert_eq!(called("Acme Consumer Control", &[Button]), "media");
        assert_eq!(called("Acme Consumer Control", &[Keyboard]), "media");
        assert_eq!(called("Acme System Control", &[Button]), "system");
        assert_eq!(called("Acme Mouse", &[Mouse]), "mouse");
        assert_eq!(
            called("Consumer Control Mouse", &[Mouse, Keyboard]),
            "mouse"
        );
        assert_eq!(called("Lid", &[Switch]), "input");
    }
}
