//! `vhostctl add gpu`.

use std::path::Path;

use conventions::{SizeError, parse_size};

use crate::descriptors;
use crate::devices::RenderNode;
use crate::instance::{Instance, UnitKind};
use crate::settings::Settings;

use super::super::Error as VerbError;
use super::{Args, Error, HostInventory, Plan, only_for};

pub(super) fn plan(args: &Args, host: &HostInventory) -> Result<Plan, VerbError> {
    only_for(
        "a GPU",
        &[
            ("DEVICE", args.device.is_some()),
            ("--no-grab", args.no_grab),
        ],
    )?;
    let instance =
        Instance::checked(UnitKind::Gpu, &args.vm, args.name.as_deref()).map_err(Error::Name)?;
    let mut hints = Vec::new();
    let device = match args.render_node.as_deref() {
        // 3D is drawn by the host's GPU: which one is better known now than guessed later.
        None if args.virgl && !host.devices.render_nodes()?.is_empty() => Some("auto"),
        None if args.virgl => {
            hints.push("This host has no render node: OpenGL is drawn by software.".to_owned());
            None
        }
        other => other,
    };
    let device = match device {
        Some(wanted) => {
            let node = choose(wanted, host.devices.render_nodes()?)?;
            let path = match node.names.keeps(wanted) {
                true => wanted,
                false => node.stable(),
            };
            if wanted == "auto" {
                hints.push(format!("Its render node is {path}."));
            }
            if path == node.node {
                hints.push(format!(
                    "{path} has no stable name. It can be another GPU after the next boot."
                ));
            }
            Some(path.to_owned())
        }
        None => None,
    };
    let virgl = args.virgl.then(|| "--virgl".to_owned());
    let max_hostmem = args.max_hostmem.as_ref();
    let max_hostmem = max_hostmem.map(|size| format!("--max-hostmem={size}"));
    let settings = Settings {
        device,
        options: virgl.into_iter().chain(max_hostmem).collect(),
        ..Settings::default()
    };
    Ok(Plan {
        instance,
        settings,
        access: None,
        hints,
    })
}

/// A size as the program takes it, seen before it stands in a unit.
pub(super) fn size(text: &str) -> Result<String, SizeError> {
    parse_size(text).map(|_| text.to_owned())
}

/// The render node that is meant.
fn choose(wanted: &str, nodes: Vec<RenderNode>) -> Result<RenderNode, Error> {
    let no_device = || Error::NoDevice {
        text: wanted.to_owned(),
        kind: "gpu",
    };
    if wanted == "auto" {
        let main = nodes.iter().position(|node| node.boot_vga).unwrap_or(0);
        return nodes.into_iter().nth(main).ok_or(Error::NoRenderNode);
    }
    nodes
        .into_iter()
        .find(|node| node.is_at(wanted))
        .ok_or_else(no_device)
}

/// Sees that the program can do 3D, which not every build of it can.
pub(super) fn check_virgl(program: &str) -> Result<(), Error> {
    let no = |why| Error::NoVirgl {
        program: program.to_owned(),
        why,
    };
    match descriptors::probe(Path::new(program)) {
        Ok(capabilities) => {
            let features = capabilities.features.unwrap_or_default();
            if features.iter().any(|feature| feature == "virgl") {
                Ok(())
            } else {
                Err(no("it does not list 'virgl' among its capabilities. Without --virgl the guest gets a 2D GPU.".into()))
            }
        }
        Err(problem) => Err(no(format!("{program} --print-capabilities {problem}."))),
    }
}
