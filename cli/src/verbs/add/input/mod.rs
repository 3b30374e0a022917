// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl add input`.

mod find;
mod names;
mod rule;

use crate::assignments::is_address_of;
use crate::devices::InputDevice;
use crate::instance::{Instance, UnitKind};
use crate::settings::{
    DeviceAddress, InputOptions, ProgramOptions, Settings, VirtualKind, group_file,
};
use crate::verbs::error::{AddError, Error};

use super::access;
use super::args::Args;
use super::plan::{HostInventory, Plan, reject_options};

use find::FoundDevice;

/// The plans for an input device, or for all its nodes.
pub(super) fn plans(args: &Args, host: &HostInventory) -> Result<Vec<Plan>, Error> {
    reject_options(
        "an input device",
        &[
            &[
                ("--render-node", args.render_node.is_some()),
                ("--virgl", args.virgl),
                ("--vulkan", args.vulkan),
                ("--max-hostmem", args.max_hostmem.is_some()),
            ][..],
            &args.screen_options(),
            &args.console_options(),
        ]
        .concat(),
    )?;
    let mut plans = match args.virtual_kind {
        Some(kind) => {
            reject_options("a virtual input device", &args.input_options())?;
            vec![virtual_device(args, args.name.as_deref(), kind)?]
        }
        None => host_devices(args, host)?,
    };
    let mut may_connect = None;
    for plan in &mut plans {
        may_connect = plan.set_access(args)?;
    }
    if let Some(plan) = plans.last_mut() {
        let kind = plan.instance.kind();
        plan.hints
            .extend(access::hint(&args.access, may_connect.as_ref(), kind));
    }
    Ok(plans)
}

/// The plans for the nodes of a device of the host.
fn host_devices(args: &Args, host: &HostInventory) -> Result<Vec<Plan>, Error> {
    let all = host.devices.inputs()?;
    let chosen = find::choose(
        args.device.as_deref(),
        args.ids.as_ref(),
        args.all_nodes,
        &all,
    )?;
    let mut plans: Vec<Plan> = Vec::new();
    for found in chosen.nodes {
        let instance = names::instance(args, host, found.device, &plans)?;
        plans.push(host_device(args, host, found, instance, &all)?);
    }
    if let Some(plan) = plans.last_mut() {
        plan.hints.extend(chosen.left_out.iter().map(|device| {
            format!(
                "Left out {}: a guest has no use for it.",
                find::described(device)
            )
        }));
    }
    Ok(plans)
}

/// The plan for one node.
fn host_device(
    args: &Args,
    host: &HostInventory,
    found: FoundDevice<'_>,
    instance: Instance,
    all: &[InputDevice],
) -> Result<Plan, Error> {
    let device = found.device;
    let (address, hints) = match &args.ids {
        Some(wanted) => {
            let rule = rule::of_ids(device, wanted, all)?;
            (DeviceAddress::Match(rule), Vec::new())
        }
        None => address(args, host, found, &instance, all),
    };
    if !args.force {
        if let Some(owner) = host.assignments.other_holder(device, &instance) {
            return Err(AddError::Assigned {
                device: address.to_string(),
                owner: owner.to_string(),
            }
            .into());
        }
        // By a chord the host has it back whenever somebody wants to type, also from a guest that hangs.
        let is_given_back = args.no_grab || args.grab_toggle.is_some();
        if !is_given_back && host.assignments.takes_last_keyboard(device, all) {
            return Err(AddError::LastKeyboard {
                device: address.to_string(),
                vm: args.vm.clone(),
            }
            .into());
        }
    }
    let (evdev_path, evdev_match) = match address {
        DeviceAddress::Path(path) => (Some(path), None),
        DeviceAddress::Match(rule) => (None, Some(rule)),
    };
    let options = InputOptions {
        evdev_path,
        evdev_match,
        no_grab: args.no_grab,
        grab_toggle: args.grab_toggle,
        grab_group: args.grab_group.then(|| group_file(&instance)),
        ..InputOptions::default()
    };
    let settings = Settings {
        options: ProgramOptions::Input(options),
        ..Settings::default()
    };
    Ok(Plan::new(instance, settings, hints))
}

/// How a node is found for which the user gave no numbers, and hints about that.
fn address(
    args: &Args,
    host: &HostInventory,
    mut found: FoundDevice<'_>,
    instance: &Instance,
    all: &[InputDevice],
) -> (DeviceAddress, Vec<String>) {
    let device = found.device;
    let chosen = found.has_link();
    if !chosen {
        // A device that is added again is found as it was before.
        let before = host.assignments.address(instance);
        match before.filter(|address| is_address_of(address, device)) {
            Some(DeviceAddress::Match(rule)) => return (DeviceAddress::Match(rule), Vec::new()),
            Some(DeviceAddress::Path(path)) => found.keep_link(&path),
            None => {}
        }
    }
    let path = DeviceAddress::Path(found.path().to_owned());
    let Some(hint) = found.hint(all) else {
        return (path, Vec::new());
    };
    let rule = rule::of_node(device, all).filter(|_| !chosen);
    match rule {
        Some(rule) if args.all_nodes => {
            let hint =
                format!("{instance} has no stable name, and is found by its numbers: {rule}.");
            (DeviceAddress::Match(rule), vec![hint])
        }
        Some(rule) => {
            let other = format!("To find it by its numbers instead: --match={}", rule.ids);
            (path, vec![hint, other])
        }
        None => (path, vec![hint]),
    }
}

/// A device without hardware, by default with the name by which a console looks for it.
pub(super) fn virtual_device(
    args: &Args,
    name: Option<&str>,
    kind: VirtualKind,
) -> Result<Plan, AddError> {
    let name = name.unwrap_or_else(|| kind.name());
    let instance = Instance::checked(UnitKind::Input, &args.vm, Some(name))?;
    instance.check_console()?;
    let options = InputOptions {
        virtual_kind: Some(kind),
        ..InputOptions::default()
    };
    let settings = Settings {
        options: ProgramOptions::Input(options),
        ..Settings::default()
    };
    Ok(Plan::new(instance, settings, Vec::new()).with_console())
}

#[cfg(test)]
mod testing;
