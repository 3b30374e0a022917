//! vhost-user-gpu: a virtio-gpu for a virtual machine, as a host process.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use vhost_user_backends::backend::{self, Capabilities, CommonOptions, Program};
use vhost_user_backends::gpu::{self, Gpu, render_node};

/// A virtio-gpu for a virtual machine, served over vhost-user
///
/// QEMU: -chardev socket,id=gpu,path=PATH -device vhost-user-gpu-pci,chardev=gpu
#[derive(Parser)]
#[command(name = VhostUserGpu::NAME, version)]
struct Options {
    #[command(flatten)]
    common: CommonOptions,

    /// Use the DRM render node PATH and no other (2D uses none; it is opened to check it)
    #[arg(long, value_name = "PATH", help_heading = "GPU options")]
    render_node: Option<PathBuf>,

    /// Give the guest OpenGL by virglrenderer (not in this version: refused)
    #[arg(long, help_heading = "GPU options")]
    virgl: bool,
}

struct VhostUserGpu;

impl Program for VhostUserGpu {
    type Options = Options;
    type Device = Gpu;

    const NAME: &'static str = "vhost-user-gpu";

    /// `render-node` only where there is one: libvirt asks for a node whenever it is listed, and
    /// could not start a guest on a host without a GPU.
    fn capabilities() -> Capabilities {
        let features = if render_node::list().is_empty() {
            Vec::new()
        } else {
            vec!["render-node"]
        };
        Capabilities {
            kind: "gpu",
            features,
        }
    }

    fn common(options: &Options) -> &CommonOptions {
        &options.common
    }

    fn open(options: &Options) -> Result<Gpu, Box<dyn Error>> {
        if options.virgl {
            return Err(
                "--virgl: this version of vhost-user-gpu has no 3D; start it without".into(),
            );
        }
        if let Some(path) = &options.render_node {
            render_node::check(path)?;
        }
        Ok(Gpu::new(gpu::Options::default()))
    }
}

fn main() -> ExitCode {
    backend::run::<VhostUserGpu>()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Options;

    #[test]
    fn the_manual_page_is_what_the_program_says() -> Result<(), String> {
        let rest = include_str!("../../man/written/vhost-user-gpu.8");
        harness::manual::check(Options::command(), "8", rest).map_err(|error| format!("{error:#}"))
    }
}
