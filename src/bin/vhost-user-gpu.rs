// SPDX-License-Identifier: Apache-2.0 OR MIT
//! vhost-user-gpu: a virtio-gpu for a virtual machine, as a host process.

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use conventions::GpuMemory;
use vhost_user_backends::backend::{
    self, Capabilities, CommonOptions, Continuity, DeviceType, ListenerOptions, Program,
    SandboxMode, Takeover,
};
use vhost_user_backends::gpu;
use vhost_user_backends::gpu::render_node::{self, RenderNodeError};

/// A virtio-gpu for a virtual machine, served over vhost-user
///
/// QEMU: -chardev socket,id=gpu,path=PATH -device vhost-user-gpu-pci,chardev=gpu; with --venus or --native-context:
/// -device vhost-user-test-device-pci,virtio-id=16,num_vqs=2,vq_size=256,config_size=16,chardev=gpu
#[derive(Parser)]
#[command(name = VhostUserGpu::NAME, version)]
struct Options {
    #[command(flatten)]
    common: CommonOptions,

    /// Use the DRM render node PATH and no other (2D uses none; it is opened to check it; with --venus
    /// the render server chooses)
    #[arg(long, value_name = "PATH", help_heading = "GPU options")]
    render_node: Option<PathBuf>,

    /// Give the guest OpenGL by virglrenderer: on the render node, or else on the first one that
    /// can be opened, or else by software
    #[arg(long, help_heading = "GPU options")]
    virgl: bool,

    /// Give the guest Vulkan by virglrenderer's Venus, which runs in the render server that
    /// --render-server names (QEMU 11.1 or newer, with vhost-user-test-device-pci)
    #[arg(
        long,
        help_heading = "GPU options",
        requires = "render_server",
        conflicts_with_all = ["virgl", "render_node"]
    )]
    venus: bool,

    /// Connect to virglrenderer's render server on the Unix socket PATH, of type SOCK_SEQPACKET
    #[arg(
        long,
        value_name = "PATH",
        help_heading = "GPU options",
        requires = "venus",
        conflicts_with_all = ["virgl", "native_context"]
    )]
    render_server: Option<PathBuf>,

    /// Give the guest the driver of the host's own GPU, that of --render-node, by virglrenderer's
    /// native contexts (built with them, for amdgpu, i915, msm or asahi; QEMU 11.1 or newer, with
    /// vhost-user-test-device-pci). Not yet tried on a real GPU
    #[arg(
        long,
        help_heading = "GPU options",
        requires = "render_node",
        conflicts_with_all = ["virgl", "venus"]
    )]
    native_context: bool,

    /// Send screens as pixels, also where the render node could pass them on as dmabufs: for a
    /// front-end that takes those but does not show them (QEMU with -display none)
    #[arg(long, help_heading = "GPU options")]
    no_dmabuf: bool,

    /// Limit on host memory used by guest resources, in bytes or with K, M, G or T behind the
    /// number; allocations beyond it fail, and MemoryMax= of a unit has to leave room for it
    /// [default: 512M, in 3D 2G]
    #[arg(long, value_name = "SIZE", help_heading = "GPU options", value_parser = backend::parse_size)]
    max_hostmem: Option<u64>,

    /// Size of the part of the guest's addresses where it maps memory of the host, a power of two;
    /// renderers without such memory (2D, --virgl) do not use it
    #[arg(
        long,
        value_name = "SIZE",
        help_heading = "GPU options",
        default_value = "1G",
        value_parser = clap::value_parser!(gpu::HostVisibleMemory)
    )]
    host_visible_memory: gpu::HostVisibleMemory,

    /// Sizes of the guest's screens, one for each of its heads, where the VMM gives no display
    /// (where it does, they are the VMM's)
    #[arg(
        long,
        value_name = "WxH[,WxH...]",
        help_heading = "GPU options",
        default_value = "1280x800",
        value_parser = clap::value_parser!(gpu::Resolutions)
    )]
    resolution: gpu::Resolutions,

    /// Let consoles ask for other sizes of the guest's screens, where the VMM gives no display and
    /// tells the guest of changes: QEMU up to 11.1 may crash when a size changes just as the VM is
    /// paused, reset or shut down
    #[arg(long, help_heading = "GPU options")]
    allow_resize: bool,

    /// Listen for consoles on a Unix socket made at PATH; it is removed at the end
    #[arg(
        long,
        value_name = "PATH",
        help_heading = "Consoles (or a socket named display, passed by socket activation)",
        conflicts_with = "display_fd"
    )]
    display_socket: Option<PathBuf>,

    /// Listen for consoles on the open Unix stream socket FDNUM
    #[arg(
        long,
        value_name = "FDNUM",
        help_heading = "Consoles (or a socket named display, passed by socket activation)",
        value_parser = clap::value_parser!(RawFd).range(0..)
    )]
    display_fd: Option<RawFd>,
}

/// Why there is no GPU.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    RenderNode(#[from] RenderNodeError),
    #[cfg(not(feature = "virgl"))]
    #[error("{0}: this vhost-user-gpu was built without 3D; start it without")]
    No3d(&'static str),
    #[cfg(feature = "virgl")]
    #[error(transparent)]
    Venus(#[from] gpu::VenusError),
    #[cfg(feature = "virgl")]
    #[error(transparent)]
    NativeContext(#[from] gpu::NativeContextError),
}

struct VhostUserGpu;

impl Program for VhostUserGpu {
    type Options = Options;
    type Builder = gpu::Options;
    type Error = Error;

    const NAME: &'static str = "vhost-user-gpu";
    const LISTENERS: &'static [&'static str] = &[gpu::CONSOLE_SOCKET];

    /// `render-node` only where there is one: libvirt asks for a node whenever it is listed, and
    /// could not start a guest on a host without a GPU.
    fn capabilities() -> Capabilities {
        let mut features = Vec::new();
        if !render_node::list().is_empty() {
            features.push("render-node");
        }
        if cfg!(feature = "virgl") {
            features.push("virgl");
        }
        Capabilities::new(DeviceType::Gpu, &features)
    }

    fn common(options: &Options) -> &CommonOptions {
        &options.common
    }

    fn listeners(options: &Options) -> Vec<ListenerOptions> {
        vec![ListenerOptions {
            name: gpu::CONSOLE_SOCKET,
            path: options.display_socket.clone(),
            fd: options.display_fd,
            required: false,
        }]
    }

    fn takeover(options: &Options) -> Takeover {
        if options.virgl {
            return Takeover::Impossible("what the guest has in OpenGL (--virgl) ends with it");
        }
        if options.venus {
            return Takeover::Impossible("what the guest has in Vulkan (--venus) ends with it");
        }
        if options.native_context {
            return Takeover::Impossible(
                "what the guest has on the GPU (--native-context) ends with it",
            );
        }
        Takeover::WithImages(options.max_hostmem.unwrap_or(GpuMemory::TWO_D.max_hostmem))
    }

    fn open(options: &Options, _continuity: &Continuity) -> Result<gpu::Options, Error> {
        let node = options.render_node.as_deref();
        let device = gpu::Options {
            max_hostmem: options.max_hostmem,
            resolutions: options.resolution.clone(),
            allow_resize: options.allow_resize,
            host_visible_memory: options.host_visible_memory,
            #[cfg(feature = "virgl")]
            virgl: None,
            #[cfg(feature = "virgl")]
            venus: None,
            #[cfg(feature = "virgl")]
            native_context: None,
        };
        if let (true, Some(node)) = (options.native_context, node) {
            return native_context(node, device);
        }
        if let (true, Some(server)) = (options.venus, &options.render_server) {
            return venus(server, options.common.general.sandbox, device);
        }
        if options.virgl {
            return virgl(node, options.no_dmabuf, device);
        }
        if let Some(path) = node {
            render_node::open(path)?;
        }
        Ok(device)
    }
}

#[cfg(feature = "virgl")]
fn virgl(
    node: Option<&Path>,
    no_dmabuf: bool,
    device: gpu::Options,
) -> Result<gpu::Options, Error> {
    let mut virgl = gpu::VirglOptions::new(node)?;
    if no_dmabuf {
        virgl = virgl.without_dmabufs();
    }
    Ok(gpu::Options {
        virgl: Some(virgl),
        ..device
    })
}

#[cfg(not(feature = "virgl"))]
fn virgl(_: Option<&Path>, _: bool, _: gpu::Options) -> Result<gpu::Options, Error> {
    Err(Error::No3d("--virgl"))
}

#[cfg(feature = "virgl")]
fn venus(server: &Path, sandbox: SandboxMode, device: gpu::Options) -> Result<gpu::Options, Error> {
    Ok(gpu::Options {
        venus: Some(gpu::VenusOptions::new(server, sandbox)?),
        ..device
    })
}

#[cfg(not(feature = "virgl"))]
fn venus(_: &Path, _: SandboxMode, _: gpu::Options) -> Result<gpu::Options, Error> {
    Err(Error::No3d("--venus"))
}

#[cfg(feature = "virgl")]
fn native_context(node: &Path, device: gpu::Options) -> Result<gpu::Options, Error> {
    Ok(gpu::Options {
        native_context: Some(gpu::NativeContextOptions::new(node)?),
        ..device
    })
}

#[cfg(not(feature = "virgl"))]
fn native_context(_: &Path, _: gpu::Options) -> Result<gpu::Options, Error> {
    Err(Error::No3d("--native-context"))
}

fn main() -> ExitCode {
    backend::run::<VhostUserGpu>()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Options;

    #[test]
    fn manual_page_matches_the_command_line() -> Result<(), String> {
        let rest = include_str!("../../man/written/vhost-user-gpu.8");
        harness::manual::check(Options::command(), "8", rest).map_err(|error| format!("{error:#}"))
    }
}
