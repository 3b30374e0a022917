// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The names of a device: its node, and the links to it, of which some are stable.
//!
//! udev gives two devices of one model the same link. It leads to one of them, after the next boot perhaps to the
//! other. So a link belongs to the device to whose node it leads now, and is stable only if udev has it for no other
//! device.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};

use super::{property, utf8};

/// How many links to links are followed.
const MAX_LINKS: usize = 8;

/// Folders that ProtectHome= and PrivateTmp= hide from a service.
const HIDDEN: [&str; 5] = ["/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/"];

/// The names of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    node: String,
    /// Its device number.
    number: Option<u64>,
    /// The links that lead to it now.
    own: Vec<String>,
    /// The links that udev has for it, wherever they lead.
    claimed: Vec<String>,
    /// The links that udev has for other devices as well.
    shared: Vec<String>,
}

/// The links of all devices of a kind: those that udev has for each, and those in their folder.
#[derive(Debug, Default)]
pub(crate) struct Links {
    claims: BTreeMap<String, usize>,
    found: Vec<String>,
}

impl Links {
    /// The links of these devices, whose nodes lie in `folder`.
    pub(crate) fn of(devices: &[udev::Device], folder: &str) -> Self {
        let mut claims = BTreeMap::new();
        for link in devices.iter().flat_map(claimed) {
            let count: &mut usize = claims.entry(link).or_default();
            *count = count.saturating_add(1);
        }
        let mut found = Vec::new();
        find_links(Path::new(folder), 1, &mut found);
        found.sort();
        Self { claims, found }
    }

    fn is_shared(&self, link: &str) -> bool {
        self.claims.get(link).is_some_and(|count| *count > 1)
    }
}

/// The links in a folder, and in those `depth` below it.
fn find_links(folder: &Path, depth: usize, found: &mut Vec<String>) {
    for entry in folder.read_dir().into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_symlink() => found.push(utf8(entry.path())),
            Ok(kind) if kind.is_dir() && depth > 0 => {
                find_links(&entry.path(), depth.saturating_sub(1), found);
            }
            _ => {}
        }
    }
}

/// The links that udev has for it.
fn claimed(device: &udev::Device) -> Vec<String> {
    let links = property(device, "DEVLINKS").unwrap_or_default();
    links.split_whitespace().map(str::to_owned).collect()
}

impl Names {
    /// The names of `device`, among all `links`.
    pub(crate) fn of(device: &udev::Device, links: &Links) -> Option<Self> {
        let mut names = Self {
            node: utf8(device.devnode()?),
            number: device.devnum(),
            claimed: claimed(device),
            ..Self::default()
        };
        names.settle(links);
        Some(names)
    }

    fn settle(&mut self, links: &Links) {
        let is_shared = |link: &&String| links.is_shared(link);
        self.shared = self.claimed.iter().filter(is_shared).cloned().collect();
        let found = links.found.iter().filter(|link| {
            !self.claimed.contains(link) && **link != self.node && self.is_led_to_by(link)
        });
        let own = self.claimed.iter().filter(|link| {
            // Without udev's links (in a container, say) its word counts, where it is clear.
            self.is_led_to_by(link) || (!exists(link) && !self.shared.contains(link))
        });
        self.own = own.chain(found).cloned().collect();
    }

    /// Whether this is the path of its node, or of a link to it.
    pub(crate) fn is_at(&self, path: &str) -> bool {
        self.node == path
            || self.is_led_to_by(path)
            || (!exists(path) && self.own.iter().any(|link| link == path))
    }

    /// Whether a path is the node, or leads there now.
    fn is_led_to_by(&self, path: &str) -> bool {
        let mut path = PathBuf::from(path);
        for _ in 0..MAX_LINKS {
            if path == Path::new(&self.node) {
                return true;
            }
            match fs::read_link(&path) {
                Ok(target) => path = joined(&path, &target),
                Err(_) => break,
            }
        }
        // A node of somebody's own, or a way through folders that are links.
        self.number.is_some_and(|number| {
            fs::metadata(&path)
                .is_ok_and(|data| data.file_type().is_char_device() && data.rdev() == number)
        })
    }

    /// Whether udev has the link for this device, although it may lead to another one.
    pub(crate) fn claims(&self, link: &str) -> bool {
        self.claimed.iter().any(|claimed| claimed == link)
    }

    /// Whether udev has the link for another device as well.
    pub(crate) fn shares(&self, link: &str) -> bool {
        self.shared.iter().any(|shared| shared == link)
    }

    /// A link that udev has for another device as well, if there is one.
    pub(crate) fn shared(&self) -> Option<&str> {
        self.shared.first().map(String::as_str)
    }

    /// Whether a path to this device is to be kept as the user wrote it: a link that a service can follow, and not the
    /// node, whose number may change with the next boot.
    pub(crate) fn keeps(&self, path: &str) -> bool {
        path.starts_with('/')
            && !HIDDEN.iter().any(|folder| path.starts_with(folder))
            && self.is_link(path)
    }

    fn is_link(&self, path: &str) -> bool {
        path != self.node
            && (fs::read_link(path).is_ok() || self.own.iter().any(|link| link == path))
    }

    /// The link to it with this name: its path, the part of it below the folder of nodes, or its last part.
    pub(crate) fn called(&self, text: &str) -> Option<&str> {
        let mut links = self.own.iter().map(String::as_str);
        links.find(|link| is_called(link, text))
    }

    /// Whether udev has a link with this name for it, wherever it leads.
    pub(crate) fn claims_called(&self, text: &str) -> bool {
        self.claimed.iter().any(|link| is_called(link, text))
    }

    /// The last parts of its links, and of those that lead to another device.
    pub(crate) fn last_parts(&self) -> impl Iterator<Item = &str> {
        let links = self.own.iter().chain(&self.claimed);
        links.filter_map(|link| link.rsplit('/').next())
    }

    /// The best stable link in a folder: the shortest, as udev keeps old, longer names beside the new ones.
    pub(crate) fn stable_link_in(&self, folder: &str) -> Option<&str> {
        self.stable_link(|link| link.starts_with(folder))
    }

    /// A stable link of an administrator's rule: one that udev has, in none of these folders.
    pub(crate) fn stable_link_of_rule(&self, folders: &[&str]) -> Option<&str> {
        let is_usual = |link: &str| folders.iter().any(|folder| link.starts_with(folder));
        self.stable_link(|link| self.claims(link) && !is_usual(link))
    }

    /// Any stable link.
    pub(crate) fn any_stable_link(&self) -> Option<&str> {
        self.stable_link(|_| true)
    }

    fn stable_link(&self, is_wanted: impl Fn(&str) -> bool) -> Option<&str> {
        let links = self.own.iter().map(String::as_str);
        links
            .filter(|link| !self.shares(link) && is_wanted(link))
            .min_by_key(|link| (link.len(), *link))
    }
}

fn is_called(link: &str, text: &str) -> bool {
    // "by-id/usb-..." is short for what lies in /dev/input.
    let below = link.splitn(4, '/').nth(3);
    link == text || below == Some(text) || link.rsplit('/').next() == Some(text)
}

fn exists(path: &str) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// The target of a link, with ".." resolved.
fn joined(link: &Path, target: &Path) -> PathBuf {
    let folder = link.parent().unwrap_or(Path::new("/"));
    let mut path = PathBuf::new();
    for part in folder.join(target).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::CurDir => {}
            part => path.push(part),
        }
    }
    path
}

#[cfg(test)]
impl Names {
    /// The names of a device that does not exist.
    pub(crate) fn new(node: &str, links: &[&str]) -> Self {
        let links: Vec<_> = links.iter().map(|link| (*link).to_owned()).collect();
        Self {
            node: node.to_owned(),
            own: links.clone(),
            claimed: links,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Two devices that share a link, in a folder that stands for /dev/input.
    struct Twins {
        folder: tempfile::TempDir,
        names: [Names; 2],
    }

    impl Twins {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let path = |name: &str| utf8(folder.path().join(name));
            fs::create_dir(path("by-id")).expect("a folder");
            let names = ["event3", "event4"].map(|node| {
                fs::write(path(node), "").expect("a file");
                let own = format!("by-path/{node}");
                Names::new(&path(node), &[&path("by-id/kbd"), &path(&own)])
            });
            Self { folder, names }
        }

        fn path(&self, name: &str) -> String {
            utf8(self.folder.path().join(name))
        }

        fn settled(mut self) -> Self {
            let mut links = Links::default();
            find_links(self.folder.path(), 1, &mut links.found);
            for link in self.names.iter().flat_map(|names| &names.claimed) {
                *links.claims.entry(link.clone()).or_default() += 1;
            }
            for names in &mut self.names {
                names.settle(&links);
            }
            self
        }
    }

    #[test]
    fn a_link_is_whose_it_leads_to() {
        let twins = Twins::new();
        symlink("../event4", twins.path("by-id/kbd")).expect("a link");
        let twins = twins.settled();
        let link = twins.path("by-id/kbd");
        let [first, second] = &twins.names;
        assert!(!first.is_at(&link) && second.is_at(&link));
        // It does not last: by-path does.
        assert!(second.shares(&link));
        let folder = twins.path("by-id/");
        assert_eq!(second.stable_link_in(&folder), None);
        for (names, node) in [(first, "event3"), (second, "event4")] {
            let own = twins.path(&format!("by-path/{node}"));
            assert_eq!(names.any_stable_link(), Some(&*own));
            assert!(names.is_at(&own) && names.is_link(&own));
        }
        assert_eq!(first.called("kbd"), None);
        assert_eq!(second.called("kbd"), Some(&*link));
    }

    #[test]
    fn missing_link_of_two_devices_belongs_to_none() {
        let twins = Twins::new().settled();
        let link = twins.path("by-id/kbd");
        for names in &twins.names {
            assert!(!names.is_at(&link) && names.claims(&link));
            assert!(names.called("kbd").is_none() && names.claims_called("kbd"));
        }
    }

    #[test]
    fn links_by_others_count() {
        let twins = Twins::new();
        symlink("event3", twins.path("ducky")).expect("a link");
        symlink("../ducky", twins.path("by-id/evsieve")).expect("a link");
        let twins = twins.settled();
        let [first, second] = &twins.names;
        for name in ["ducky", "by-id/evsieve"] {
            let link = twins.path(name);
            assert!(first.is_at(&link) && first.is_link(&link), "{link}");
            assert!(!second.is_at(&link) && second.called(&link).is_none());
        }
        assert_eq!(
            first.stable_link_in(&twins.path("by-id/")),
            Some(&*twins.path("by-id/evsieve"))
        );
        // udev does not know it: it was not made by a rule.
        assert_eq!(first.stable_link_of_rule(&[&twins.path("by-")]), None);
        assert!(!first.is_link(&twins.path("event3")));
    }

    #[test]
    fn one_that_udev_has_by_a_rule_is_known() {
        let names = Names::new("/e3", &["/dev/input/by-path/x", "/dev/input/ducky"]);
        let usual = ["/dev/input/by-id/", "/dev/input/by-path/"];
        assert_eq!(names.stable_link_of_rule(&usual), Some("/dev/input/ducky"));
        for text in ["/dev/input/ducky", "ducky"] {
            assert_eq!(names.called(text), Some("/dev/input/ducky"));
        }
        assert_eq!(names.called("by-path/x"), Some("/dev/input/by-path/x"));
    }

    #[test]
    fn the_shortest_link_is_the_new_one() {
        let old = "/dev/input/by-id/usb-made-by-somebody-mouse";
        let names = Names::new("/e3", &[old, "/dev/input/by-id/usb-mouse"]);
        let best = names.stable_link_in("/dev/input/by-id/");
        assert_eq!(best, Some("/dev/input/by-id/usb-mouse"));
        assert_eq!(names.stable_link_in("/dev/dri/by-path/"), None);
    }
}
