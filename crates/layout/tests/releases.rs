// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files of another version or date are found.

use layout::releases::{CHANGELOG, DEBIAN, RPM, SECURITY, check};
use layout::sources::Sources;

fn files(changed: Option<(&str, &str)>) -> Sources {
    let mut sources = Sources::default();
    let all = [
        (
            CHANGELOG,
            "# Changelog\n\n## 1.2.3 - 2026-11-28\n\n## 1.2.2 - 2026-01-01\n",
        ),
        (
            DEBIAN,
            "vhostctl (1.2.3-1) unstable\n\n  * Text.\n\n -- Who <a@b>  Sat, 28 Nov 2026 12:00:00 +0000\n\n\
             vhostctl (1.2.2-1) unstable\n\n  * Text.\n\n -- Who <a@b>  Thu, 01 Jan 2026 12:00:00 +0000\n",
        ),
        (
            RPM,
            "%{!?upstream_version: %global upstream_version 1.2.3}\n%changelog\n* Sat Nov 28 2026 Who <a@b> - 1.2.3-1\n",
        ),
        (SECURITY, "| 1.2.x | yes, by the next release |\n"),
    ];
    for (name, text) in all {
        let changed = changed.filter(|(file, _)| *file == name);
        sources.insert(name, changed.map_or(text, |(_, text)| text));
    }
    sources
}

#[test]
fn each_file_has_the_version_and_its_date() {
    assert!(check("1.2.3", &files(None)).is_empty());
    // Debian's older entry does not count.
    assert_eq!(check("1.2.2", &files(None)).len(), 1);
    for (file, text) in [
        (CHANGELOG, "## 1.2.3\n"),
        (CHANGELOG, "## 1.2.3 - 2026-13-01\n"),
        (CHANGELOG, "## 1.2.4 - 2026-11-28\n## 1.2.3 - 2026-11-28\n"),
        (SECURITY, "| 1.1.x | yes |\n"),
    ] {
        let found = check("1.2.3", &files(Some((file, text))));
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert_eq!(found[0].key, file);
    }
    let found = check(
        "1.2.3",
        &files(Some((CHANGELOG, "## 1.2.3 - 2026-11-27\n"))),
    );
    let files: Vec<_> = found.iter().map(|found| found.key.as_str()).collect();
    assert_eq!(files, [DEBIAN, RPM]);
    assert_eq!(
        found[0].to_string(),
        "packaging/debian/changelog: [release] \", 27 Nov 2026 \" is missing, as CHANGELOG.md has it for 1.2.3"
    );
}
