// SPDX-License-Identifier: Apache-2.0 OR MIT
//! virtio-gpu: requests and their errors.

use conventions::DeviceType;
use frontend::gpu::{
    DisplayOptions, DisplayThread, Edid, EdidAnswer, Format, Gpu, GpuOptions, Rect, ResponseKind,
};
use frontend::{Memory, VhostUserProtocolFeatures as Protocol};
use virtio_bindings::virtio_gpu::VIRTIO_GPU_F_EDID;

use crate::outcome::{Flaw, Seen, fails, not_tried};
use crate::point::Point;
use crate::trial::{Served, Started, Trial};

const GPU: &[DeviceType] = &[DeviceType::Gpu];
/// VIRTIO_GPU_FLAG_FENCE.
const FENCE: u64 = 0x1234_5678_9abc_def0;
pub(super) const XRGB: Format = Format::B8G8R8X8;

pub(super) const POINTS: &[Point] = &[
    Point::recommended(
        "device/gpu-config",
        "virtio 1.2, 5.7.4",
        "The configuration tells 1 to 16 scanouts: QEMU tells the guest its own number, other VMMs the backend's.",
        config,
    )
    .of(GPU)
    .offering(Protocol::CONFIG),
    Point::required(
        "device/gpu-display-info",
        "virtio 1.2, 5.7.6.8; vhost-user-gpu.rst, VHOST_USER_GPU_GET_DISPLAY_INFO",
        "GET_DISPLAY_INFO is answered with the modes that the front-end tells.",
        display_info,
    )
    .of(GPU),
    Point::required(
        "device/gpu-edid",
        "virtio 1.2, 5.7.6.8, GET_EDID",
        "A device that offers VIRTIO_GPU_F_EDID answers GET_EDID with a valid EDID, that of the display.",
        edid,
    )
    .of(GPU),
    Point::recommended(
        "device/gpu-edid-alone",
        "vhost-user-gpu.rst, VHOST_USER_GPU_PROTOCOL_F_EDID",
        "Where the display does not offer EDID, as with QEMU 7.2, GET_EDID is answered with an EDID of the device's own.",
        edid_alone,
    )
    .of(GPU),
    Point::required(
        "device/gpu-errors",
        "virtio 1.2, 5.7.6.8",
        "Requests about resources that do not exist are answered with ERR_INVALID_RESOURCE_ID, or another error.",
        errors,
    )
    .of(GPU),
    Point::required(
        "device/gpu-scanouts",
        "virtio 1.2, 5.7.6.8",
        "SET_SCANOUT of a scanout that does not exist is answered with an error.",
        scanouts,
    )
    .of(GPU),
    Point::required(
        "device/gpu-rectangles",
        "virtio 1.2, 5.7.6.8",
        "SET_SCANOUT of a rectangle outside its resource is answered with an error.",
        rectangles,
    )
    .of(GPU),
    Point::required(
        "device/gpu-unknown-command",
        "virtio 1.2, 5.7.6.8",
        "A command that does not exist is answered with an error.",
        unknown_command,
    )
    .of(GPU),
    Point::required(
        "device/gpu-fence",
        "virtio 1.2, 5.7.6.7",
        "A fenced command is answered with the fence's flag and number, once it is complete.",
        fence,
    )
    .of(GPU),
    Point::required(
        "device/gpu-unref",
        "virtio 1.2, 5.7.6.8",
        "RESOURCE_UNREF frees a resource: its number can be used again.",
        unref,
    )
    .of(GPU),
    Point::required(
        "device/gpu-reset",
        "virtio 1.2, 2.4 and 5.7.5",
        "A driver that begins anew, after its virtqueues were stopped, finds no resource of the one before.",
        reset,
    )
    .of(GPU),
];

/// A display as QEMU's from 8.0 on: it offers EDID.
pub(super) fn display_options() -> DisplayOptions {
    DisplayOptions {
        edid: EdidAnswer::Blocks(vec![Edid::make("Check", 1600, 900)]),
        // Flags that mean nothing are another matter: QEMU's own program leaves what was there before.
        strict: false,
        ..DisplayOptions::default()
    }
}

/// A guest with a GPU, and its display.
pub(super) struct Screen {
    /// First, so that the front-end leaves before the program is killed.
    pub(super) gpu: Gpu,
    pub(super) display: DisplayThread,
    pub(super) started: Started,
}

impl Screen {
    pub(super) fn start(trial: &Trial) -> Result<Self, Flaw> {
        Self::with_display(trial, display_options())
    }

    fn with_display(trial: &Trial, options: DisplayOptions) -> Result<Self, Flaw> {
        let Served { session, started } = trial.serve()?;
        let (display, socket) = DisplayThread::start(options)?;
        let memory = Memory::with_size(4 << 20)?;
        let mut gpu = Gpu::start(session, &memory, Some(socket), GpuOptions::default())?;
        gpu.session.settle()?;
        gpu.control.limit = trial.left();
        gpu.cursor.limit = trial.left();
        Ok(Self {
            gpu,
            display,
            started,
        })
    }

    /// A resource with a backing of its size, whose pixels are `pixel` of each place.
    pub(super) fn resource(
        &mut self,
        id: u32,
        (width, height): (u32, u32),
        pixel: impl Fn(u32, u32) -> [u8; 4],
    ) -> Result<(), Flaw> {
        let created = self.gpu.create_2d(id, XRGB, width, height)?;
        created.expect("RESOURCE_CREATE_2D", ResponseKind::OkNodata)?;
        let size = 4 * width * height;
        let at = self.gpu.memory().alloc(size.into(), 4096)?;
        let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let pixels: Vec<u8> = places.flat_map(|(x, y)| pixel(x, y)).collect();
        self.gpu.memory().write(at, &pixels)?;
        let attached = self.gpu.attach_backing(id, &[(at, size)])?;
        attached.expect("RESOURCE_ATTACH_BACKING", ResponseKind::OkNodata)?;
        let whole = Rect::sized(width, height);
        let transferred = self.gpu.transfer_to_host_2d(id, whole, 0)?;
        transferred.expect("TRANSFER_TO_HOST_2D", ResponseKind::OkNodata)?;
        Ok(())
    }
}

fn config(trial: &Trial) -> Seen {
    let mut screen = Screen::start(trial)?;
    match screen.gpu.config()? {
        (scanouts @ 1..=16, capsets) => Ok(format!("{scanouts} scanouts, {capsets} capsets")),
        (scanouts, _) => fails(format!("{scanouts} scanouts")),
    }
}

fn display_info(trial: &Trial) -> Seen {
    let mut screen = Screen::start(trial)?;
    let first = screen.gpu.get_display_info()?[0];
    let told = Rect::sized(1024, 768);
    match first.enabled && first.rect == told {
        true => Ok("1024x768, as told".into()),
        false => fails(format!("{first:?} instead of {told:?}, enabled")),
    }
}

fn edid(trial: &Trial) -> Seen {
    let seen = valid_edid(trial, display_options())?;
    match seen.ends_with("1600x900") {
        true => Ok(seen),
        false => fails(format!("{seen}, and the display told 1600x900")),
    }
}

fn edid_alone(trial: &Trial) -> Seen {
    let options = DisplayOptions {
        edid: EdidAnswer::NotOffered,
        ..display_options()
    };
    valid_edid(trial, options)
}

fn valid_edid(trial: &Trial, options: DisplayOptions) -> Seen {
    trial.form()?;
    if trial.facts.features & 1 << VIRTIO_GPU_F_EDID == 0 {
        return not_tried("not offered: VIRTIO_GPU_F_EDID");
    }
    let mut screen = Screen::with_display(trial, options)?;
    let bytes = screen.gpu.get_edid(0)?;
    match Edid::parse(&bytes) {
        Ok(edid) => Ok(format!(
            "{} bytes, {}x{}",
            bytes.len(),
            edid.width,
            edid.height
        )),
        Err(error) => fails(error.to_string()),
    }
}

/// That a response is an error; it should be one of these.
fn refused(
    what: &str,
    kind: ResponseKind,
    expected: &[ResponseKind],
) -> Result<Option<String>, Flaw> {
    use ResponseKind as Kind;
    let is_error = match kind {
        Kind::OkNodata | Kind::OkDisplayInfo | Kind::OkEdid => false,
        Kind::Unknown(number) => number >= 0x1200,
        _ => format!("{kind:?}").starts_with("Err"),
    };
    if !is_error {
        return fails(format!("{what} is answered {kind:?}"));
    }
    Ok((!expected.contains(&kind)).then(|| format!("{what}: {kind:?}")))
}

fn summary(others: Vec<Option<String>>) -> String {
    let others: Vec<_> = others.into_iter().flatten().collect();
    match others.is_empty() {
        true => "refused, with the errors of the specification".to_owned(),
        false => format!("refused; {}", others.join("; ")),
    }
}

fn errors(trial: &Trial) -> Seen {
    let mut screen = Screen::start(trial)?;
    let gpu = &mut screen.gpu;
    let whole = Rect::sized(8, 8);
    let expected = [ResponseKind::ErrInvalidResourceId];
    let at = gpu.memory().alloc(4096, 4096)?;
    let responses = [
        ("RESOURCE_UNREF", gpu.unref(99)?),
        (
            "RESOURCE_ATTACH_BACKING",
            gpu.attach_backing(99, &[(at, 256)])?,
        ),
        ("RESOURCE_DETACH_BACKING", gpu.detach_backing(99)?),
        (
            "TRANSFER_TO_HOST_2D",
            gpu.transfer_to_host_2d(99, whole, 0)?,
        ),
        ("SET_SCANOUT", gpu.set_scanout(0, 99, whole)?),
        ("RESOURCE_FLUSH", gpu.flush(99, whole)?),
    ];
    let mut others = Vec::new();
    for (what, response) in responses {
        others.push(refused(what, response.kind, &expected)?);
    }
    Ok(summary(others))
}

fn scanouts(trial: &Trial) -> Seen {
    let mut screen = Screen::start(trial)?;
    screen.resource(1, (32, 32), |_, _| [0; 4])?;
    let mut others = Vec::new();
    for scanout in [16, 99, u32::MAX] {
        let answer = screen.gpu.set_scanout(scanout, 1, Rect::sized(32, 32))?;
        let what = format!("scanout {scanout}");
        others.push(refused(
            &what,
            answer.kind,
            &[ResponseKind::ErrInvalidScanoutId],
        )?);
    }
    Ok(summary(others))
}

fn rectangles(trial: &Trial) -> Seen {
    let mut screen = Screen::start(trial)?;
    screen.resource(1, (32, 32), |_, _| [0; 4])?;
    let mut others = Vec::new();
    for rect in [
        Rect::sized(33, 32),
        Rect::new(0, 1, 32, 32),
        Rect::new(u32::MAX, 0, 2, 2),
    ] {
        let answer = screen.gpu.set_scanout(0, 1, rect)?;
        let what = format!("{rect:?}");
        others.push(refused(
            &what,
            answer.kind,
            &[ResponseKind::ErrInvalidParameter],
        )?);
    }
    Ok(summary(others))
}

fn unknown_command(trial: &Trial) -> Seen {
    let mut screen = Screen::start(trial)?;
    let mut others = Vec::new();
    for command in [0x1ff, 0, 0xffff_ffff] {
        let answer = screen.gpu.command(command, &[0; 4])?;
        others.push(refused(
            &format!("{command:#x}"),
            answer.kind,
            &[ResponseKind::ErrUnspec],
        )?);
    }
    Ok(summary(others))
}

fn fence(trial: &Trial) -> Seen {
    let mut screen = Screen::start(trial)?;
    let gpu = &mut screen.gpu;
    gpu.fence_next(FENCE);
    let created = gpu.create_2d(1, XRGB, 8, 8)?;
    gpu.fence_next(FENCE + 1);
    // One that fails is complete too.
    let failed = gpu.unref(99)?;
    for (response, id) in [(created, FENCE), (failed, FENCE + 1)] {
        if !response.has_fence(id) {
            return fails(format!(
                "{:?} has flags {:#x} and fence {:#x}",
                response.kind, response.flags, response.fence_id
            ));
        }
    }
    Ok("two fences came back".into())
}

fn unref(trial: &Trial) -> Seen {
    let mut screen = Screen::start(trial)?;
    for _ in 0..3 {
        screen.resource(1, (16, 16), |_, _| [0; 4])?;
        let freed = screen.gpu.unref(1)?;
        freed.expect("RESOURCE_UNREF", ResponseKind::OkNodata)?;
    }
    Ok("created and freed 3 times".into())
}

fn reset(trial: &Trial) -> Seen {
    let mut screen = Screen::start(trial)?;
    screen.resource(1, (16, 16), |_, _| [0; 4])?;
    screen.gpu.stop()?;
    let (display, socket) = DisplayThread::start(display_options())?;
    screen.display = display;
    screen.gpu.restart(Some(socket))?;
    let created = screen.gpu.create_2d(1, XRGB, 16, 16)?;
    created.expect(
        "RESOURCE_CREATE_2D of the same number",
        ResponseKind::OkNodata,
    )?;
    Ok("the new driver creates a resource of the same number".into())
}
