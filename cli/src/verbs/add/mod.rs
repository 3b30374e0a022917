//! `vhostctl add`: a device for a VM, as an instance of our units.

mod access;
mod apply;
mod backend;
mod drop_in;
mod gpu;
mod input;

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use conventions::DeviceType;

use crate::assignments::DeviceAssignments;
use crate::completion;
use crate::devices::Devices;
use crate::exit;
use crate::instance::{Instance, NameError, UnitType, parse_name};
use crate::output::Output;
use crate::settings::{Folders, Settings};
use crate::systemd::Target;
use crate::values::ValueError;

use super::unit_control::{self, UnitController};

/// Give a VM a device: a GPU, an input device, or any installed backend
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "\
vhostctl add gpu VM [--render-node=auto|PATH] [--virgl] [--max-hostmem=SIZE]
       vhostctl add input VM DEVICE [--name=NAME] [--no-grab]
       vhostctl add fs VM --backend=virtiofsd --shared-dir=PATH [--name=NAME]
       vhostctl add block VM --backend=qemu-storage-daemon --blk-file=PATH [--name=NAME]
       vhostctl add net VM --backend=passt [--name=NAME] [-- ARGS...]
       vhostctl add TYPE VM --backend=BACKEND [--name=NAME] [-- ARGS...]",
    after_help = "\
The settings become files, 50-vhostctl.conf, below the units' names in /etc/systemd/system. The socket
listens from boot on, and with --now at once; the program runs while a VMM is connected. Then:
vhostctl qemu-args VM, or vhostctl libvirt-xml VM.

Who may connect to the socket owns the device: reads what is typed, the files, the disk, and has the
program's rights. By default that is root and the user that libvirt runs QEMU as (user= in
/etc/libvirt/qemu.conf, else libvirt-qemu or qemu, where there is such a user). Group kvm may connect to
a GPU without --virgl and --render-node, unless one of the --socket options is given.

DEVICE is the name of a device as vhostctl list-devices shows it, a link to one, such as those below
/dev/input/by-id and by-path, a device node, or a part of a name or link, if that is the only one. A link
stays as it is given; in place of a node the link that stays is written, if there is one.

BACKEND is the name of a descriptor, with or without its number, or the name of its program: see vhostctl
list-backends. A path is taken as a program without a descriptor. The program is passed its listening
socket by --fd=3. Where it wants that said otherwise, write {fd} into an argument: it becomes 3. Where it
makes a socket of its own, write {socket}: it becomes a path.

What virtiofsd, qemu-storage-daemon, passt and vhost-device-rng need is known: see KNOWN BACKENDS in
vhost-user@.service(5). All but the first need no descriptor. Any other one runs as a dynamic user
without network, and may write to nothing but what --shared-dir, --blk-file and --allow-path name."
)]
pub(crate) struct Args {
    /// What it is: gpu, input, or with --backend any type of the conventions, such as fs or block
    #[arg(value_name = "TYPE", value_parser = PossibleValuesParser::new(DeviceType::ALL.map(DeviceType::name)), hide_possible_values = true)]
    device_type: String,

    /// The VM that it is for
    #[arg(value_name = "VM", value_parser = parse_name, add = completion::vms())]
    vm: String,

    /// The input device of the host
    #[arg(value_name = "DEVICE", add = completion::input_devices())]
    device: Option<String>,

    /// Name of the device within the VM; chosen if not given
    #[arg(help_heading = HEADING, long, value_name = "NAME", value_parser = parse_name)]
    name: Option<String>,

    /// gpu: use this render node; 'auto' is the host's main GPU
    #[arg(help_heading = HEADING, long, value_name = "auto|PATH", add = completion::render_nodes())]
    render_node: Option<String>,

    /// gpu: give the guest OpenGL
    #[arg(help_heading = HEADING, long)]
    virgl: bool,

    /// gpu: limit on host memory used by guest resources, in bytes or with K, M, G or T
    #[arg(help_heading = HEADING, long, value_name = "SIZE", value_parser = gpu::size)]
    max_hostmem: Option<String>,

    /// input: leave the device to the host as well
    #[arg(help_heading = HEADING, long)]
    no_grab: bool,

    /// Use this installed backend
    #[arg(help_heading = HEADING, long, value_name = "BACKEND", add = completion::installed_backends())]
    backend: Option<String>,

    /// fs: share this folder of the host
    #[arg(help_heading = HEADING, long, value_name = "PATH", requires = "backend")]
    shared_dir: Option<PathBuf>,

    /// block: serve this disk image or block device
    #[arg(help_heading = HEADING, long, value_name = "PATH", requires = "backend")]
    blk_file: Option<PathBuf>,

    /// fs, block: do not let the guest write
    #[arg(help_heading = HEADING, long, requires = "backend")]
    read_only: bool,

    /// With --backend: let it use the host's network; the default for type net
    #[arg(help_heading = HEADING, long, requires = "backend")]
    allow_network: bool,

    /// With --backend: let it write to this file or folder; may be repeated
    #[arg(help_heading = HEADING, long, value_name = "PATH", requires = "backend")]
    allow_path: Vec<PathBuf>,

    /// With --backend: pass it a connected socket, not a listening one
    #[arg(help_heading = HEADING, long, requires = "backend")]
    connected: bool,

    /// With --backend: let it open this device node; may be repeated
    #[arg(help_heading = HEADING, long, value_name = "PATH", requires = "backend")]
    allow_device: Vec<PathBuf>,

    /// With --backend: run it as this user, such as root, not as one of its own
    #[arg(help_heading = HEADING, long, value_name = "USER", requires = "backend")]
    run_as: Option<String>,

    #[command(flatten)]
    access: access::AccessArgs,

    /// Start its socket now, not only at the next boot
    #[arg(help_heading = HEADING, long)]
    now: bool,

    /// Proceed even if the device is assigned to another VM or is the last keyboard, and replace other settings
    #[arg(help_heading = HEADING, long)]
    force: bool,

    /// With --backend: arguments for the program
    #[arg(last = true, value_name = "ARGS", requires = "backend")]
    arguments: Vec<String>,
}

/// Apart from the options that all verbs have.
const HEADING: &str = "Settings";

/// Why nothing was added.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("Failed to add it: {0}.")]
    Name(#[from] NameError),
    #[error("Failed to add it: {0}.")]
    Value(#[from] ValueError),
    #[error("{0}")]
    Usage(String),
    #[error("No such device: {text}. See 'vhostctl list-devices --type={kind}'.")]
    NoDevice { text: String, kind: &'static str },
    #[error("This host has no render node.")]
    NoRenderNode,
    #[error("'{text}' could be any of these; take one of the paths:\n{}", candidates.join("\n"))]
    Ambiguous {
        text: String,
        candidates: Vec<String>,
    },
    #[error(
        "{device} is already assigned to {holder}. Run 'vhostctl remove {holder}' first, or use --force to share it."
    )]
    Held { device: String, holder: String },
    #[error(
        "{device} is the last keyboard of seat0: while {vm} runs, nobody could type on this host. --no-grab leaves it \
         to the host as well; --force takes it all the same."
    )]
    LastKeyboard { device: String, vm: String },
    #[error(
        "{unit} has other settings already, in {file}. Use --force to replace them, or run 'vhostctl remove {selector}' first."
    )]
    Exists {
        unit: String,
        selector: String,
        file: String,
    },
    #[error("{unit} is not installed, or systemd was not told (systemctl daemon-reload).")]
    NotInstalled { unit: String },
    #[error(
        "No usable backend '{name}' of type {device_type} is installed. See 'vhostctl list-backends'."
    )]
    NoBackend { name: String, device_type: String },
    #[error("'{name}' could be any of these backends; take the name of one:\n{}", candidates.join("\n"))]
    AmbiguousBackend {
        name: String,
        candidates: Vec<String>,
    },
    #[error("{} {problem}.", program.display())]
    UnusableProgram { program: PathBuf, problem: String },
    #[error(
        "{} would run as root, and root alone does not decide what it is: {why}. Give --run-as=root if that is meant.",
        program.display()
    )]
    OthersProgram { program: PathBuf, why: String },
    #[error("{unit} does not say where vhost-user-accept is: install the units again.")]
    NoAcceptProgram { unit: String },
    #[error("{} cannot be used: {problem}.", path.display())]
    UnusableFile { path: PathBuf, problem: String },
    #[error("{program} has no 3D: {why}")]
    NoVirgl { program: String, why: String },
}

impl Error {
    /// The exit status, as systemctl's.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::NotInstalled { .. } => exit::NOT_FOUND,
            _ => exit::FAILURE,
        }
    }
}

/// What is to be added.
struct Plan {
    instance: Instance,
    settings: Settings,
    /// Who may connect, where that is not as the unit's template has it.
    access: Option<access::Access>,
    /// What the user should know of it.
    hints: Vec<String>,
}

/// What of the host a plan depends on.
struct HostInventory {
    devices: Devices,
    folders: Folders,
    assignments: DeviceAssignments,
}

pub(super) fn run(args: &Args, target: &Target, output: &Output) -> Result<(), super::Error> {
    target.local_only("add")?;
    let lock = unit_control::lock()?;
    let folders = Folders::system();
    let host = HostInventory {
        devices: Devices::new(),
        assignments: DeviceAssignments::read(&folders),
        folders,
    };
    let mut plan = match (args.device_type.as_str(), &args.backend) {
        (_, Some(name)) => backend::plan(args, name, &host)?,
        ("gpu", None) => gpu::plan(args, &host)?,
        ("input", None) => input::plan(args, &host)?,
        (device_type, None) => {
            let text = format!(
                "Which backend of type {device_type}? Name it with --backend=BACKEND. See 'vhostctl list-backends'."
            );
            return Err(Error::Usage(text).into());
        }
    };
    let host_gpu = args.virgl || plan.settings.device.is_some();
    let access =
        access::Access::choose(&args.access, &plan.instance, host_gpu).map_err(Error::Value)?;
    let kind = plan.instance.kind();
    plan.hints
        .extend(access::hint(&args.access, access.as_ref(), kind));
    plan.access = access;
    zbus::block_on(async {
        let mut changes = UnitController::connect(target, output).await?;
        check_program(args, &changes, &plan.instance).await?;
        apply::apply(args, &mut changes, &host.folders, &plan, lock, output).await
    })
}

/// Sees that the unit is installed, and can do what is asked of it.
async fn check_program(
    args: &Args,
    changes: &UnitController<'_>,
    instance: &Instance,
) -> Result<(), super::Error> {
    let unit = instance.unit(UnitType::Service);
    let Some(program) = changes.manager.program(&unit).await? else {
        return Err(Error::NotInstalled { unit }.into());
    };
    if args.virgl {
        gpu::check_virgl(&program)?;
    }
    Ok(())
}

/// Fails if an option is there that is for another type only.
fn only_for(what: &str, unwanted: &[(&str, bool)]) -> Result<(), Error> {
    match unwanted.iter().find(|(_, is_there)| *is_there) {
        Some((option, _)) => Err(Error::Usage(format!(
            "{option} is not for {what}. See 'vhostctl add --help'."
        ))),
        None => Ok(()),
    }
}

/// A name that no other device of the VM has: that word, or with a number.
fn free_name(word: &str, vm: &str, assignments: &DeviceAssignments) -> String {
    let is_taken = |name: &str| {
        assignments
            .instances()
            .any(|instance| instance.vm() == vm && instance.name() == Some(name))
    };
    std::iter::once(word.to_owned())
        .chain((2_u32..).map(|number| format!("{word}{number}")))
        .find(|name| !is_taken(name))
        .unwrap_or_else(|| word.to_owned())
}
