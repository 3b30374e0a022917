// SPDX-License-Identifier: Apache-2.0 OR MIT

use conventions::{GpuMemory, InputMatch, parse_size};

use super::drop_in::service_text;
use super::dynamic_user::{USER_MAX, dynamic_user};
use super::*;
use crate::instance::UnitType;

fn instance(unit: &str) -> Instance {
    Instance::from_unit(unit).expect("a unit")
}

fn keyboard() -> (Instance, Settings) {
    let settings = Settings {
        options: ProgramOptions::Input(InputOptions {
            evdev_path: Some("/dev/input/by-id/usb-A\\x20B-event-kbd".into()),
            no_grab: true,
            ..InputOptions::default()
        }),
        ..Settings::default()
    };
    (instance("vhost-user-input@vm1:kbd.service"), settings)
}

#[test]
fn a_keyboard_reads_well() {
    let (instance, settings) = keyboard();
    assert_eq!(
        service_text(&settings, &instance).expect("good values"),
        r#"# Written by "vhostctl add", deleted by "vhostctl remove vm1:kbd". Settings of your own go into a
# file beside it: systemctl edit vhost-user-input@vm1:kbd.service

[Service]
Environment=EVDEV_PATH=/dev/input/by-id/usb-A\\x20B-event-kbd
Environment=OPTIONS=--no-grab
DeviceAllow=char-input rw
User=vu-input-vm1-kbd
"#
    );
}

/// A keyboard without a path, with a name that needs quotes.
fn keyboard_by_its_numbers() -> (Instance, Settings) {
    let rule = InputMatch {
        name: Some("Acme \"100%\" Keyboard's \\ Keys".into()),
        ..InputMatch::new("046d:b342:a0:b1:c2".parse().expect("numbers"))
    };
    let settings = Settings {
        options: ProgramOptions::Input(InputOptions {
            evdev_match: Some(rule),
            ..InputOptions::default()
        }),
        ..Settings::default()
    };
    (instance("vhost-user-input@vm1:media.service"), settings)
}

#[test]
fn a_device_without_a_path_may_be_any_input_device() {
    let (instance, settings) = keyboard_by_its_numbers();
    let text = service_text(&settings, &instance).expect("good values");
    assert!(text.contains("\nDeviceAllow=char-input rw\n"), "{text}");
    assert!(!text.contains("EVDEV_PATH"), "{text}");
    assert!(text.contains("--evdev-match=046d:b342:a0:b1:c2 "), "{text}");
    assert_eq!(settings.device(), None);
    let address = settings.address().expect("a device");
    assert_eq!(
        address.to_string(),
        r#"046d:b342:a0:b1:c2, Acme "100%" Keyboard's \ Keys"#
    );
    // A line break would begin another directive.
    let mut evil = settings;
    let ProgramOptions::Input(options) = &mut evil.options else {
        panic!("an input device");
    };
    let rule = options.evdev_match.as_mut().expect("a rule");
    rule.name = Some("Keyboard\nUser=root".into());
    assert!(service_text(&evil, &instance).is_err());
}

#[test]
fn more_for_resources_is_more_for_the_unit() {
    let instance = instance("vhost-user-gpu@vm1.service");
    let memory_max = |options: &[&str]| {
        let environment = [format!("OPTIONS={}", options.join(" "))];
        let settings = Settings {
            options: ProgramOptions::from_environment(UnitKind::Gpu, &environment),
            ..Settings::default()
        };
        let text = service_text(&settings, &instance).expect("good values");
        assert_eq!(
            Settings::from_assignments(&unit_syntax::parse(&text), &instance),
            settings
        );
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix("MemoryMax="));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    // The template's own will do.
    assert_eq!(memory_max(&["--max-hostmem=64M"]), [""; 0]);
    assert_eq!(memory_max(&["--max-hostmem=512M"]), [""; 0]);
    assert_eq!(memory_max(&["--max-hostmem=536870913"]), ["1025M"]);
    assert_eq!(memory_max(&["--max-hostmem=4G"]), ["4608M"]);
    assert_eq!(memory_max(&["--virgl", "--max-hostmem=1G"]), ["8G"]);
    assert_eq!(memory_max(&["--virgl", "--max-hostmem=3G"]), ["9216M"]);
    assert_eq!(
        memory_max(&["--max-hostmem=18446744073709551615"]),
        ["17592186044416M"]
    );
}

#[test]
fn the_room_is_what_the_units_leave() {
    let template = include_str!("../../../systemd/vhost-user-gpu@.service");
    let virgl = include_str!("../../../systemd/vhost-user-gpu-virgl.conf");
    let vulkan = include_str!("../../../systemd/vhost-user-gpu-vulkan.conf");
    let server = include_str!("../../../systemd/vhost-render-server@.service");
    for (text, memory) in [
        (template, GpuMemory::TWO_D),
        (virgl, GpuMemory::VIRGL),
        (vulkan, GpuMemory::VENUS),
        (server, GpuMemory::VIRGL),
    ] {
        let assignments = unit_syntax::parse(text);
        let most = assignments.iter().find(|it| it.key == "MemoryMax");
        let most = parse_size(&most.expect("a limit").value);
        assert_eq!(most, Ok(memory.max_hostmem + memory.overhead));
    }
}

#[test]
fn gpu_with_vulkan_has_the_render_server_of_its_vm() {
    let gpu = Settings {
        options: ProgramOptions::Gpu(GpuOptions {
            vulkan: true,
            max_hostmem: Some("4G".parse().expect("a size")),
            ..GpuOptions::default()
        }),
        ..Settings::default()
    };
    let text = service_text(&gpu, &instance("vhost-user-gpu@vm1.service")).expect("good values");
    let parsed = unit_syntax::parse(&text);
    let of = |section: &str, key: &str| {
        let found = parsed
            .iter()
            .filter(|it| it.section == section && it.key == key);
        found.map(|it| it.value.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of("Unit", "Requires"), ["vhost-render-server@%i.socket"]);
    let options =
        "\"OPTIONS=--venus --render-server=/run/vhost-render/render.sock --max-hostmem=4G\"";
    assert_eq!(of("Service", "Environment"), [options]);
    assert!(
        text.contains("/run/vhost-user-render/%i:/run/vhost-render\n"),
        "{text}"
    );
    assert_eq!(of("Service", "MemoryMax"), ["4608M"]);
}

#[test]
fn written_text_is_read_back() {
    let gpu = Settings {
        options: ProgramOptions::Gpu(GpuOptions {
            render_node: Some("/dev/dri/by-path/pci-0000:00:02.0-render".into()),
            virgl: true,
            ..GpuOptions::default()
        }),
        ..Settings::default()
    };
    let fs = Settings {
        device_type: Some("fs".into()),
        program: Some("50-qemu-virtiofsd".into()),
        command: [
            "/usr/lib/qemu/virtiofsd",
            "--fd=3",
            "-o",
            "source=/srv/a b/100%/$x",
        ]
        .map(String::from)
        .into(),
        nodes: vec!["/dev/fuse".into()],
        user: Some("root".into()),
        ..Settings::default()
    };
    let plain = Settings {
        options: ProgramOptions::Gpu(GpuOptions::default()),
        ..Settings::default()
    };
    let vulkan = Settings {
        options: ProgramOptions::Gpu(GpuOptions {
            vulkan: true,
            render_node: Some("/dev/dri/renderD128".into()),
            ..GpuOptions::default()
        }),
        ..Settings::default()
    };
    // The name of a descriptor's file is anybody's.
    let odd = Settings {
        program: Some("a \"b\"\n[Service]\nUser=daemon\rx\\".into()),
        ..fs.clone()
    };
    for (instance, settings) in [
        keyboard(),
        keyboard_by_its_numbers(),
        (instance("vhost-user@vm1:odd.service"), odd),
        (instance("vhost-user-gpu@vm1.service"), gpu),
        (instance("vhost-user-gpu@vm1.service"), plain),
        (instance("vhost-user-gpu@vm1.service"), vulkan),
        (instance("vhost-user@vm1:data.service"), fs),
    ] {
        let text = service_text(&settings, &instance).expect("good values");
        assert_eq!(
            Settings::from_assignments(&unit_syntax::parse(&text), &instance),
            settings,
            "{text}"
        );
    }
}

#[test]
fn the_drop_ins_of_others_count() {
    let folder = tempfile::tempdir().expect("a folder");
    let folders = ["etc", "usr"].map(|name| folder.path().join(name));
    let folders = UnitFolders::new(folders.into(), folder.path().join("etc"));
    let put = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    };
    let (instance, settings) = keyboard();
    put(
        "usr/vhost-user-input@.service",
        "[Service]\nEnvironment=OPTIONS=\n",
    );
    let none = Settings {
        options: ProgramOptions::Input(InputOptions::default()),
        ..Settings::default()
    };
    assert_eq!(Settings::read(&folders, &instance), none);
    let own = folders.own_file(&instance, UnitType::Service);
    put(
        own.strip_prefix(folder.path())
            .expect("below")
            .to_str()
            .expect("UTF-8"),
        &service_text(&settings, &instance).expect("good values"),
    );
    assert_eq!(Settings::read(&folders, &instance), settings);
    put(
        "usr/vhost-user-input@.service.d/40-all.conf",
        "[Service]\nEnvironment=EVDEV_PATH=/dev/input/event9\n",
    );
    assert_eq!(
        Settings::read(&folders, &instance).device(),
        settings.device(),
        "an earlier name counts less"
    );
    put(
        "etc/vhost-user-input@.service.d/60-all.conf",
        "[Service]\nEnvironment=\nEnvironment=EVDEV_PATH=/dev/%i\n",
    );
    let read = Settings::read(&folders, &instance);
    assert_eq!(
        (read.device(), read.options.words()),
        (Some("/dev/vm1:kbd"), Vec::new())
    );
    put(
        "etc/vhost-user-input@vm1:kbd.service.d/60-all.conf",
        "[Service]\nEnvironment=OPTIONS=--x\n",
    );
    let read = Settings::read(&folders, &instance);
    assert_eq!(
        read.device(),
        settings.device(),
        "hidden by the same name for the instance"
    );
    assert_eq!(read.options.words(), ["--x"]);
}

#[test]
fn every_instance_has_a_user_of_its_own() {
    let user = |unit: &str| dynamic_user(&instance(unit));
    assert_eq!(user("vhost-user-gpu@vm-1.service"), None, "the template's");
    assert_eq!(
        user("vhost-user-input@vm1:kbd.service").as_deref(),
        Some("vu-input-vm1-kbd")
    );
    let (one, two) = (
        user("vhost-user-input@a-b:c.service"),
        user("vhost-user-input@a:b-c.service"),
    );
    assert_ne!(one, two);
    let long = format!("vhost-user-gpu@{}.service", "v".repeat(80));
    for unit in [
        long.as_str(),
        "vhost-user-gpu@web.example.com.service",
        "vhost-user@a.b:c.service",
    ] {
        let name = user(unit).expect("another than the template's");
        assert!(name.len() <= USER_MAX, "{name}");
        assert!(
            name.chars()
                .all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)),
            "{name}"
        );
    }
    assert_eq!(
        user("vhost-user-gpu@web.example.com.service").as_deref(),
        user("vhost-user-gpu@web.example.com.service").as_deref()
    );
}

#[test]
fn root_is_the_service_without_a_user() {
    // systemd 257 takes CAP_SETUID from one with User=root and NoNewPrivileges=yes.
    let instance = instance("vhost-user@vm1:data.service");
    for user in ["root", "0"] {
        let settings = Settings {
            command: vec!["/usr/libexec/virtiofsd".into()],
            user: Some(user.into()),
            ..Settings::default()
        };
        let text = service_text(&settings, &instance).expect("a drop-in");
        assert!(text.ends_with("DynamicUser=no\nUser=\n"), "{text}");
        let read = Settings::from_assignments(&unit_syntax::parse(&text), &instance);
        assert_eq!(read.user.as_deref(), Some("root"));
    }
}

/// As version 0.1.0 wrote them: with the device's own node, where a newer version allows all input devices.
#[test]
fn files_of_version_0_1_keep_their_meaning() {
    let read = |unit: &str, text: &str| {
        let instance = instance(unit);
        let head = format!(
            "# Written by \"vhostctl add\", deleted by \"vhostctl remove vm1\". Settings of your own go into a\n\
             # file beside it: systemctl edit {unit}\n\n"
        );
        Settings::from_assignments(&unit_syntax::parse(&(head + text)), &instance)
    };
    let (_, keyboard) = keyboard();
    let text = r"[Service]
Environment=EVDEV_PATH=/dev/input/by-id/usb-A\\x20B-event-kbd
Environment=OPTIONS=--no-grab
DeviceAllow=/dev/input/by-id/usb-A\\x20B-event-kbd rw
User=vu-input-vm1-kbd
";
    assert_eq!(read("vhost-user-input@vm1:kbd.service", text), keyboard);

    let text = r#"[Service]
PrivateDevices=no
SupplementaryGroups=render
Environment="OPTIONS=--render-node=/dev/dri/by-path/pci-0000:00:02.0-render --virgl --max-hostmem=3G"
DeviceAllow=/dev/dri/by-path/pci-0000:00:02.0-render rw
User=vu-gpu-vm1
MemoryMax=9216M
"#;
    let gpu = read("vhost-user-gpu@vm1.service", text);
    let ProgramOptions::Gpu(options) = &gpu.options else {
        panic!("{gpu:?}");
    };
    assert!(options.virgl);
    assert_eq!(
        gpu.device(),
        Some("/dev/dri/by-path/pci-0000:00:02.0-render")
    );
    let limit = "3G".parse().expect("a size");
    assert_eq!(options.max_hostmem, Some(limit));
    assert_eq!((&gpu.user, gpu.nodes), (&None, Vec::new()));

    let text = r#"[X-vhostctl]
Type=fs
Backend=50-qemu-virtiofsd

[Service]
ExecStart=
ExecStart=/usr/lib/qemu/virtiofsd --fd=3 -o "source=/srv/a b"
DeviceAllow=/dev/fuse rw
DynamicUser=no
User=
"#;
    let fs = Settings {
        device_type: Some("fs".into()),
        program: Some("50-qemu-virtiofsd".into()),
        command: ["/usr/lib/qemu/virtiofsd", "--fd=3", "-o", "source=/srv/a b"]
            .map(String::from)
            .into(),
        nodes: vec!["/dev/fuse".into()],
        user: Some("root".into()),
        ..Settings::default()
    };
    assert_eq!(read("vhost-user@vm1:data.service", text), fs);
}
