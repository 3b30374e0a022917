// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl screenshot`: a VM's screen as a PNG.

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use conventions::ScreenState;
use rfb::client::{Client, ClientError};
use rfb::{Encoding, Frame, ServerMessageError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use crate::backends;
use crate::completion;
use crate::instance::{Instance, UnitKind, parse_name};
use crate::output::Output;
use crate::systemd::{self, Target};

use super::error::{ConsoleError, Error};
use super::shared::console_socket::ConsoleSocket;

/// Write the screen of a VM to a PNG file
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The VM needs a console: vhostctl add console VM --now. The pointer is not in the picture.

If there is no screen to see (the VM is off, its guest has not begun to draw or has switched it off, the GPU is not
reached, or the screen is too large), no file is written, and the exit status is 3.")]
pub(crate) struct Args {
    /// The VM
    #[arg(value_name = "VM", value_parser = parse_name, add = completion::vms_with_console())]
    vm: String,

    /// Write this file; '-' is standard output [default: VM.png]
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: Option<PathBuf>,

    /// Take this head of a VM with several; the first one is 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    head: usize,
}

/// How long the server may take for each answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take to reach the GPU, which may have to be started, and to be shown its screen.
const GPU_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the GPU may take to show what it has.
const SCREEN_TIMEOUT: Duration = Duration::from_secs(2);
/// The screen is taken when it has not changed for so long, or has changed for that long.
const QUIET: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};
const BUSY_MAX: Duration = Duration::from_secs(2);

/// What was written.
#[derive(Debug, Serialize)]
struct Picture {
    vm: String,
    head: usize,
    file: PathBuf,
    width: u16,
    height: u16,
}

pub(super) fn run(args: &Args, target: &Target, output: &Output) -> Result<(), Error> {
    let file = args.file.clone().unwrap_or_else(|| default_file(args));
    let is_stdout = file == Path::new("-");
    if is_stdout && io::stdout().is_terminal() {
        return Err(ConsoleError::Terminal.into());
    }
    let socket = ConsoleSocket::find(&args.vm, args.head, target)?;
    let frame = take(&args.vm, &socket).map_err(|error| explained(error, target))?;
    let png = png(&frame).map_err(ConsoleError::from)?;
    if is_stdout {
        io::stdout().lock().write_all(&png)?;
        return Ok(());
    }
    fs::write(&file, png).map_err(|error| Error::Picture {
        path: file.display().to_string(),
        source: error,
    })?;
    let (width, height) = (frame.width(), frame.height());
    let picture = Picture {
        vm: args.vm.clone(),
        head: args.head,
        file,
        width,
        height,
    };
    if !output.json(&[&picture])? {
        let file = picture.file.display();
        output.hint(&format!("Wrote {file} ({width}x{height})."));
    }
    Ok(())
}

fn default_file(args: &Args) -> PathBuf {
    match args.head {
        0 => format!("{}.png", args.vm).into(),
        head => format!("{}-{head}.png", args.vm).into(),
    }
}

/// The same error; of a screen that is off, with whether a VM uses its GPU.
fn explained(error: ConsoleError, target: &Target) -> ConsoleError {
    let ConsoleError::NoScreen { vm, state, .. } = error else {
        return error;
    };
    let is_gpu = |one: &Instance| one.kind() == UnitKind::Gpu && one.vm() == vm;
    let found = systemd::ask(target, async |queries| {
        backends::details(queries, is_gpu).await
    });
    let gpu = found.unwrap_or_default().into_iter().next();
    ConsoleError::NoScreen {
        front_end: gpu.and_then(|gpu| gpu.front_end),
        vm,
        state,
    }
}

/// Waits for the guest's screen, and takes it.
fn take(vm: &str, socket: &ConsoleSocket) -> Result<Frame, ConsoleError> {
    let protocol = |source| ConsoleError::Protocol {
        vm: vm.to_owned(),
        source,
    };
    let stream = socket.connect()?;
    let mut client = Client::connect(stream, ANSWER_TIMEOUT).map_err(|error| match error {
        // It ended before it said anything: its service failed, or it is behind ssh and refused.
        ClientError::Server(ServerMessageError::Io(error)) => socket.failure(error),
        source => protocol(source),
    })?;
    client
        .set_encodings(&[
            Encoding::ZRLE,
            Encoding::RAW,
            // The pointer is not drawn into the picture for those who draw it themselves.
            Encoding::CURSOR,
            Encoding::DESKTOP_NAME,
            Encoding::DESKTOP_SIZE,
            Encoding::EXTENDED_DESKTOP_SIZE,
            Encoding::LAST_RECT,
        ])
        .map_err(protocol)?;
    wait_for_screen(&mut client, vm)?;
    client.set_limit(ANSWER_TIMEOUT);
    client.refresh().map_err(protocol)?;
    settle(&mut client).map_err(protocol)?;
    match state(&client) {
        ScreenState::On => Ok(client.frame().clone()),
        state => Err(ConsoleError::NoScreen {
            vm: vm.to_owned(),
            state,
            front_end: None,
        }),
    }
}

fn state(client: &Client<UnixStream>) -> ScreenState {
    ScreenState::of_desktop(client.name())
}

/// Waits until the guest's screen is shown: the server has to reach the GPU first.
fn wait_for_screen(client: &mut Client<UnixStream>, vm: &str) -> Result<(), ConsoleError> {
    // For all states together: a GPU that fails is reached and lost again and again.
    let deadline = Instant::now() + GPU_TIMEOUT;
    let mut was = state(client);
    while was != ScreenState::On {
        let left = deadline.saturating_duration_since(Instant::now());
        client.set_limit(match was {
            ScreenState::Unreachable => left,
            _ => left.min(SCREEN_TIMEOUT),
        });
        let changed = client.wait_until(|client| state(client) != was);
        match changed {
            Ok(()) => was = state(client),
            Err(ClientError::Timeout(_)) => {
                return Err(ConsoleError::NoScreen {
                    vm: vm.to_owned(),
                    state: was,
                    front_end: None,
                });
            }
            Err(source) => {
                let vm = vm.to_owned();
                return Err(ConsoleError::Protocol { vm, source });
            }
        }
    }
    Ok(())
}

/// Waits until the screen stops changing: the first picture of a new screen is empty until its pixels arrive.
fn settle(client: &mut Client<UnixStream>) -> Result<(), ClientError> {
    let deadline = Instant::now() + BUSY_MAX;
    while Instant::now() < deadline {
        client.request(true, client.frame().rect())?;
        let mut fds = [PollFd::new(client.connection(), PollFlags::IN)];
        match poll(&mut fds, Some(&QUIET)) {
            Ok(0) => return Ok(()),
            _ => client.wait_for_update().map(drop)?,
        }
    }
    Ok(())
}

/// A PNG of 8 bits for each colour.
fn png(frame: &Frame) -> Result<Vec<u8>, png::EncodingError> {
    // A pixel is blue, green, red and a byte without a meaning.
    let pixels = frame.bytes().chunks_exact(4);
    let rgb: Vec<u8> = pixels
        .flat_map(|pixel| match pixel {
            [blue, green, red, _] => [*red, *green, *blue],
            _ => [0; 3],
        })
        .collect();
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, frame.width().into(), frame.height().into());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&rgb)?;
    writer.finish()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picture_has_the_colours_of_the_screen() {
        let mut frame = Frame::new(3, 2).expect("a frame");
        for (pixel, number) in frame.bytes_mut().chunks_exact_mut(4).zip(0_u8..) {
            pixel.copy_from_slice(&[number, 100 + number, 200 + number, 77]);
        }
        let file = png(&frame).expect("a picture");
        let mut reader = png::Decoder::new(io::Cursor::new(file))
            .read_info()
            .expect("a PNG");
        let mut pixels = vec![0; 3 * 2 * 3];
        let info = reader.next_frame(&mut pixels).expect("its pixels");
        assert_eq!((info.width, info.height), (3, 2));
        assert_eq!(info.color_type, png::ColorType::Rgb);
        assert_eq!(pixels[..6], [200, 100, 0, 201, 101, 1]);
    }
}
