// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The commands of the agent.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, bail};
use evdev::raw_stream::RawDevice;
use evdev::{EventType, InputEvent};
use guest::input::{Description, kind_name};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::system::{RebootCommand, reboot};

use crate::display::Display;
use crate::recording::record_until_key;

const USAGE: &str = "commands:
testcard WxH [OUTPUTS]    draw one test card over all outputs, each WxH
patch X Y W H RRGGBB      fill a rectangle and flush only it
animate WxH               draw frame after frame until animate-stop; tells the last one's number
animate-stop              end that after the frame under way
cursor X Y RRGGBB         show a square cursor of that colour
cursor move X Y           move it
cursor off                hide it
drm-info                  connectors, modes and EDID
display-off               give the display up
evdev-list [NAME]         all input devices, or one, in the text form
evtest NAME               what evtest says about a device
keys N [NAME]             report N events as they come
record-until-key CODE NAME
                          collect events until this key is released, then report them; tells how many there are,
                          so that none are lost, and turns autorepeat off
key-state NAME            the keys that are down
led-state NAME            the LEDs that are lit
led NAME CODE on|off      light an LED
reload-driver DRIVER      unbind and bind a virtio driver
run PROGRAM...            run a program of the guest
shell SCRIPT...           run words of the guest's shell
spawn FILE PROGRAM...     start one, with its output in FILE
reboot                    restart the guest";

/// What outlives a command: the picture on the screen needs its owner.
#[derive(Default)]
pub(crate) struct Session {
    display: Mutex<Option<Display>>,
    /// The animation is to end.
    stop: AtomicBool,
}

impl Session {
    /// Runs one command and gives its output to `output` line by line.
    pub(crate) fn run(
        &self,
        command: &[String],
        output: &mut dyn FnMut(&str),
    ) -> anyhow::Result<()> {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["testcard", size] => self.test_card(size, 1, output),
            ["testcard", size, outputs] => self.test_card(size, number(outputs)?, output),
            ["patch", x, y, width, height, colour] => {
                let mut display = self.display.lock().unwrap_or_else(PoisonError::into_inner);
                let display = display
                    .as_mut()
                    .context("nothing is drawn yet: testcard first")?;
                let area = [number(x)?, number(y)?, number(width)?, number(height)?];
                let sum = display.patch(area, colour_of(colour)?)?;
                output(&format!("checksum {sum:016x}"));
                Ok(())
            }
            ["animate", size] => self.animate(size, output),
            ["animate-stop"] => {
                self.stop.store(true, Ordering::Relaxed);
                Ok(())
            }
            ["cursor", "off"] => self.with_display(Display::hide_cursor),
            ["cursor", "move", x, y] => {
                let position = (number(x)?, number(y)?);
                self.with_display(|display| display.move_cursor(position))
            }
            ["cursor", x, y, colour] => {
                let (position, colour) = ((number(x)?, number(y)?), colour_of(colour)?);
                self.with_display(|display| display.show_cursor(position, colour))
            }
            ["drm-info"] => self.with_display(|display| display.describe(output)),
            ["display-off"] => {
                self.display
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take();
                Ok(())
            }
            ["evdev-list"] => list_devices(output),
            ["evdev-list", name @ ..] => {
                let (_, device) = find_device(&name.join(" "))?;
                output(Description::of(&device)?.to_string().trim_end());
                Ok(())
            }
            ["evtest", name @ ..] => evtest(&name.join(" "), output),
            ["record-until-key", code, name @ ..] => {
                let (_, device) = find_device(&name.join(" "))?;
                record_until_key(number(code)?, device, output)
            }
            ["keys", count] => report_events(number(count)?, None, output),
            ["keys", count, name @ ..] => {
                report_events(number(count)?, Some(&name.join(" ")), output)
            }
            ["key-state", name @ ..] => {
                let (_, device) = find_device(&name.join(" "))?;
                device
                    .get_key_state()?
                    .iter()
                    .for_each(|key| output(&key.0.to_string()));
                Ok(())
            }
            ["led-state", name @ ..] => {
                let (_, device) = find_device(&name.join(" "))?;
                device
                    .get_led_state()?
                    .iter()
                    .for_each(|led| output(&led.0.to_string()));
                Ok(())
            }
            ["led", name @ .., code, state @ ("on" | "off")] => {
                let (_, mut device) = find_device(&name.join(" "))?;
                let lit = i32::from(*state == "on");
                device.send_events(&[
                    InputEvent::new(EventType::LED.0, number(code)?, lit),
                    InputEvent::new(EventType::SYNCHRONIZATION.0, 0, 0),
                ])?;
                Ok(())
            }
            ["reload-driver", driver] => {
                // An open card keeps its device alive past the unbind.
                self.display
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take();
                reload_driver(driver)
            }
            ["run", program, arguments @ ..] => run_program(program, arguments, output),
            ["shell", words @ ..] => run_program("/bin/sh", &["-c", &words.join(" ")], output),
            ["spawn", file, program, arguments @ ..] => spawn_program(file, program, arguments),
            ["reboot"] => Ok(reboot(RebootCommand::Restart)?),
            _ => bail!("no such command: {:?}\n{USAGE}", words.join(" ")),
        }
    }

    fn test_card(
        &self,
        size: &str,
        outputs: usize,
        output: &mut dyn FnMut(&str),
    ) -> anyhow::Result<()> {
        let size = size_of(size)?;
        let mut display = self.display.lock().unwrap_or_else(PoisonError::into_inner);
        if display.is_none() {
            *display = Some(Display::open()?);
        }
        let display = display.as_mut().context("no display")?;
        let sum = display.test_card(size, outputs)?;
        output(&format!("mode {}x{}", size.0, size.1));
        output(&format!("checksum {sum:016x}"));
        Ok(())
    }

    fn animate(&self, size: &str, output: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
        let size = size_of(size)?;
        let mut display = self.display.lock().unwrap_or_else(PoisonError::into_inner);
        if display.is_none() {
            *display = Some(Display::open()?);
        }
        let display = display.as_mut().context("no display")?;
        self.stop.store(false, Ordering::Relaxed);
        display.prepare_animation(size)?;
        output("drawing");
        let frame = display.animate(size, &self.stop)?;
        output(&frame.to_string());
        Ok(())
    }

    /// Runs `action` on the display in use, or on one opened for it.
    fn with_display(
        &self,
        action: impl FnOnce(&mut Display) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut display = self.display.lock().unwrap_or_else(PoisonError::into_inner);
        match display.as_mut() {
            Some(display) => action(display),
            None => action(&mut Display::open()?),
        }
    }
}

fn number<T>(word: &str) -> anyhow::Result<T>
where
    T: std::str::FromStr<Err = std::num::ParseIntError>,
{
    word.parse()
        .with_context(|| format!("{word:?} is no number, or out of range here"))
}

fn size_of(word: &str) -> anyhow::Result<(u16, u16)> {
    let (width, height) = word.split_once('x').context("the size is WIDTHxHEIGHT")?;
    Ok((number(width)?, number(height)?))
}

fn colour_of(word: &str) -> anyhow::Result<u32> {
    u32::from_str_radix(word, 16).with_context(|| format!("{word:?} is no colour: say RRGGBB"))
}

/// All event devices, in the order of their numbers.
fn devices() -> anyhow::Result<Vec<(PathBuf, RawDevice)>> {
    let mut paths: Vec<(u32, PathBuf)> = fs::read_dir("/dev/input")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let number = path
                .file_name()?
                .to_str()?
                .strip_prefix("event")?
                .parse()
                .ok()?;
            Some((number, path))
        })
        .collect();
    paths.sort_unstable();
    paths
        .into_iter()
        .map(|(_, path)| {
            let device = RawDevice::open(&path)
                .with_context(|| format!("cannot open {}", path.display()))?;
            Ok((path, device))
        })
        .collect()
}

fn find_device(name: &str) -> anyhow::Result<(PathBuf, RawDevice)> {
    devices()?
        .into_iter()
        .find(|(_, device)| device.name() == Some(name))
        .with_context(|| format!("no input device is named {name:?}"))
}

fn list_devices(output: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    for (_, device) in devices()? {
        output(Description::of(&device)?.to_string().trim_end());
    }
    Ok(())
}

/// evtest describes the device first and then waits for events: it is ended after
/// the description.
fn evtest(name: &str, output: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    let (path, _) = find_device(name)?;
    let mut evtest = Command::new("evtest")
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start evtest")?;
    let stdout = evtest.stdout.take().context("evtest has no output")?;
    let mut complete = false;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        if line.starts_with("Testing ...") {
            complete = true;
            break;
        }
        output(&line);
    }
    evtest.kill()?;
    let status = evtest.wait()?;
    if !complete {
        bail!("evtest {} ended early: {status}", path.display());
    }
    Ok(())
}

/// Reports events as `TYPE CODE VALUE` until `count` of them and the end of the last
/// one's report have come. Marks of synchronisation are shown but not counted.
fn report_events(
    count: usize,
    name: Option<&str>,
    output: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    let mut devices: Vec<RawDevice> = devices()?
        .into_iter()
        .map(|(_, device)| device)
        .filter(|device| name.is_none_or(|name| device.name() == Some(name)))
        .collect();
    if devices.is_empty() {
        bail!("no such input device");
    }
    output("listening");
    let mut seen = 0;
    loop {
        let mut waiting: Vec<PollFd> = devices
            .iter()
            .map(|device| PollFd::new(device, PollFlags::IN))
            .collect();
        poll(&mut waiting, None)?;
        let ready: Vec<bool> = waiting.iter().map(|fd| !fd.revents().is_empty()).collect();
        for (device, _) in devices.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            for event in device.fetch_events()? {
                let kind = event.event_type();
                output(&format!(
                    "{} {} {}",
                    kind_name(kind),
                    event.code(),
                    event.value()
                ));
                if kind != EventType::SYNCHRONIZATION {
                    seen += 1;
                } else if seen >= count {
                    return Ok(());
                }
            }
        }
    }
}

/// Takes a virtio driver from all its devices and gives it back.
fn reload_driver(driver: &str) -> anyhow::Result<()> {
    let folder = Path::new("/sys/bus/virtio/drivers").join(driver);
    let bound: Vec<String> = fs::read_dir(&folder)
        .with_context(|| format!("there is no virtio driver {driver:?}"))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("virtio"))
        .collect();
    if bound.is_empty() {
        bail!("the driver {driver} has no device");
    }
    for action in ["unbind", "bind"] {
        for device in &bound {
            fs::write(folder.join(action), device)
                .with_context(|| format!("cannot {action} {device}"))?;
        }
    }
    Ok(())
}

fn spawn_program(file: &str, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let out = fs::File::create(file).with_context(|| format!("cannot create {file}"))?;
    let child = Command::new(program)
        .args(arguments)
        // Nobody types: a program that ends on a key, or on the end of its input, goes on.
        .stdin(Stdio::piped())
        .stdout(out.try_clone()?)
        .stderr(out)
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    std::mem::forget(child);
    Ok(())
}

/// Tells the program's lines as they come, and what it says to standard error at its end.
fn run_program(
    program: &str,
    arguments: &[&str],
    output: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let stdout = child.stdout.take().context("it has no output")?;
    let mut stderr = child.stderr.take().context("it has no standard error")?;
    let errors = thread::spawn(move || {
        let mut said = Vec::new();
        // What was read counts.
        let _ = stderr.read_to_end(&mut said);
        said
    });
    for line in BufReader::new(stdout).split(b'\n') {
        output(&format!("{}\n", String::from_utf8_lossy(&line?)));
    }
    let said = errors.join().unwrap_or_default();
    output(&String::from_utf8_lossy(&said));
    let status = child.wait()?;
    if !status.success() {
        bail!("{program}: {status}");
    }
    Ok(())
}
