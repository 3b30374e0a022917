// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A value written to a unit stays one value, whatever it contains.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use anyhow::{Context as _, ensure};
use harness::staging::stage;
use harness::systemd::Sandbox;
use serde_json::{Value, json};

use crate::common::{have, stderr};

const FILES: &str = "/etc/systemd/system";
const RECORD: &str = "/usr/local/bin/record";
/// Runs the program that records its arguments in place of a service's own, with rights to do so.
const RECORDED: &str = "[Service]\nType=oneshot\nDynamicUser=no\nUser=root\nPrivateUsers=no\nProtectSystem=no\n\
                        RestartForceExitStatus=\nExecStartPre=\n";

/// A systemd with the product installed, and the program that records its arguments.
fn host() -> anyhow::Result<(tempfile::TempDir, Sandbox)> {
    let staging = stage()?;
    let sandbox = Sandbox::start(&[staging.path()])?;
    let script = "#!/bin/sh\nprintf '%s\\0' \"$@\" >/run/arguments\n";
    sandbox.write(RECORD, script)?;
    let path = sandbox.path(RECORD);
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok((staging, sandbox))
}

/// Starts a service and returns what its program was given.
fn recorded(sandbox: &Sandbox, service: &str) -> anyhow::Result<Vec<String>> {
    let _ = fs::remove_file(sandbox.path("/run/arguments"));
    sandbox.systemctl(&["start", service])?;
    let text = fs::read_to_string(sandbox.path("/run/arguments"))?;
    Ok(text.split_terminator('\0').map(str::to_owned).collect())
}

/// A property of a service as it is on the bus, where nothing is quoted.
fn property(sandbox: &Sandbox, service: &str, name: &str) -> anyhow::Result<Value> {
    let label: String = service
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("_{byte:02x}"),
        })
        .collect();
    let path = format!("/org/freedesktop/systemd1/unit/{label}");
    let (bus, interface) = (
        "org.freedesktop.systemd1",
        "org.freedesktop.systemd1.Service",
    );
    let output = sandbox.exec([
        "busctl",
        "--json=short",
        "get-property",
        bus,
        &path,
        interface,
        name,
    ])?;
    ensure!(output.status.success(), "{}", stderr(&output));
    let value: Value = serde_json::from_slice(&output.stdout)?;
    Ok(value["data"].clone())
}

/// The device nodes that a service may open.
fn allowed(sandbox: &Sandbox, service: &str) -> anyhow::Result<Vec<String>> {
    let value = property(sandbox, service, "DeviceAllow")?;
    let all: Vec<(String, String)> = serde_json::from_value(value)?;
    // What ProtectClock= itself gives is left out.
    let nodes = all.iter().filter(|(node, _)| node != "char-rtc");
    Ok(nodes
        .map(|(node, access)| format!("{node} {access}"))
        .collect())
}

/// All that there is of ours in the folder of units.
fn written(sandbox: &Sandbox) -> anyhow::Result<String> {
    let find = format!("find {FILES} -path '*vhost-user*' -o -name 'x*'");
    let output = sandbox.exec(["sh", "-c", &find])?;
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn values_that_would_be_directives_are_refused() -> anyhow::Result<()> {
    let (_staging, sandbox) = host()?;
    let user = |user: &str| vec![format!("--backend={RECORD}"), format!("--run-as={user}")];
    let node = |path: &str| {
        let path = format!("--allow-device={path}");
        vec![format!("--backend={RECORD}"), path]
    };
    let program = |path: &str| vec![format!("--backend={path}")];
    for (arguments, word) in [
        (user("root\nExecStartPre=/bin/touch /run/pwned"), "A-Z a-z"),
        (user("root\rExecStartPre=/bin/touch /run/pwned"), "A-Z a-z"),
        (user("root\\"), "A-Z a-z"),
        (user("%u"), "A-Z a-z"),
        (user("a;b"), "A-Z a-z"),
        (user(""), "A-Z a-z"),
        (user("nobodys"), "no user 'nobodys'"),
        (user("65535"), "A-Z a-z"),
        (node("/dev/null\nUser=root"), "control character"),
        (node("/dev/null\rUser=root"), "control character"),
        (node("/dev/a\tb"), "control character"),
        (node("/run/x"), "below /dev"),
        (node("/dev/../run/x"), "below /dev"),
        (program("/bin/a\nUser=root"), "control character"),
        (program("/bin/a\"b"), "symbolic link"),
        (program("/bin/a\\"), "symbolic link"),
        (program("/bin/a$b"), "symbolic link"),
    ] {
        let mut command = vec![
            "vhostctl".to_owned(),
            "add".into(),
            "fs".into(),
            "vm1".into(),
        ];
        command.extend(arguments.iter().cloned());
        let output = sandbox.exec(command)?;
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains(word), "{arguments:?}: {said}");
        assert_eq!(written(&sandbox)?, "", "{arguments:?}");
    }
    Ok(())
}

#[test]
fn arguments_arrive_as_they_are() -> anyhow::Result<()> {
    let (_staging, sandbox) = host()?;
    let words = [
        "plain",
        "",
        "a b",
        "-o",
        "source=/srv/100%,x=%n%%i",
        "$HOME",
        "${HOME}",
        "$$",
        "it's",
        "\"quoted\"",
        r"back\slash\x20\\",
        r"ends\",
        ";",
        ";a",
        "#",
        "[Service]",
        "a\nUser=root",
        "b\r[Service]\rUser=root",
        "tab\tbell\x07del\x7f",
        "Tästatur \u{85}\u{202e}",
    ];
    let (backend, node) = (format!("--backend={RECORD}"), "/dev/ab\"c'd;$e%n\\x20\\");
    let folder = "/srv/a b\"c'd;$e%n\\x20\\";
    fs::create_dir_all(sandbox.path(folder))?;
    let add = [
        "vhostctl",
        "add",
        "fs",
        "vm1",
        backend.as_str(),
        "--run-as=root",
        &format!("--allow-device={node}"),
        &format!("--allow-path={folder}"),
        "--",
    ];
    let output = sandbox.exec([&add[..], &words].concat())?;
    ensure!(output.status.success(), "{}", stderr(&output));
    let service = "vhost-user@vm1:fs.service";
    let text = "[Service]\nType=oneshot\nRestartForceExitStatus=\n";
    sandbox.drop_in(service, text)?;
    let arguments = recorded(&sandbox, service)?;
    assert_eq!(arguments[0], "--fd=3");
    assert_eq!(arguments[1..], words);
    assert_eq!(allowed(&sandbox, service)?, [format!("{node} rw")]);
    let writable = property(&sandbox, service, "ReadWritePaths")?;
    assert_eq!(writable, json!([format!("-{folder}")]));
    // And nothing else is in the file.
    let file = format!("{FILES}/{service}.d/50-vhostctl.conf");
    let text = fs::read_to_string(sandbox.path(&file))?;
    let directives: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, _)| key)
        .filter(|key| !key.starts_with('#'))
        .collect();
    assert_eq!(
        directives,
        [
            "Type",
            "Backend",
            "ExecStart",
            "ExecStart",
            "DeviceAllow",
            "DynamicUser",
            "User",
            "ProtectSystem",
            "ReadWritePaths"
        ]
    );
    Ok(())
}

/// A GPU and a keyboard whose names are as odd as udev lets them be, and odder.
const ODD: &str = r#"P: /devices/platform/odd/drm/renderD128
N: dri/renderD128
S: dri/by-path/pci-a\x20b'"$x%n;-render
E: DEVNAME=/dev/dri/renderD128
E: DEVLINKS=/dev/dri/by-path/pci-a\x20b'"$x%n;-render
E: SUBSYSTEM=drm
E: MAJOR=226
E: MINOR=128

P: /devices/virtual/input/input5
E: SUBSYSTEM=input
E: ID_INPUT=1
A: name=Odd\n

P: /devices/virtual/input/input5/event5
N: input/event5
S: input/by-id/usb-a\x20b'"$x%n;-event-kbd
E: DEVNAME=/dev/input/event5
E: DEVLINKS=/dev/input/by-id/usb-a\x20b'"$x%n;-event-kbd
E: SUBSYSTEM=input
E: MAJOR=13
E: MINOR=69
E: ID_INPUT=1
E: ID_INPUT_MOUSE=1
"#;

#[test]
fn odd_names_of_devices_arrive_as_they_are() -> anyhow::Result<()> {
    if !have("umockdev-run", "package umockdev") {
        return Ok(());
    }
    let (_staging, sandbox) = host()?;
    sandbox.write("/run/odd.umockdev", ODD)?;
    let gpu = r#"/dev/dri/by-path/pci-a\x20b'"$x%n;-render"#;
    let mouse = r#"/dev/input/by-id/usb-a\x20b'"$x%n;-event-kbd"#;
    // The links are there, as udev makes them.
    let script = "mkdir -p \"$UMOCKDEV_DIR${1%/*}\" \"$UMOCKDEV_DIR${2%/*}\" && \
                  ln -sf ../renderD128 \"$UMOCKDEV_DIR$1\" && ln -sf ../event5 \"$UMOCKDEV_DIR$2\" && \
                  shift 2 && exec vhostctl \"$@\"";
    let run = |arguments: &[&str]| -> anyhow::Result<Output> {
        let mock = ["umockdev-run", "--device", "/run/odd.umockdev", "--"];
        let mock = [&mock[..], &["sh", "-c", script, "sh", gpu, mouse]].concat();
        let output = sandbox.exec([&mock[..], arguments].concat())?;
        ensure!(
            output.status.success(),
            "{arguments:?}: {}",
            stderr(&output)
        );
        Ok(output)
    };
    run(&[
        "add",
        "gpu",
        "vm1",
        "--render-node=auto",
        "--max-hostmem=64M",
    ])?;
    let service = "vhost-user-gpu@vm1.service";
    let program = format!("{RECORDED}ExecStart=\nExecStart={RECORD} $OPTIONS\n");
    sandbox.drop_in(service, &program)?;
    assert_eq!(
        recorded(&sandbox, service)?,
        [&format!("--render-node={gpu}"), "--max-hostmem=64M"]
    );
    assert_eq!(allowed(&sandbox, service)?, [format!("{gpu} rw")]);

    run(&["add", "input", "vm1", "odd", "--no-grab"])?;
    let service = "vhost-user-input@vm1:mouse.service";
    let program =
        format!("{RECORDED}ExecStart=\nExecStart={RECORD} --evdev-path=${{EVDEV_PATH}} $OPTIONS\n");
    sandbox.drop_in(service, &program)?;
    assert_eq!(
        recorded(&sandbox, service)?,
        [&format!("--evdev-path={mouse}"), "--no-grab"]
    );
    assert_eq!(allowed(&sandbox, service)?, ["char-input rw"]);
    let list = String::from_utf8(run(&["list-devices", "--no-legend"])?.stdout)?;
    assert!(list.contains(" vm1:mouse "), "read back: {list}");
    assert!(list.contains(" vm1:gpu "), "read back: {list}");
    Ok(())
}

#[test]
fn written_files_are_readable_whatever_the_umask() -> anyhow::Result<()> {
    let (_staging, sandbox) = host()?;
    for mask in ["077", "000"] {
        let add = format!("umask {mask} && vhostctl add gpu vm{mask}");
        let output = sandbox.exec(["sh", "-c", &add])?;
        ensure!(output.status.success(), "{}", stderr(&output));
        let folder = sandbox.path(&format!("{FILES}/vhost-user-gpu@vm{mask}.service.d"));
        let mode = |path| anyhow::Ok(fs::metadata(path)?.permissions().mode() & 0o7777);
        assert_eq!(mode(folder.join("50-vhostctl.conf"))?, 0o644, "{mask}");
        assert_eq!(mode(folder)?, 0o755, "{mask}");
    }
    Ok(())
}

#[test]
fn descriptors_in_a_folder_of_another_user_run_no_program() -> anyhow::Result<()> {
    let (_staging, sandbox) = host()?;
    let mark = "/run/ran";
    let user = "/home/user/.config/qemu/vhost-user";
    // Where nothing is, there is nothing to say.
    sandbox.exec(["install", "-d", "-o1000", "-g1000", "/home/user"])?;
    let nothing = sandbox.exec(["env", "HOME=/home/user", "vhostctl", "list-backends"])?;
    assert_eq!(stderr(&nothing), "");
    let script = format!(
        "#!/bin/sh\ntouch {mark} 2>/dev/null\necho '{{\"type\": \"fs\", \"features\": []}}'\n"
    );
    sandbox.write("/home/user/bin/mine", &script)?;
    let descriptor = r#"{"description": "d", "type": "fs", "binary": "/home/user/bin/mine"}"#;
    sandbox.write(&format!("{user}/10-mine.json"), descriptor)?;
    let prepare = "chmod 755 /home/user/bin/mine && chown -R 1000:1000 /home/user";
    let prepared = sandbox.exec(["sh", "-c", prepare])?;
    ensure!(prepared.status.success(), "{}", stderr(&prepared));
    // Whether the program ran as root, and what is said.
    let as_root = |variable: &str| -> anyhow::Result<(bool, String)> {
        let output = sandbox.exec(["env", variable, "vhostctl", "list-backends"])?;
        ensure!(output.status.success(), "{}", stderr(&output));
        let ran = fs::remove_file(sandbox.path(mark)).is_ok();
        Ok((
            ran,
            String::from_utf8([output.stdout, output.stderr].concat())?,
        ))
    };
    for variable in ["HOME=/home/user", "XDG_CONFIG_HOME=/home/user/.config"] {
        let (ran, said) = as_root(variable)?;
        assert!(!ran, "{variable}: {said}");
        assert!(
            said.contains(&format!(
                "{user} is ignored: /home/user belongs to user 1000"
            )),
            "{said}"
        );
        assert!(!said.contains("10-mine"), "{said}");
    }
    // Neither by a link, nor by a folder that others can change.
    let links = format!(
        "mkdir -p /root/linked/qemu /root/file/qemu/vhost-user /root/open/qemu/vhost-user /root/bin/qemu/vhost-user && \
         ln -s {user} /root/linked/qemu/vhost-user && \
         ln -s {user}/10-mine.json /root/file/qemu/vhost-user/ && \
         cp {user}/10-mine.json /root/open/qemu/vhost-user/ && chmod 777 /root/open/qemu && \
         cp {user}/10-mine.json /root/bin/qemu/vhost-user/"
    );
    let linked = sandbox.exec(["sh", "-c", &links])?;
    ensure!(linked.status.success(), "{}", stderr(&linked));
    for (folder, word) in [
        ("linked", "is ignored: /home/user belongs"),
        ("file", "it is not trusted: /home/user belongs"),
        (
            "open",
            "is ignored: /root/open/qemu can be changed by everybody",
        ),
        ("bin", "it is not trusted: /home/user belongs"),
    ] {
        let (ran, said) = as_root(&format!("XDG_CONFIG_HOME=/root/{folder}"))?;
        assert!(!ran, "{folder}: {said}");
        assert!(said.contains(word), "{folder}: {said}");
    }
    // What is the caller's own counts: the user's, and root's.
    let id = ["--reuid=1000", "--regid=1000", "--clear-groups"];
    let user = [
        &["setpriv"][..],
        &id,
        &[
            "env",
            "HOME=/home/user",
            "vhostctl",
            "list-backends",
            "--json=short",
        ],
    ];
    let output = sandbox.exec(user.concat())?;
    let text = String::from_utf8(output.stdout)?;
    let all: Vec<Value> = serde_json::from_str(&text)?;
    let mine = all.iter().find(|found| found["name"] == "10-mine");
    assert_eq!(mine.context("not listed")?["state"], "usable", "{text}");
    let owned = sandbox.exec(["chown", "-R", "0:0", "/home/user"])?;
    ensure!(owned.status.success());
    let (ran, said) = as_root("HOME=/home/user")?;
    assert!(ran, "{said}");
    Ok(())
}

#[test]
fn program_of_a_user_does_not_become_root_by_its_name() -> anyhow::Result<()> {
    let (_staging, sandbox) = host()?;
    let program = "/srv/virtiofsd";
    sandbox.write(program, "#!/bin/sh\n")?;
    sandbox.exec(["chmod", "755", program])?;
    sandbox.exec(["chown", "1234", program])?;
    let folder = "--shared-dir=/srv";
    let add = ["vhostctl", "add", "fs", "vm1", "--backend", program, folder];
    let output = sandbox.exec(add)?;
    let said = stderr(&output);
    ensure!(output.status.code() == Some(1), "{said}");
    ensure!(
        said.contains("would run as root") && said.contains("belongs to user 1234"),
        "{said}"
    );
    let output = sandbox.exec([&add[..], &["--run-as=root"]].concat())?;
    ensure!(output.status.success(), "{}", stderr(&output));
    // Root's own runs as root without a word.
    sandbox.exec(["chown", "0", program])?;
    let output = sandbox.exec(["vhostctl", "add", "fs", "vm2", "--backend", program, folder])?;
    ensure!(
        output.status.success() && stderr(&output).contains("runs as root, limited to"),
        "{}",
        stderr(&output)
    );
    Ok(())
}

#[test]
fn program_of_a_user_is_not_run_as_root_for_its_capabilities() -> anyhow::Result<()> {
    let (_staging, sandbox) = host()?;
    let (program, mark) = ("/srv/passt", "/run/was-run");
    let script = format!("#!/bin/sh\necho --vhost-user\ntouch {mark}\n");
    sandbox.write(program, &script)?;
    sandbox.exec(["chmod", "755", program])?;
    for (owner, is_run) in [("1234", false), ("0", true)] {
        sandbox.exec(["chown", owner, program])?;
        let vm = format!("vm{owner}");
        let output = sandbox.exec(["vhostctl", "add", "net", &vm, "--backend", program])?;
        ensure!(output.status.success(), "{}", stderr(&output));
        assert_eq!(sandbox.path(mark).exists(), is_run, "owner {owner}");
    }
    Ok(())
}
