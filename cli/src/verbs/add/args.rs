// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line of `add`.

use std::path::PathBuf;

use conventions::{DeviceType, InputIds};

use crate::completion;
use crate::instance::parse_name;
use crate::settings::{GrabToggle, HEADS_MAX, MaxHostmem, Resolutions, VirtualKind};

/// Give a VM a console, or a device: a GPU, an input device, or any installed backend
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "\
vhostctl add console VM [--virgl|--vulkan] [--viewer-user=USER] [--heads=N] [--resolution=WxH] [--allow-resize]
                              [--keyboard-layout=LAYOUT]
       vhostctl add gpu VM [--render-node=auto|PATH] [--virgl|--vulkan] [--max-hostmem=SIZE]
       vhostctl add input VM DEVICE [--all-nodes] [--name=NAME] [--no-grab] [--grab-toggle=CHORD] [--grab-group]
       vhostctl add input VM [DEVICE] --match=VENDOR:PRODUCT[:SERIAL] [--all-nodes] [--name=NAME] [--no-grab]
       vhostctl add input VM --virtual=keyboard|tablet [--name=NAME]
       vhostctl add fs VM --backend=virtiofsd --shared-dir=PATH [--name=NAME]
       vhostctl add block VM --backend=qemu-storage-daemon --blk-file=PATH [--name=NAME]
       vhostctl add net VM --backend=passt [--name=NAME] [-- ARGS...]
       vhostctl add TYPE VM --backend=BACKEND [--name=NAME] [-- ARGS...]",
    after_help = "\
The settings are written to drop-ins of the units, 50-vhostctl.conf, in /etc/systemd/system. The socket
listens from the next boot, with --now at once; the program runs while a VMM is connected. Then:
vhostctl qemu-args VM, or vhostctl libvirt-xml VM.

A console is the VM's screen, keyboard and mouse for vhostctl view and other VNC viewers: a GPU, the virtual
devices VM:keyboard and VM:tablet, and a VNC server on a Unix socket. It takes the options of a GPU as well; a
GPU that the VM has already is kept. The VNC server runs while somebody looks. Whoever may connect to its socket
sees the screen and types: by default only root, else those that --viewer-user= and --viewer-group= name.

Whoever may connect to the socket controls the device: what is typed, the files, the disk, and the rights
of the program. By default, these are root and the user that libvirt runs QEMU as (user= in
/etc/libvirt/qemu.conf, otherwise libvirt-qemu or qemu, if that user exists). Group kvm may connect to a
GPU without --virgl, --vulkan and --render-node, unless one of the --socket options is given.

DEVICE is the name of a device as vhostctl list-devices shows it, a link to one, such as those in
/dev/input/by-id and by-path, a device node, or a part of a name or link that matches no other device. A link
is kept as given; a node is replaced by its stable link, if it has one.

Many keyboards, mice and receivers have several nodes: one for the keys, one for media keys, one for a
pointer. --all-nodes adds every node of the device that a guest can use, each as a backend of its own: vm1:kbd,
vm1:media, vm1:mouse. A node without a stable link is found by its numbers.

--match= finds a device by its numbers, as vhostctl list-devices and lsusb print them, and not by a path: for
devices without a stable link, such as those of Bluetooth, of receivers, and of programs. Two devices of one model
need the serial number or, if they have none, a path.

BACKEND is the name of a descriptor, with or without its number, or the name of its program: see vhostctl
list-backends. A path is a program without a descriptor. The program gets its listening socket by --fd=3. If
it takes the number by another option, write {fd} in an argument, which becomes 3. If it creates a socket of
its own, write {socket}, which becomes a path.

The needs of virtiofsd, qemu-storage-daemon, passt and vhost-device-rng are known: see KNOWN BACKENDS in
vhost-user@.service(5). All but the first need no descriptor. Any other program runs as a dynamic user
without network, and may write only to the paths of --shared-dir, --blk-file and --allow-path."
)]
pub(crate) struct Args {
    /// console, gpu, input, or with --backend any type of the conventions, such as fs or block
    #[arg(value_name = "TYPE", value_parser = crate::verbs::shared::arguments::device_type(), hide_possible_values = true)]
    pub(super) device_type: DeviceType,

    /// Name of the VM
    #[arg(value_name = "VM", value_parser = parse_name, add = completion::vms())]
    pub(super) vm: String,

    /// Input device of the host
    #[arg(value_name = "DEVICE", add = completion::input_devices())]
    pub(super) device: Option<String>,

    /// Name of the device within the VM [default: by its type]
    #[arg(help_heading = HEADING, long, value_name = "NAME", value_parser = parse_name)]
    pub(super) name: Option<String>,

    /// console, gpu: the number of the VM's screens [default: one, or as many as there are sizes]
    #[arg(help_heading = HEADING, long, value_name = "N", value_parser = heads)]
    pub(super) heads: Option<usize>,

    /// console, gpu: the size of the screen where the VMM does not say it; one for each head [default: 1280x800]
    #[arg(help_heading = HEADING, long, value_name = "WxH[,WxH...]")]
    pub(super) resolution: Option<Resolutions>,

    /// console, gpu: let viewers change the size of the screen where the VMM does not say it; QEMU up to 11.1 may crash when one does so just as the VM is paused, reset or shut down
    #[arg(help_heading = HEADING, long)]
    pub(super) allow_resize: bool,

    /// console: the guest's keyboard layout, such as us or 'de(nodeadkeys)', for viewers that send characters instead of keys [default: us]
    #[arg(help_heading = HEADING, long, value_name = "LAYOUT", value_parser = layout)]
    pub(super) keyboard_layout: Option<String>,

    /// console: let this user view and use it [default: root]
    #[arg(help_heading = HEADING, long, value_name = "USER")]
    pub(super) viewer_user: Option<String>,

    /// console: let this group view and use it [default: none]
    #[arg(help_heading = HEADING, long, value_name = "GROUP")]
    pub(super) viewer_group: Option<String>,

    /// gpu: use this render node; 'auto' means the host's main GPU
    #[arg(help_heading = HEADING, long, value_name = "auto|PATH", add = completion::render_nodes())]
    pub(super) render_node: Option<String>,

    /// gpu: give the guest OpenGL
    #[arg(help_heading = HEADING, long)]
    pub(super) virgl: bool,

    /// gpu: give the guest Vulkan; needs QEMU 11.1, and virglrenderer 1.1 with its render server
    #[arg(help_heading = HEADING, long, conflicts_with = "virgl")]
    pub(super) vulkan: bool,

    /// gpu: limit on host memory used by guest resources, in bytes or with K, M, G or T
    #[arg(help_heading = HEADING, long, value_name = "SIZE")]
    pub(super) max_hostmem: Option<MaxHostmem>,

    /// input: add every node of the device that a guest can use
    #[arg(help_heading = HEADING, long)]
    pub(super) all_nodes: bool,

    /// input: find the device by these numbers instead of a path
    #[arg(help_heading = HEADING, long = "match", value_name = "VENDOR:PRODUCT[:SERIAL]", add = completion::input_ids())]
    pub(super) ids: Option<InputIds>,

    /// input: share the device with the host
    #[arg(help_heading = HEADING, long)]
    pub(super) no_grab: bool,

    /// input: these keys take the device from the guest and give it again, by their names in QEMU and libvirt: ctrl-ctrl, alt-alt, shift-shift, meta-meta, scrolllock, ctrl-scrolllock
    #[arg(help_heading = HEADING, long, value_name = "CHORD", hide_possible_values = true, conflicts_with = "no_grab")]
    pub(super) grab_toggle: Option<GrabToggle>,

    /// input: change hands together with the VM's other devices that have this option
    #[arg(help_heading = HEADING, long)]
    pub(super) grab_group: bool,

    /// input: a device without hardware, which the VM's console plays
    #[arg(help_heading = HEADING, long = "virtual", value_name = "keyboard|tablet", value_enum, hide_possible_values = true)]
    pub(super) virtual_kind: Option<VirtualKind>,

    /// Use this installed backend
    #[arg(help_heading = HEADING, long, value_name = "BACKEND", add = completion::installed_programs())]
    pub(super) backend: Option<String>,

    /// fs: share this folder of the host
    #[arg(help_heading = HEADING, long, value_name = "PATH", requires = "backend")]
    pub(super) shared_dir: Option<PathBuf>,

    /// block: serve this disk image or block device
    #[arg(help_heading = HEADING, long, value_name = "PATH", requires = "backend")]
    pub(super) blk_file: Option<PathBuf>,

    /// fs, block: do not allow the guest to write
    #[arg(help_heading = HEADING, long, requires = "backend")]
    pub(super) read_only: bool,

    /// With --backend: allow access to the host's network; the default for type net
    #[arg(help_heading = HEADING, long, requires = "backend")]
    pub(super) allow_network: bool,

    /// With --backend: allow writing to this file or folder; may be repeated
    #[arg(help_heading = HEADING, long, value_name = "PATH", requires = "backend")]
    pub(super) allow_path: Vec<PathBuf>,

    /// With --backend: pass the program a connected socket instead of a listening one
    #[arg(help_heading = HEADING, long, requires = "backend")]
    pub(super) connected: bool,

    /// With --backend: allow opening this device node; may be repeated
    #[arg(help_heading = HEADING, long, value_name = "PATH", requires = "backend")]
    pub(super) allow_device: Vec<PathBuf>,

    /// With --backend: run the program as this user, such as root, instead of a dynamic user
    #[arg(help_heading = HEADING, long, value_name = "USER", requires = "backend")]
    pub(super) run_as: Option<String>,

    #[command(flatten)]
    pub(super) access: AccessArgs,

    /// Start its socket now as well, not only at boot
    #[arg(help_heading = HEADING, long)]
    pub(super) now: bool,

    /// Proceed even if the device is assigned to another VM or is the last keyboard, and replace other settings
    #[arg(help_heading = HEADING, long)]
    pub(super) force: bool,

    /// With --backend: arguments for the program
    #[arg(last = true, value_name = "ARGS", requires = "backend")]
    pub(super) arguments: Vec<String>,
}

impl Args {
    /// The options of a console alone, for the types that have none of them.
    pub(super) fn console_options(&self) -> [(&'static str, bool); 3] {
        [
            ("--keyboard-layout", self.keyboard_layout.is_some()),
            ("--viewer-user", self.viewer_user.is_some()),
            ("--viewer-group", self.viewer_group.is_some()),
        ]
    }

    /// The options of the host's input devices, for the types that have none of them.
    pub(super) fn input_options(&self) -> [(&'static str, bool); 6] {
        [
            ("DEVICE", self.device.is_some()),
            ("--all-nodes", self.all_nodes),
            ("--match", self.ids.is_some()),
            ("--no-grab", self.no_grab),
            ("--grab-toggle", self.grab_toggle.is_some()),
            ("--grab-group", self.grab_group),
        ]
    }

    /// The options of screens, for the types that have none.
    pub(super) fn screen_options(&self) -> [(&'static str, bool); 3] {
        [
            ("--heads", self.heads.is_some()),
            ("--resolution", self.resolution.is_some()),
            ("--allow-resize", self.allow_resize),
        ]
    }

    /// The sizes of the heads that it names, as changes of those before.
    pub(super) fn resolutions(&self, before: Resolutions) -> Result<Resolutions, String> {
        let sizes = self.resolution.clone().unwrap_or(before);
        let Some(heads) = self.heads else {
            return Ok(sizes);
        };
        let named = sizes.heads();
        sizes.with_heads(heads).ok_or_else(|| {
            format!("--heads={heads} is fewer than the {named} sizes of the GPU. Name a size for each head: --resolution=")
        })
    }
}

/// The heading of its options, apart from those of all verbs.
const HEADING: &str = "Settings";

/// Who may connect, as the command line has it.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct AccessArgs {
    /// Let this user connect [default: the user of libvirt's QEMU, or root if there is none]
    #[arg(help_heading = HEADING, long, value_name = "USER")]
    pub(super) socket_user: Option<String>,

    /// Let this group connect [default: none; kvm for a GPU without --virgl, --vulkan and --render-node]
    #[arg(help_heading = HEADING, long, value_name = "GROUP")]
    pub(super) socket_group: Option<String>,

    /// Access mode of the socket [default: 0660 with a group, otherwise 0600]
    #[arg(help_heading = HEADING, long, value_name = "MODE", value_parser = mode)]
    pub(super) socket_mode: Option<u32>,
}

impl AccessArgs {
    pub(super) fn are_given(&self) -> bool {
        self.socket_user.is_some() || self.socket_group.is_some() || self.socket_mode.is_some()
    }
}

/// A number of heads.
fn heads(text: &str) -> Result<usize, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text
        .parse()
        .ok()
        .filter(|number| (1..=HEADS_MAX).contains(number));
    number
        .filter(|_| digits)
        .ok_or_else(|| format!("a GPU has 1 to {HEADS_MAX} heads"))
}

/// The name of a keyboard layout; the program checks whether it knows it.
fn layout(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '(' | ')');
    match !text.is_empty() && text.chars().all(plain) {
        true => Ok(text.to_owned()),
        false => Err("a layout is a name such as us, de or de(nodeadkeys)".to_owned()),
    }
}

/// An access mode, in octal.
fn mode(text: &str) -> Result<u32, String> {
    let digits = text.chars().all(|c| c.is_digit(8)) && (1..=4).contains(&text.len());
    let mode = u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777);
    mode.filter(|_| digits)
        .ok_or_else(|| "a mode is an octal number from 0000 to 0777, such as 0660".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal() {
        for (text, number) in [("0", 0), ("0600", 0o600), ("660", 0o660), ("0777", 0o777)] {
            assert_eq!(mode(text), Ok(number));
        }
        for text in [
            "", "0800", "1777", "00660", "+660", "0o660", "-1", "rw", "660\n",
        ] {
            assert!(mode(text).is_err(), "{text}");
        }
    }
}
