// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verbs that change backends, under a real systemd with real backends: their messages, refusals and
//! limits.

use anyhow::ensure;
use harness::mock::{KEYBOARD, MOUSE};

use crate::common::host::Host;
use crate::common::stderr;

const GPU: &str = "vhost-user-gpu@vm1";

#[test]
fn changes_are_reported() -> anyhow::Result<()> {
    let host = Host::new(&[MOUSE])?;
    host.ok(&["add", "gpu", "vm1"])?;
    host.ok(&["add", "input", "vm1", "mouse"])?;
    let quiet = |verb| host.ok(&["-q", verb, "vm1"]);
    assert_eq!(
        host.ok(&["disable", "vm1"])?,
        "Disabled vm1:gpu: its socket does not start at boot.\n\
         Disabled vm1:mouse: its socket does not start at boot.\n"
    );
    assert_eq!(
        host.ok(&["disable", "vm1:gpu"])?,
        "vm1:gpu was not enabled.\n"
    );
    assert_eq!(
        host.ok(&["enable", "vm1"])?,
        "Enabled vm1:gpu: its socket starts at boot.\n\
         Enabled vm1:mouse: its socket starts at boot.\n"
    );
    assert_eq!(
        host.ok(&["enable", "vm1:mouse"])?,
        "vm1:mouse was already enabled.\n"
    );
    assert_eq!(quiet("disable")? + &quiet("enable")?, "");
    assert_eq!(
        host.ok(&["remove", "vm1"])?,
        "Removed vm1:gpu.\nRemoved vm1:mouse.\n"
    );
    host.ok(&["add", "gpu", "vm1"])?;
    assert_eq!(quiet("remove")?, "");
    Ok(())
}

#[test]
fn masked_units_are_named_with_the_remedy() -> anyhow::Result<()> {
    let host = Host::new(&[])?;
    host.ok(&["add", "gpu", "vm1"])?;
    let systemctl = |arguments: &[&str]| host.sandbox.systemctl(arguments).map(drop);
    let socket = format!("{GPU}.socket");
    systemctl(&["mask", &socket])?;
    for (verb, now) in [
        ("start", None),
        ("restart", None),
        ("enable", None),
        ("enable", Some("--now")),
        ("disable", None),
        ("remove", None),
    ] {
        let words: Vec<_> = [verb, "vm1"].into_iter().chain(now).collect();
        let said = host.fails(&words, 6)?;
        let what = if verb == "restart" { "start" } else { verb };
        assert_eq!(
            said,
            format!(
                "Failed to {what} {socket}: it is masked. To unmask it: systemctl unmask {socket}.\n"
            ),
            "{verb}"
        );
    }
    let add = format!(
        "Failed to enable {socket}: it is masked. To unmask it: systemctl unmask {socket}.\n"
    );
    assert_eq!(host.fails(&["add", "gpu", "vm1", "--now"], 6)?, add);
    // Nothing is written that would have to be undone.
    systemctl(&["mask", "vhost-user-gpu@vm2.socket"])?;
    assert_eq!(
        host.fails(&["add", "gpu", "vm2"], 6)?,
        add.replace("@vm1", "@vm2")
    );
    assert!(!host.has_folder("vhost-user-gpu@vm2.service"));
    systemctl(&["unmask", "vhost-user-gpu@vm2.socket"])?;
    // It has no socket, so nobody may connect to it.
    let status = host.run(&["status", "--lines=0", "vm1"])?;
    let status = String::from_utf8(status.stdout)?;
    assert!(
        status.contains("masked") && !status.contains("Access:"),
        "{status}"
    );
    assert!(
        host.has_folder(&format!("{GPU}.service")),
        "remove did nothing"
    );
    systemctl(&["unmask", &socket])?;

    // Until the next boot, and by the template.
    systemctl(&["mask", "--runtime", "vhost-user-gpu@.socket"])?;
    assert_eq!(
        host.fails(&["start", "vm1"], 6)?,
        format!(
            "Failed to start {socket}: it is masked. To unmask it: systemctl unmask --runtime vhost-user-gpu@.socket.\n"
        )
    );
    systemctl(&["unmask", "--runtime", "vhost-user-gpu@.socket"])?;

    // The service alone: systemd tries then.
    let service = format!("{GPU}.service");
    systemctl(&["mask", &service])?;
    assert_eq!(
        host.fails(&["start", "vm1"], 6)?,
        format!(
            "Failed to start {socket}: {service} is masked. To unmask it: systemctl unmask {service}.\n"
        )
    );
    systemctl(&["unmask", &service])?;
    host.ok(&["start", "vm1"])?;
    Ok(())
}

/// No error comes by its name on the bus, whatever systemd refuses.
#[test]
fn refusals_are_sentences() -> anyhow::Result<()> {
    let host = Host::new(&[])?;
    host.ok(&["add", "gpu", "vm1"])?;
    let shell = |script: &str| host.sandbox.exec(["sh", "-c", script]);
    let mut all = Vec::new();

    shell("useradd --no-create-home joe")?;
    for verb in ["start", "stop", "restart", "enable", "disable"] {
        let command = format!("setpriv --reuid joe --regid joe --clear-groups vhostctl {verb} vm1");
        let output = shell(&command)?;
        ensure!(
            output.status.code() == Some(4),
            "{verb}: {}",
            stderr(&output)
        );
        all.push(stderr(&output));
    }

    let bad = "/etc/systemd/system/vhost-user-gpu@vm1.socket.d/bad.conf";
    host.sandbox.write(bad, "[Socket]\nListenStream=\n")?;
    host.sandbox.systemctl(&["daemon-reload"])?;
    let said = host.fails(&["start", "vm1"], 6)?;
    assert!(said.contains("(vhostctl log)"), "{said}");
    all.push(said);
    let said = host.ok(&["log", "vm1"])?;
    assert!(said.contains("Unit has no Listen setting"), "{said}");
    shell(&format!("rm {bad}"))?;

    shell("find /usr/lib/systemd /lib/systemd -name 'vhost-user-gpu@.socket' -delete")?;
    host.sandbox.systemctl(&["daemon-reload"])?;
    for verb in ["start", "enable"] {
        let said = host.fails(&[verb, "vm1"], 5)?;
        assert!(said.contains("is not installed"), "{verb}: {said}");
        all.push(said);
    }
    for said in all {
        assert!(said.starts_with("Failed to "), "{said}");
        assert!(!said.contains("org.freedesktop.DBus"), "{said}");
        assert!(!said.contains("org.freedesktop.systemd1.No"), "{said}");
        assert!(!said.contains(".."), "{said}");
    }
    Ok(())
}

#[test]
fn one_failure_among_several_stops_no_other() -> anyhow::Result<()> {
    let host = Host::new(&[])?;
    for vm in ["vm1", "vm2", "vm3"] {
        host.ok(&["add", "gpu", vm])?;
    }
    let socket = |vm: &str| format!("vhost-user-gpu@{vm}.socket");
    host.sandbox.systemctl(&["mask", &socket("vm1")])?;
    let said = host.fails(&["start", "vm0", "vm1", "vm2", "vm3"], 5)?;
    assert!(
        said.starts_with("No such backend: vm0.")
            && said.contains("\nFailed to start vhost-user-gpu@vm1"),
        "{said}"
    );
    for (vm, state) in [("vm1", "inactive"), ("vm2", "active"), ("vm3", "active")] {
        assert_eq!(host.state(&socket(vm))?, state, "{vm}");
    }
    host.fails(&["restart", "vm1", "vm2"], 6)?;
    assert_eq!(host.state(&socket("vm2"))?, "active");
    // What goes wrong later counts as well.
    host.sandbox
        .drop_in(&socket("vm2"), "[Socket]\nSocketGroup=nobodys\n")?;
    host.ok(&["stop", "vm2", "vm3"])?;
    let said = host.fails(&["start", "vm2", "vm3"], 1)?;
    assert!(said.contains("it needs group nobodys"), "{said}");
    assert_eq!(host.state(&socket("vm3"))?, "active");

    let output = host.run(&["disable", "vm1", "vm2", "vm0"])?;
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert!(!host.is_enabled(&socket("vm2"))?);
    let output = host.run(&["enable", "vm2", "vm1"])?;
    assert_eq!(output.status.code(), Some(6), "{}", stderr(&output));
    assert!(host.is_enabled(&socket("vm2"))?);
    let output = host.run(&["status", "vm3", "vm0", "vm9"])?;
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(
        stderr(&output),
        "No such backend: vm0. See 'vhostctl list', or create it with 'vhostctl add'.\n\
         No such backend: vm9. See 'vhostctl list', or create it with 'vhostctl add'.\n"
    );
    let output = host.run(&["remove", "vm0", "vm1", "vm2", "vm3"])?;
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert!(!host.has_folder("vhost-user-gpu@vm2.service"));
    assert!(!host.has_folder("vhost-user-gpu@vm3.service"));
    Ok(())
}

#[test]
fn patterns_and_types_select_backends() -> anyhow::Result<()> {
    let host = Host::new(&[KEYBOARD, MOUSE])?;
    for vm in ["vm1", "vm2", "web"] {
        host.ok(&["add", "gpu", vm])?;
    }
    host.ok(&["add", "input", "vm1", "mouse"])?;
    host.ok(&["add", "input", "web", "keyboard", "--force"])?;
    let listed = |arguments: &[&str]| -> anyhow::Result<Vec<String>> {
        let all = [&["list", "--no-legend"], arguments].concat();
        let text = host.ok(&all)?;
        let names = |line: &str| {
            let mut words = line.split_whitespace();
            Some(format!("{}:{}", words.next()?, words.next()?))
        };
        Ok(text.lines().filter_map(names).collect())
    };
    assert_eq!(listed(&["vm*"])?, ["vm1:gpu", "vm1:mouse", "vm2:gpu"]);
    assert_eq!(listed(&["vm2", "web:kbd"])?, ["vm2:gpu", "web:kbd"]);
    assert_eq!(listed(&["vhost-user-input@*"])?, ["vm1:mouse", "web:kbd"]);
    assert_eq!(listed(&["--type=input"])?, ["vm1:mouse", "web:kbd"]);
    assert_eq!(listed(&["-t", "gpu", "w*"])?, ["web:gpu"]);
    assert_eq!(
        host.ok(&["list", "nothing*"])?,
        "No backends match nothing*.\n"
    );
    assert_eq!(
        host.ok(&["list", "--type=fs", "vm1", "vm2"])?,
        "No backends of type fs match vm1 or vm2.\n"
    );
    assert_eq!(
        host.ok(&["list", "--type=fs"])?,
        "No backends of type fs.\n"
    );
    assert_eq!(host.ok(&["list", "nothing*", "--no-legend"])?, "");

    host.ok(&["start", "vm*"])?;
    host.ok(&["stop", "*:mouse"])?;
    for (unit, state) in [
        ("vhost-user-gpu@vm1.socket", "active"),
        ("vhost-user-gpu@vm2.socket", "active"),
        ("vhost-user-gpu@web.socket", "inactive"),
        ("vhost-user-input@vm1:mouse.socket", "inactive"),
    ] {
        assert_eq!(host.state(unit)?, state, "{unit}");
    }
    assert!(
        host.ok(&["log", "vm[12]:gpu"])?
            .contains("vhost-user-gpu@vm2")
    );
    assert!(!host.ok(&["log", "vm[1]"])?.contains("vhost-user-gpu@vm2"));
    let said = host.fails(&["start", "nothing*"], 5)?;
    assert!(said.contains("No such backend: nothing*"), "{said}");
    // One name of a GPU: the one that is shown is understood.
    let output = host.run(&["status", "vm2:gpu", "-n0"])?;
    let text = String::from_utf8(output.stdout)?;
    assert!(text.contains(" vm2:gpu - "), "{text}");
    Ok(())
}

#[test]
fn connected_front_end_needs_confirmation() -> anyhow::Result<()> {
    let host = Host::new(&[MOUSE])?;
    host.ok(&["add", "gpu", "vm1", "--now"])?;
    host.ok(&["add", "input", "vm1", "mouse"])?;
    let mock = host.mock.as_ref().expect("devices");
    let service = "vhost-user-input@vm1:mouse.service";
    host.sandbox.drop_in(service, &mock.drop_in())?;
    host.ok(&["start", "vm1"])?;
    // Nobody is connected, so nobody loses anything.
    host.ok(&["restart", "vm1"])?;

    let _gpu = host.connect("/run/vhost-user/gpu/vm1.sock")?;
    let _mouse = host.connect("/run/vhost-user/input/vm1:mouse.sock")?;
    let units = [format!("{GPU}.service"), service.to_owned()];
    let serve = || -> anyhow::Result<bool> {
        let states = units.iter().map(|unit| host.state(unit));
        let states = states.collect::<Result<Vec<_>, _>>()?;
        Ok(states.iter().all(|state| state == "active"))
    };
    assert!(serve()?);
    for verb in [
        &["stop"][..],
        &["restart", "--cold"],
        &["remove"],
        &["disable", "--now"],
    ] {
        let said = host.fails(&[verb, &["vm1"]].concat(), 1)?;
        for part in [
            "vm1:gpu has a front-end connected: its VM loses its screen",
            "vm1:mouse has a front-end connected: ",
            "QEMU aborts if no guest driver",
            "--force",
        ] {
            assert!(said.contains(part), "{verb:?}: {said}");
        }
        assert!(serve()?, "{verb:?} did nothing");
        assert!(host.is_enabled(&format!("{GPU}.socket"))?, "{verb:?}");
        assert!(host.has_folder(service), "{verb:?}");
    }
    // On a terminal it is a question.
    let ask = |answer: &str| {
        let script = format!("echo '{answer}' | script -qec 'vhostctl stop vm1:mouse' /dev/null");
        host.sandbox.exec(["sh", "-c", &script])
    };
    for answer in ["n", "", "what"] {
        let output = ask(answer)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{answer}: {said}");
        assert!(said.contains("Continue anyway? [y/N] "), "{said}");
        assert!(said.contains("Nothing was changed."), "{said}");
        assert!(serve()?, "{answer}");
    }
    let output = ask("y")?;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(host.state(service)?, "inactive");
    host.ok(&["stop", "vm1", "--force"])?;
    assert_eq!(host.state(&units[0])?, "inactive");
    Ok(())
}

#[test]
fn add_says_what_a_backend_does_and_when_settings_apply() -> anyhow::Result<()> {
    let host = Host::new(&[])?;
    let add = |options: &[&str]| host.ok(&[&["add", "gpu", "vm1"], options].concat());
    let said = add(&[])?;
    assert!(said.contains("vhostctl start vm1:gpu"), "{said}");
    host.ok(&["start", "vm1"])?;
    let said = add(&[])?;
    assert!(said.ends_with("vm1:gpu is already listening.\n"), "{said}");
    let said = add(&["--max-hostmem=64M", "--force", "--now"])?;
    assert!(
        said.ends_with(
            "vm1:gpu is already listening. The new settings take effect when its VM is started.\n"
        ),
        "{said}"
    );
    let session = host.connect("/run/vhost-user/gpu/vm1.sock")?;
    let said = add(&["--max-hostmem=64M"])?;
    assert!(
        said.ends_with("vm1:gpu already serves a VM with these settings.\n"),
        "{said}"
    );
    // So a restart does not end its connection.
    let status = host.ok(&["status", "vm1:gpu", "--json=short"])?;
    assert!(status.contains("\"settings_changed\":false"), "{status}");
    let said = add(&["--max-hostmem=96M", "--force"])?;
    assert!(
        said.ends_with(
            "vm1:gpu serves a VM with the old settings. \
             The new settings take effect when that VM is started again.\n"
        ),
        "{said}"
    );
    // And so it is.
    let command = |host: &Host| -> anyhow::Result<String> {
        let pid = host
            .sandbox
            .property(&format!("{GPU}.service"), "MainPID")?;
        let output = host
            .sandbox
            .exec(["cat", &format!("/proc/{pid}/cmdline")])?;
        Ok(String::from_utf8(output.stdout)?)
    };
    assert!(command(&host)?.contains("64M"));
    drop(session);
    let service = format!("{GPU}.service");
    let soon = std::time::Duration::from_secs(30);
    host.sandbox
        .wait_property(&service, "ActiveState", "inactive", soon)?;
    let _session = host.connect("/run/vhost-user/gpu/vm1.sock")?;
    assert!(command(&host)?.contains("96M"));
    Ok(())
}
