// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The house: layers and exceptions, in one table.

use crate::rules::{Exception, House, Layers};

/// Folders with product code.
pub const FOLDERS: &[&str] = &[
    "src",
    "cli/src",
    "crates/conformance/src",
    "crates/conventions/src",
    "crates/display-protocol/src",
    "crates/layout/src",
    "crates/rfb/src",
    "crates/vendoring/src",
];

/// Where the product's crates name the crates that they depend on.
pub const MANIFESTS: &[&str] = &[
    "Cargo.toml",
    "cli/Cargo.toml",
    "crates/conformance/Cargo.toml",
    "crates/conventions/Cargo.toml",
    "crates/display-protocol/Cargo.toml",
    "crates/layout/Cargo.toml",
    "crates/rfb/Cargo.toml",
    "crates/vendoring/Cargo.toml",
];

/// The rules for this repository. Row by row from above to below: a module imports only from rows below its own.
pub const HOUSE: House = House {
    crates: &[
        ("vhost_user_backends", "src/lib.rs"),
        ("vhostctl", "cli/src/main.rs"),
        ("conformance", "crates/conformance/src/lib.rs"),
        ("conventions", "crates/conventions/src/lib.rs"),
        ("display_protocol", "crates/display-protocol/src/lib.rs"),
        ("layout", "crates/layout/src/lib.rs"),
        ("rfb", "crates/rfb/src/lib.rs"),
        ("vendoring", "crates/vendoring/src/main.rs"),
        ("vhost_user_gpu", "src/bin/vhost-user-gpu.rs"),
        ("vhost_user_input", "src/bin/vhost-user-input.rs"),
        ("vhost_user_accept", "src/bin/vhost-user-accept.rs"),
        ("vhost_vnc", "src/bin/vhost-vnc.rs"),
    ],
    max_lines: 500,
    layers: &[
        Layers {
            of: "vhost_user_backends",
            rows: &[
                &["accept", "gpu", "input", "vnc"],
                &["backend", "geometry", "evdev_event"],
            ],
        },
        Layers {
            of: "vhost_user_backends::gpu",
            rows: &[
                &["device"],
                &["display", "virtio_gpu"],
                &["scanout"],
                &["renderer"],
                &["display_info", "render_node", "resource"],
                &["kept_state"],
                &["protocol"],
                &["region"],
            ],
        },
        Layers {
            of: "vhostctl",
            rows: &[
                &["args", "usage"],
                &["verbs"],
                &[
                    "assignments",
                    "completion",
                    "format",
                    "journal",
                    "output",
                    "selector",
                    "socket_permissions",
                    "ssh_forward",
                    "vmm",
                ],
                &["backends"],
                &["descriptors", "devices", "settings", "systemd"],
                &["exit", "unit_syntax", "unit_folders", "values"],
                &["accounts"],
                &["instance", "remote_host"],
            ],
        },
        Layers {
            of: "conformance",
            rows: &[
                &["check"],
                &["device", "program", "protocol"],
                &["guest", "point"],
                &["trial", "work"],
                &["folders", "sockets"],
                &["outcome", "process", "target"],
                &["marked"],
            ],
        },
        Layers {
            of: "vhost_user_backends::input",
            rows: &[
                &["device"],
                &["source", "virtio_input"],
                &["report"],
                &["device_info", "device_state"],
                &["records"],
                &["protocol"],
            ],
        },
        Layers {
            of: "vhost_user_backends::vnc",
            rows: &[
                &["program"],
                &["server"],
                &["display", "input", "viewer"],
                &["head"],
                &["damage", "retry_pause"],
                &["wire"],
            ],
        },
        Layers {
            of: "vhost_user_backends::backend",
            rows: &[
                &["program"],
                &["transport"],
                &["device", "helper"],
                &["sockets"],
                &["sandbox", "service", "virtqueue"],
                &["continuity"],
                &["logging"],
                &["lock", "startup_memory"],
            ],
        },
    ],
    exceptions: EXCEPTIONS,
};

const EXCEPTIONS: &[Exception] = &[];

/// Documents with pictures of the imports.
pub const PICTURES: &[&str] = &["docs/architecture.md"];

/// Names of other projects that documents quote, which look like names in the code.
pub const FOREIGN_NAMES: &[&str] = &[
    "map_shadow_stack",
    "virgl_cmd_get_capset_info",
    "virtqueue_map_desc",
    "vu_get_queue",
    "vu_message_read_default",
];

/// Messages of other programs that documents quote and no test can provoke, with where they were seen.
pub const FOREIGN_MESSAGES: &[&str] = &[
    // QEMU 7.2 without KVM.
    "vhost initialization failed: requires kvm",
    // QEMU 10.0 and 11.1, which abort.
    "memory_region_del_eventfd: Assertion",
];
