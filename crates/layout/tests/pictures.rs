// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pictures of imports in documents are drawn from the code, and found where they differ from it.

use std::path::Path;

use layout::modules::Modules;
use layout::pictures::{check, draw};
use layout::rules::{House, Layers};
use layout::sources::Sources;

const HOUSE: House = House {
    crates: &[("house", "src/lib.rs")],
    max_lines: 500,
    layers: &[Layers {
        of: "house",
        rows: &[&["upper"], &["lower"]],
    }],
    exceptions: &[],
};

const TRUE: &str =
    "# Title\n<!-- imports within house -->\n```text\nupper -> lower\nlower\n```\nmore\n";

fn modules() -> Modules {
    let mut sources = Sources::default();
    sources.insert("src/lib.rs", "mod upper;\nmod lower;\n");
    sources.insert("src/upper.rs", "use crate::lower::Lower;\n");
    sources.insert("src/lower.rs", "pub struct Lower;\n");
    Modules::parse(&sources, HOUSE.crates).expect("the planted code does not parse")
}

#[test]
fn true_pictures_stay() {
    let modules = modules();
    assert_eq!(draw(&HOUSE, &modules, TRUE), TRUE);
    assert_eq!(check(&HOUSE, &modules, Path::new("a.md"), TRUE), None);
}

#[test]
fn missing_and_wrong_pictures_are_found_and_drawn() {
    let modules = modules();
    for wrong in [
        "# Title\n<!-- imports within house -->\nmore\n",
        "# Title\n<!-- imports within house -->\n```text\nupper\nlower -> upper\n```\nmore\n",
        "# Title\n<!-- imports within house -->\n```text\n```\nmore\n",
    ] {
        assert_eq!(draw(&HOUSE, &modules, wrong), TRUE);
        let found =
            check(&HOUSE, &modules, Path::new("a.md"), wrong).map(|found| found.to_string());
        assert_eq!(
            found.as_deref().map(|text| text.contains("[picture]")),
            Some(true),
            "{found:?}"
        );
    }
}
