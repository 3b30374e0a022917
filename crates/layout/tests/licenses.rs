// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files without their line of licences are found.

use layout::licenses::check;
use layout::sources::Sources;

#[test]
fn only_the_exact_first_line_counts() {
    let mut sources = Sources::default();
    let line = "// SPDX-License-Identifier: Apache-2.0 OR MIT\n";
    sources.insert("src/good.rs", &format!("{line}//! A module.\n"));
    sources.insert("src/none.rs", "//! A module.\n");
    sources.insert("src/late.rs", &format!("//! A module.\n{line}"));
    sources.insert("src/other.rs", &line.replace("MIT", "GPL-2.0-only"));
    let found = check("Apache-2.0 OR MIT", &sources);
    let files: Vec<_> = found.iter().map(|found| found.key.as_str()).collect();
    assert_eq!(files, ["src/late.rs", "src/none.rs", "src/other.rs"]);
    assert_eq!(
        found[1].to_string(),
        "src/none.rs:1: [license] the first line is not \
         \"// SPDX-License-Identifier: Apache-2.0 OR MIT\": insert it"
    );
}
