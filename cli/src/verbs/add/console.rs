// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl add console`: a GPU, a keyboard, a tablet, and a VNC server that shows the one and plays the others.

use std::path::Path;

use crate::instance::{Instance, UnitKind};
use crate::settings::{GpuOptions, ProgramOptions, Resolutions, Settings, VirtualKind, VncOptions};
use crate::unit_syntax::{Directive, quoted};
use crate::verbs::error::{AddError, Error};

use super::access::Access;
use super::args::Args;
use super::plan::{HostInventory, Plan, ServicePlan, reject_options};
use super::{gpu, input};

/// The plans for all parts of a console, the VNC server last.
pub(super) fn plans(args: &Args, host: &HostInventory) -> Result<Vec<Plan>, Error> {
    reject_options(
        "a console",
        &[
            &[
                ("--name", args.name.is_some()),
                ("--virtual", args.virtual_kind.is_some()),
            ][..],
            &args.input_options(),
        ]
        .concat(),
    )?;
    let gpu = gpu(args, host)?;
    let heads = settings(&gpu, host).options.heads();
    let mut plans = vec![gpu];
    let mut may_connect = None;
    for kind in VirtualKind::ALL {
        let mut plan = input::virtual_device(args, None, kind)?;
        check_name(args, host, &plan.instance)?;
        may_connect = plan.set_access(args)?;
        plans.push(plan);
    }
    let sockets = |plan: Option<&Plan>| plan.and_then(|plan| plan.socket.clone());
    let what = match sockets(plans.first()) == sockets(plans.last()) {
        true => "its devices",
        // A GPU in 2D is for more users, or keeps those that it has.
        false => "keyboard and tablet",
    };
    if let (Some(plan), false) = (plans.last_mut(), args.access.are_given()) {
        let who = may_connect.map_or_else(|| "Only root".to_owned(), |access| access.named());
        plan.hints.push(format!(
            "{who} may connect a VMM to {what}. Use --socket-user= for a VMM that runs as another user."
        ));
    }
    plans.push(vnc(args, heads)?);
    Ok(plans)
}

/// The VM's GPU: a new one, or the one that is there with what was asked for in addition.
fn gpu(args: &Args, host: &HostInventory) -> Result<Plan, Error> {
    let instance = Instance::checked(UnitKind::Gpu, &args.vm, None).map_err(AddError::Name)?;
    instance.check_console().map_err(AddError::Name)?;
    let is_asked =
        args.render_node.is_some() || args.virgl || args.vulkan || args.max_hostmem.is_some();
    let is_there = host.assignments.instances().any(|one| *one == instance);
    if is_asked || !is_there {
        let mut plan = gpu::new(args, host)?.with_console();
        plan.set_access(args)?;
        return Ok(plan);
    }
    let kept = Plan {
        instance,
        service: ServicePlan::Kept,
        socket: None,
        renderer: None,
        console: true,
        hints: Vec::new(),
    };
    let before = settings(&kept, host);
    let ProgramOptions::Gpu(old) = &before.options else {
        return Ok(kept);
    };
    let sizes = old.resolutions.clone();
    let new = GpuOptions {
        resolutions: args.resolutions(sizes).map_err(AddError::Usage)?,
        allow_resize: old.allow_resize || args.allow_resize,
        ..old.clone()
    };
    if new == *old {
        return Ok(kept);
    }
    let replaces = old.resolutions != Resolutions::default() && old.resolutions != new.resolutions;
    let changed = Settings {
        options: ProgramOptions::Gpu(new),
        ..before
    };
    let service = match replaces {
        true => ServicePlan::New(changed),
        false => ServicePlan::Changed(changed),
    };
    Ok(Plan { service, ..kept })
}

/// The settings of a GPU by a plan, or those that it has.
fn settings(plan: &Plan, host: &HostInventory) -> Settings {
    match plan.service.settings() {
        Some(settings) => settings.clone(),
        None => Settings::read(&host.folders, &plan.instance),
    }
}

/// Where the layouts of xkb-data are.
const LAYOUTS: &str = "/usr/share/X11/xkb/symbols";

/// Fails if a device of the host has the name that the console's device needs.
fn check_name(args: &Args, host: &HostInventory, instance: &Instance) -> Result<(), AddError> {
    match host.assignments.address(instance) {
        Some(device) if !args.force => Err(AddError::ConsoleName {
            instance: instance.to_string(),
            device: device.to_string(),
        }),
        _ => Ok(()),
    }
}

fn vnc(args: &Args, heads: usize) -> Result<Plan, AddError> {
    let instance = Instance::checked(UnitKind::Vnc, &args.vm, None)?;
    let viewers = Access::of_viewers(args.viewer_user.as_deref(), args.viewer_group.as_deref())
        .map_err(|error| AddError::Value(error.into()))?;
    let mut socket = Vec::new();
    for head in 1..heads {
        let path = instance.socket_of_head(head)?;
        socket.push(Directive::new("ListenStream", quoted(&path)));
    }
    socket.extend(viewers.iter().flat_map(Access::directives));
    let options = VncOptions {
        keyboard_layout: args.keyboard_layout.clone(),
        ..VncOptions::default()
    };
    let settings = Settings {
        options: ProgramOptions::Vnc(options),
        ..Settings::default()
    };
    let mut hints = Vec::new();
    if let Some(layout) = &args.keyboard_layout {
        hints.extend(check_layout(layout, Path::new(LAYOUTS))?);
    }
    if viewers.is_none() && args.viewer_user.is_none() {
        hints.push(
            "Only root may view it. Use --viewer-user= or --viewer-group= for others.".to_owned(),
        );
    }
    if args.now {
        hints.push(format!("To see and use it: vhostctl view {}", args.vm));
    }
    let mut plan = Plan::new(instance, settings, hints);
    plan.socket = Some(socket);
    Ok(plan)
}

/// Checks that a keyboard layout is installed: the server would not start. What its packages lack is a hint.
fn check_layout(name: &str, folder: &Path) -> Result<Option<String>, AddError> {
    let layout = name.split('(').next().unwrap_or_default();
    if name == "us" || folder.join(layout).is_file() {
        return Ok(None);
    }
    if !folder.is_dir() {
        let hint = "A keyboard layout other than us needs the packages libxkbcommon0 and xkb-data.";
        return Ok(Some(hint.to_owned()));
    }
    Err(AddError::Usage(format!(
        "Invalid --keyboard-layout: there is no layout '{layout}' in {}. 'localectl list-x11-keymap-layouts' lists them.",
        folder.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_one_that_is_installed() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("de"), "").expect("a layout");
        for name in ["us", "de", "de(nodeadkeys)"] {
            assert_eq!(check_layout(name, folder.path()).expect(name), None);
        }
        for name in ["ed", "de,us", "", "..", "/etc/passwd/x"] {
            assert!(check_layout(name, folder.path()).is_err(), "{name}");
        }
        let none = folder.path().join("none");
        let hint = check_layout("de", &none)
            .expect("no error")
            .expect("a hint");
        assert!(hint.contains("xkb-data"), "{hint}");
        assert_eq!(check_layout("us", &none).expect("no error"), None);
    }
}
