// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Devices that are found by what they say of themselves, where no path lasts.

use std::fs;

use anyhow::ensure;
use evdev::uinput::VirtualDevice;
use evdev::{AttributeSet, BusType, InputId, KeyCode};
use frontend::{Command, SocketForm};

use crate::{A, B, KEY, NAME, PROGRAM, Played, SOON, Served, host_sees};

const IDS: &str = "--evdev-match=1d6b:0105";
const MEDIA: &str = "Check Keyboard Consumer Control";
const MUTE: u16 = KeyCode::KEY_MUTE.0;

pub(crate) fn check() -> anyhow::Result<()> {
    nodes_of_a_keyboard()?;
    twins()?;
    absent_at_start()?;
    Ok(())
}

/// A node of a device with these keys, as the kernel makes several for one keyboard.
fn node(name: &str, keys: impl IntoIterator<Item = u16>) -> anyhow::Result<Played> {
    let keys: AttributeSet<KeyCode> = keys.into_iter().map(KeyCode::new).collect();
    let device = VirtualDevice::builder()?
        .name(name)
        .input_id(InputId::new(BusType::BUS_USB, 0x1d6b, 0x0105, 0x0111))
        .with_keys(&keys)?
        .build()?;
    Played::of(device)
}

fn keyboard() -> anyhow::Result<Played> {
    node(NAME, 1..=88)
}

fn media() -> anyhow::Result<Played> {
    node(MEDIA, [MUTE])
}

/// What a start says that fails.
fn refused(arguments: &[&str]) -> anyhow::Result<String> {
    let mut program = Command::new(PROGRAM)
        .args(arguments)
        .socket(SocketForm::Path)
        .spawn()?;
    let status = program.wait_exit(SOON)?;
    ensure!(status.code() == Some(1), "{status}: {}", program.stderr());
    Ok(program.stderr())
}

/// Each is a device of its own; they come back in any order, with other numbers.
fn nodes_of_a_keyboard() -> anyhow::Result<()> {
    let said = refused(&[IDS])?;
    ensure!(
        said.contains("there is no input device 1d6b:0105"),
        "{said}"
    );
    let mut keys = keyboard()?;
    let mut mute = media()?;
    let said = refused(&[IDS])?;
    ensure!(
        said.contains(NAME) && said.contains(MEDIA) && said.contains("--evdev-name="),
        "{said}"
    );
    let said = refused(&[IDS, "--evdev-name=Check"])?;
    ensure!(
        said.contains("there is no input device 1d6b:0105, Check"),
        "{said}"
    );
    let mut serves_keys = Served::with(&[IDS, &format!("--evdev-name={NAME}")])?;
    let mut serves_mute = Served::with(&[IDS, &format!("--evdev-name={MEDIA}")])?;
    let mut nodes = std::collections::BTreeSet::new();
    for round in 0..100 {
        nodes.insert(keys.node.clone());
        keys.report(&[(KEY, B, 1)])?;
        serves_keys.expect(&[(KEY, B, 1)])?;
        mute.report(&[(KEY, MUTE, 1)])?;
        serves_mute.expect(&[(KEY, MUTE, 1)])?;
        drop(keys);
        drop(mute);
        serves_keys.expect(&[(KEY, B, 0)])?;
        serves_mute.expect(&[(KEY, MUTE, 0)])?;
        // Of another model, with its number.
        let decoy = (round % 2 == 0).then(Played::new).transpose()?;
        (keys, mute) = match round % 3 {
            0 => (keyboard()?, media()?),
            _ => {
                let mute = media()?;
                (keyboard()?, mute)
            }
        };
        keys.press_until_seen(&mut serves_keys, A, round)?;
        mute.press_until_seen(&mut serves_mute, MUTE, round)?;
        drop(decoy);
    }
    ensure!(nodes.len() > 1, "the number was always the same");
    let mut reader = keys.reader()?;
    ensure!(
        !host_sees(&mut keys, &mut reader)?,
        "it is not grabbed again"
    );
    serves_keys.expect(&[(KEY, B, 1)])?;
    serves_keys.expect(&[(KEY, B, 0)])?;
    serves_keys.end()?;
    serves_mute.end()?;
    println!("the nodes of a keyboard are found by its numbers 100 times");
    Ok(())
}

/// Two keyboards of one model that nothing tells apart.
fn twins() -> anyhow::Result<()> {
    let one = keyboard()?;
    let mut other = keyboard()?;
    let said = refused(&[IDS])?;
    ensure!(said.contains("all match 1d6b:0105"), "{said}");
    drop(other);
    let mut served = Served::with(&[IDS])?;
    other = keyboard()?;
    drop(one);
    served
        .program
        .wait_stderr("matches, which was there beside it")?;
    let mut reader = other.reader()?;
    ensure!(
        host_sees(&mut other, &mut reader)?,
        "the other one is not the host's"
    );
    let mut one = keyboard()?;
    one.press_until_seen(&mut served, A, 0)?;
    served.end()?;
    println!("a twin stays with the host");
    Ok(())
}

fn absent_at_start() -> anyhow::Result<()> {
    let wait = "--wait=/tmp/matched.json";
    let name = format!("--evdev-name={NAME}");
    let arguments = [IDS, &name, wait];
    fs::create_dir_all("/tmp")?;
    let said = refused(&arguments)?;
    ensure!(said.contains("no start has found it yet"), "{said}");
    let played = keyboard()?;
    Served::with(&arguments)?.end()?;
    drop(played);
    let mut served = Served::with(&arguments)?;
    ensure!(served.input.name()? == NAME);
    let mut played = keyboard()?;
    played.press_until_seen(&mut served, A, 0)?;
    served.end()?;
    println!(
        "a device with those numbers that was absent at the start is the guest's when it comes"
    );
    Ok(())
}

impl Played {
    /// Presses and releases a key of a device that came back: the guest is told so.
    fn press_until_seen(
        &mut self,
        served: &mut Served,
        key: u16,
        round: usize,
    ) -> anyhow::Result<()> {
        self.report(&[(KEY, key, 1)])?;
        let log = |served: &Served| format!("round {round}: {}", served.program.stderr());
        served
            .expect(&[(KEY, key, 1)])
            .map_err(|error| error.context(log(served)))?;
        self.report(&[(KEY, key, 0)])?;
        // A press may come twice: in the state that is read, and as the event that was under way.
        let told = served.input.next_report()?;
        let pressed = told
            .iter()
            .any(|event| (event.kind, event.code, event.value) == (KEY, key, 1));
        if pressed {
            served.expect(&[(KEY, key, 0)])?;
        }
        Ok(())
    }
}
