// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The mock devices themselves, seen through the evdev crate and Debian's evtest.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use harness::mock::{KEYBOARD, MOUSE, MockInput, TABLET, TOUCHSCREEN, codes};
use harness::paths;
use harness::systemd::Sandbox;

const SOON: Duration = Duration::from_secs(60);

/// The guest program, which describes and reads input devices of the host as well.
fn guest(mock: &MockInput, arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(paths::program("guest")?);
    command
        .args(arguments)
        .envs(mock.environment())
        .stdout(Stdio::piped());
    Ok(command)
}

fn lines(mut command: Command) -> anyhow::Result<String> {
    let output = command.output()?;
    anyhow::ensure!(
        output.status.success(),
        "{:?}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn mock_devices_match_their_descriptions() -> anyhow::Result<()> {
    let texts = [KEYBOARD, MOUSE, TABLET, TOUCHSCREEN];
    let mock = MockInput::start(&texts)?;
    let mut expected = String::new();
    for device in 0..texts.len() {
        expected += &mock.description(device)?.to_string();
    }
    assert_eq!(lines(guest(&mock, &["evdev-list"])?)?, expected);
    Ok(())
}

#[test]
fn mock_device_sends_events_and_reports_leds() -> anyhow::Result<()> {
    let mut mock = MockInput::start(&[KEYBOARD])?;
    let name = mock.description(0)?.name.clone();
    let mut reader = guest(&mock, &["keys", "3", &name])?.spawn()?;
    let mut output = BufReader::new(reader.stdout.take().context("no output")?).lines();
    assert_eq!(output.next().context("no line")??, "listening");
    mock.report(0, &[(codes::EV_MSC, 4, 0x7_0004), (codes::EV_KEY, 30, 1)])?;
    mock.report(0, &[(codes::EV_KEY, 30, 0)])?;
    let events: Vec<String> = output.map_while(Result::ok).collect();
    assert_eq!(
        events,
        ["msc 4 458756", "key 30 1", "syn 0 0", "key 30 0", "syn 0 0"]
    );
    assert!(reader.wait()?.success());

    mock.report(0, &[(codes::EV_KEY, 42, 1)])?;
    lines(guest(&mock, &["led", &name, "1", "on"])?)?;
    mock.wait_led(0, 1, true, SOON)?;
    assert_eq!(lines(guest(&mock, &["led-state", &name])?)?, "1\n");
    assert_eq!(lines(guest(&mock, &["key-state", &name])?)?, "42\n");
    assert!(
        mock.wait_led(0, 2, true, Duration::from_millis(20))
            .is_err()
    );
    Ok(())
}

#[test]
fn mock_devices_are_seen_under_a_closed_device_policy() -> anyhow::Result<()> {
    let sandbox = Sandbox::start(&[])?;
    let mock = MockInput::start_in(&sandbox, &[MOUSE])?;
    std::fs::copy(
        paths::program("guest")?,
        sandbox.path("/usr/local/bin/guest"),
    )?;
    let unit = "[Service]\nType=oneshot\nDynamicUser=yes\nPrivateTmp=yes\nProtectSystem=strict\n\
                DevicePolicy=closed\nPrivateNetwork=yes\nExecStart=/usr/local/bin/guest evdev-list\n";
    sandbox.write("/run/systemd/system/list.service", unit)?;
    sandbox.drop_in("list.service", &mock.drop_in())?;
    sandbox.systemctl(&["start", "list.service"])?;
    let journal = sandbox.journal(&["--unit=list.service", "--output=cat"])?;
    let expected = mock.description(0)?.to_string();
    assert!(journal.contains(&expected), "{journal}");
    Ok(())
}
