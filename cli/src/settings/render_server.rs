// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The drop-in of the render server beside a GPU with Vulkan.

use conventions::GpuMemory;

use super::drop_in::{head_of, section};
use super::dynamic_user::render_server_user;
use super::{GpuOptions, MaxHostmem};
use crate::instance::Instance;
use crate::unit_syntax::{Directive, quoted};
use crate::values::{self, ValueError};

/// Settings of a GPU's render server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RenderServer {
    /// Whether the GPU has one.
    is_used: bool,
    /// The node of the host's GPU that it renders on; none for software.
    render_node: Option<String>,
    max_hostmem: Option<MaxHostmem>,
}

impl RenderServer {
    /// That of a GPU with these options.
    pub(crate) fn new(options: &GpuOptions) -> Self {
        Self {
            is_used: options.vulkan,
            render_node: options.render_node.clone(),
            max_hostmem: options.max_hostmem.clone(),
        }
    }

    /// The text of its drop-in; none if the template's settings will do, or if there is no such server.
    ///
    /// # Errors
    /// A value that no unit file can hold, or that would mean something else there.
    pub(crate) fn drop_in(&self, instance: &Instance) -> Result<Option<String>, ValueError> {
        let mut directives = Vec::new();
        if let Some(node) = &self.render_node {
            values::check_node(node)?;
            directives.push(Directive::new("SupplementaryGroups", "render"));
            directives.push(Directive::new(
                "DeviceAllow",
                format!("{} rw", quoted(node)),
            ));
        }
        let hostmem = self.max_hostmem.as_ref().map(MaxHostmem::bytes);
        // The driver allocates beside what the guest is charged for, as that of OpenGL does.
        let memory = GpuMemory::VIRGL;
        if let Some(most) = hostmem.filter(|most| *most > memory.max_hostmem) {
            let most = memory.memory_max_mib(most);
            directives.push(Directive::new("MemoryMax", format!("{most}M")));
        }
        directives.extend(render_server_user(instance).map(|user| Directive::new("User", user)));
        if directives.is_empty() || !self.is_used {
            return Ok(None);
        }
        let mut text = head_of(instance, &instance.render_server());
        section(&mut text, "Service", directives);
        Ok(Some(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(vm: &str, vulkan: bool, node: Option<&str>, hostmem: Option<&str>) -> Option<String> {
        let unit = format!("vhost-user-gpu@{vm}.service");
        let instance = Instance::from_unit(&unit).expect("a unit");
        let options = GpuOptions {
            vulkan,
            render_node: node.map(str::to_owned),
            max_hostmem: hostmem.map(|size| size.parse().expect("a size")),
            ..GpuOptions::default()
        };
        let server = RenderServer::new(&options);
        server.drop_in(&instance).expect("valid values")
    }

    #[test]
    fn drop_in_says_only_what_the_template_does_not() {
        const NODE: Option<&str> = Some("/dev/dri/renderD128");
        assert_eq!(text("vm1", true, None, None), None);
        assert_eq!(text("vm1", true, None, Some("2G")), None);
        assert_eq!(text("vm1", false, NODE, Some("4G")), None);
        let node = text("vm1", true, NODE, Some("4G")).expect("a drop-in");
        let expected = "systemctl edit vhost-render-server@vm1.service\n\n[Service]\nSupplementaryGroups=render\n\
                        DeviceAllow=/dev/dri/renderD128 rw\nMemoryMax=10240M\n";
        assert!(node.ends_with(expected), "{node}");
        let long = text("www.example.com", true, None, None).expect("a drop-in");
        assert!(
            long.contains("[Service]\nUser=vu-rnd-www-example-"),
            "{long}"
        );
    }
}
