// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl add gpu`.

use std::path::Path;

use crate::descriptors;
use crate::devices::RenderNode;
use crate::instance::{Instance, UnitKind};
use crate::settings::{GpuOptions, ProgramOptions, RenderServer, Resolutions, Settings};
use crate::verbs::error::{AddError, Error};

use super::args::Args;
use super::plan::{HostInventory, Plan, reject_options};

/// What the unit of a render server runs.
const RENDER_SERVER: &str = "/usr/libexec/virgl_render_server";

pub(super) fn plan(args: &Args, host: &HostInventory) -> Result<Plan, Error> {
    reject_options(
        "a GPU",
        &[
            &[("--virtual", args.virtual_kind.is_some())][..],
            &args.input_options(),
            &args.console_options(),
        ]
        .concat(),
    )?;
    let mut plan = new(args, host)?;
    if args.vulkan {
        plan.hints.push(format!(
            "QEMU has no display for a GPU with Vulkan. To see its screen: vhostctl add console {}",
            args.vm
        ));
    }
    Ok(plan)
}

/// A GPU by the options of the command line.
pub(super) fn new(args: &Args, host: &HostInventory) -> Result<Plan, Error> {
    let instance =
        Instance::checked(UnitKind::Gpu, &args.vm, args.name.as_deref()).map_err(AddError::Name)?;
    let mut hints = Vec::new();
    let renders = args.virgl || args.vulkan;
    let what = if args.vulkan { "Vulkan" } else { "OpenGL" };
    let device = match args.render_node.as_deref() {
        // The host's GPU renders: chosen now, and not at each start.
        None if renders && !host.devices.render_nodes()?.is_empty() => Some("auto"),
        None if renders => {
            hints.push(format!(
                "This host has no render node: {what} is rendered by software."
            ));
            None
        }
        other => other,
    };
    if args.vulkan && !Path::new(RENDER_SERVER).exists() {
        hints.push(format!(
            "{RENDER_SERVER} is missing: the guest has no Vulkan until it is installed (Debian 13: apt install virgl-server mesa-vulkan-drivers)."
        ));
    }
    let device = match device {
        Some(wanted) => {
            let node = choose(wanted, host.devices.render_nodes()?)?;
            let path = match node.names.keeps(wanted) {
                true => wanted,
                false => node.preferred_path(),
            };
            if wanted == "auto" {
                hints.push(format!("Its render node is {path}."));
            }
            if path == node.node {
                hints.push(format!(
                    "{path} has no stable name. It may be another GPU after the next boot."
                ));
            }
            Some(path.to_owned())
        }
        None => None,
    };
    let options = GpuOptions {
        render_node: device,
        virgl: args.virgl,
        vulkan: args.vulkan,
        max_hostmem: args.max_hostmem.clone(),
        resolutions: args
            .resolutions(Resolutions::default())
            .map_err(AddError::Usage)?,
        allow_resize: args.allow_resize,
        others: Vec::new(),
    };
    let renderer = RenderServer::new(&options);
    let settings = Settings {
        options: ProgramOptions::Gpu(options),
        ..Settings::default()
    };
    Ok(Plan {
        renderer: Some(renderer),
        ..Plan::new(instance, settings, hints)
    })
}

/// The render node that the command line names.
fn choose(wanted: &str, nodes: Vec<RenderNode>) -> Result<RenderNode, AddError> {
    let no_device = || AddError::NoDevice {
        text: wanted.to_owned(),
        kind: "gpu",
    };
    if wanted == "auto" {
        let main = nodes.iter().position(|node| node.boot_vga).unwrap_or(0);
        return nodes.into_iter().nth(main).ok_or(AddError::NoRenderNode);
    }
    nodes
        .into_iter()
        .find(|node| node.is_at(wanted))
        .ok_or_else(no_device)
}

/// Checks that the program supports OpenGL, which not every build does.
pub(super) fn check_virgl(program: &str) -> Result<(), AddError> {
    let capabilities =
        descriptors::probe(Path::new(program)).map_err(|source| AddError::NoCapabilities {
            program: program.to_owned(),
            source,
        })?;
    let features = capabilities.features.unwrap_or_default();
    if features.iter().any(|feature| feature == "virgl") {
        return Ok(());
    }
    Err(AddError::NoVirgl {
        program: program.to_owned(),
    })
}
