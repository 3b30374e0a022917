// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which test runs which block of commands in the documents.

use crate::commands::Trial::{None, Test};
use crate::commands::{Trial, Tried};

const DOCUMENTS: &str = "cli/tests/systemd/documents.rs";
const README: &str = "cli/tests/systemd/readme.rs";
const SAME: Trial = Test(DOCUMENTS, "console_of_two_documents_is_the_same");
const ADDED: Trial = Test(DOCUMENTS, "devices_are_added_as_the_documents_say");
const LOOKED_AT: Trial = Test(
    DOCUMENTS,
    "vms_are_looked_at_and_removed_as_the_documents_say",
);
const BY_HAND: Trial = Test(DOCUMENTS, "programs_serve_by_hand");
const SSH: Trial = Test(
    "cli/tests/systemd/recipes/ssh.rs",
    "console_over_ssh_is_as_written",
);
const BROWSER: Trial = Test(
    "cli/tests/systemd/recipes/browser.rs",
    "console_in_a_browser_is_as_written",
);
const TCP: Trial = Test(
    "cli/tests/systemd/recipes/tcp.rs",
    "console_over_tcp_is_as_written",
);
const TLS: Trial = Test(
    "cli/tests/systemd/recipes/tls.rs",
    "console_with_tls_is_as_written",
);
const UNIT: Trial = Test("cli/tests/vms/units.rs", "vm_is_a_unit");
const VIEWERS: Trial = None(
    "the viewers of tests/vms/console are TigerVNC's and gvncviewer's library, which need a display",
);
const VULKAN: Trial = Test(
    "tests/vulkan/by_hand.rs",
    "render_server_is_started_as_the_document_says",
);
const PACKAGES: Trial = None(
    "make check-packages builds them with the same goal and installs them by apt-get, on machines without sudo",
);
const BUILD: Trial = None(
    "make check-debian builds on a fresh Debian 13; installation_is_complete_and_leaves_no_trace installs and uninstalls",
);
const CHECK: Trial = None(
    "cli/tests/process/check.rs gives these options to stand-ins; my-backend and virtiofsd are the reader's",
);
const CROSS: Trial = None("make check-arm64 builds with the same two scripts");
const CONTAINERS: Trial = None("it needs podman; docs/containers.md says how it was tried");

/// The blocks of the documents for users, in their order.
pub(crate) const TRIED: &[Tried] = &[
    tried(
        "README.md",
        "vhostctl add console vm1 --now",
        Test(README, "first_lines_of_the_readme_show_a_screen"),
    ),
    tried("README.md", "make packages", PACKAGES),
    tried("docs/console.md", "vhostctl add console vm1 --now  ", SAME),
    tried("docs/console.md", "vhostctl add console vm1 --now", ADDED),
    tried("docs/console.md", "eval qemu-system-x86_64", ADDED),
    tried(
        "docs/console.md",
        "vhostctl view vm1",
        None("its lines are those of the README, with other remarks"),
    ),
    tried("docs/console.md", "vncviewer /run", VIEWERS),
    tried("docs/console.md", "vhostctl -H root@host view", SSH),
    tried("docs/console.md", "ssh -fN", SSH),
    tried("docs/console.md", "sudo apt install novnc", BROWSER),
    tried("docs/console.md", "ssh -N -L", BROWSER),
    tried("docs/console.md", "# systemctl edit", TCP),
    tried("docs/console.md", "systemctl restart vhost-vnc", TCP),
    tried("docs/console.md", "openssl req", TLS),
    tried("docs/console.md", "; /etc/stunnel/vm1.conf", TLS),
    tried("docs/console.md", "openssl req", TLS),
    tried("docs/console.md", "; vm1.conf", TLS),
    tried("docs/console.md", "systemctl enable --now stunnel", TLS),
    tried("docs/console.md", "stunnel vm1.conf", TLS),
    tried("docs/console.md", "vhostctl add console vm1 --heads", ADDED),
    tried(
        "docs/console.md",
        "vhostctl add console vm1 --keyboard",
        ADDED,
    ),
    tried(
        "docs/console.md",
        "# QEMU 11.1",
        None("tests/vms/console/generic.rs boots a guest with this device, where QEMU 11.1 is"),
    ),
    tried(
        "docs/conformance.md",
        "vhostctl check vhost-user-gpu",
        CHECK,
    ),
    tried("docs/conformance.md", "vhostctl check --junit", CHECK),
    tried("docs/containers.md", "podman build", CONTAINERS),
    tried("docs/containers.md", "podman run", CONTAINERS),
    tried("docs/containers.md", "cp packaging", CONTAINERS),
    tried("docs/containers.md", "[Unit]", CONTAINERS),
    tried("docs/containers.md", "[Socket]", CONTAINERS),
    tried(
        "docs/containers.md",
        "apiVersion",
        None("it needs Kubernetes; the document says that it was not run"),
    ),
    tried(
        "docs/containers.md",
        "- hosts",
        None("it needs Ansible; docs/containers.md says how it was tried"),
    ),
    tried("docs/install.md", "make packages", PACKAGES),
    tried("docs/install.md", "sudo apt install rustc", BUILD),
    tried("docs/install.md", "sudo env DEBIAN_ROOT=cross", CROSS),
    tried("docs/install.md", "sudo systemctl daemon-reload", LOOKED_AT),
    tried("docs/install.md", "sudo vhostctl remove", LOOKED_AT),
    tried(
        "docs/install.md",
        "make demo",
        None("make check-debian runs the demo, and .ci/run the checks"),
    ),
    tried(
        "docs/json.md",
        "vhostctl list --json",
        None("jq is none of ours; members_are_those_of_the_outputs checks what it reads"),
    ),
    tried(
        "docs/libvirt.md",
        "<memoryBacking>",
        None("domain_with_a_vhostuser_video_has_our_gpu has these elements within a whole domain"),
    ),
    tried("docs/libvirt.md", "vhostctl add console", ADDED),
    tried(
        "docs/libvirt.md",
        "# vhost-user-gpu in /usr/local/bin",
        Test(
            "cli/tests/systemd/access.rs",
            "apparmor_line_of_the_document_is_for_one_vm",
        ),
    ),
    tried(
        "docs/libvirt.md",
        "checkmodule",
        Test(
            "tests/packages/access_control.rs",
            "selinux_module_is_a_part_of_debians_policy",
        ),
    ),
    tried("docs/other-vmms.md", "vhostctl add input", ADDED),
    tried("docs/other-vmms.md", "[Unit]", UNIT),
    tried("docs/other-vmms.md", "systemctl daemon-reload", UNIT),
    tried(
        "docs/performance.md",
        "# systemctl edit vhost-user-input@vm1:mouse.service",
        Test(
            "tests/systemd/backends.rs",
            "input_device_has_a_real_time_class_if_its_unit_says_so",
        ),
    ),
    tried(
        "docs/qemu.md",
        "# vhostctl add gpu vm1",
        Test(README, "session_is_real"),
    ),
    tried("docs/qemu.md", "eval qemu-system-x86_64", LOOKED_AT),
    tried("docs/qemu.md", "sudo vhostctl add console", ADDED),
    tried("docs/qemu.md", "vhostctl add input vm1 KEYBOARD", ADDED),
    tried(
        "docs/qemu.md",
        "vhostctl add fs",
        Test(README, "other_backends_serve"),
    ),
    tried("docs/qemu.md", "vhost-user-gpu --socket-path", BY_HAND),
    tried("docs/qemu.md", "vhost-user-gpu --socket-path", BY_HAND),
    tried("docs/troubleshooting.md", "vhostctl list", LOOKED_AT),
    tried(
        "docs/virgl.md",
        "vhost-user-gpu --virgl",
        None("tests/process/virgl starts it so, and tests/vms/dmabuf.rs on a render node"),
    ),
    tried(
        "docs/vulkan.md",
        "sudo vhostctl add console",
        Test(
            "tests/vulkan/units.rs",
            "vhostctl_gives_a_vm_vulkan_in_one_command",
        ),
    ),
    tried("docs/vulkan.md", "systemd-socket-activate", VULKAN),
    tried("docs/vulkan.md", "vhost-user-gpu --venus", VULKAN),
    tried("packaging/README.md", "mkdir -p /etc/qemu", LOOKED_AT),
];

const fn tried(document: &'static str, begins: &'static str, trial: Trial) -> Tried {
    Tried {
        document,
        begins,
        trial,
    }
}
