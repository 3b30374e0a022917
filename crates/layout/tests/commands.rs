// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Blocks of commands without a test are found.

use layout::commands::{Trial, Tried, check};
use layout::sources::Sources;

const DOCUMENT: &str = "docs/one.md";
const TEST: &str = "tests/run.rs";

fn tried(begins: &'static str, trial: Trial) -> Tried {
    Tried {
        document: DOCUMENT,
        begins,
        trial,
    }
}

fn messages(table: &[Tried], document: &str) -> Vec<String> {
    let mut documents = Sources::default();
    documents.insert(DOCUMENT, document);
    let mut code = Sources::default();
    code.insert(TEST, "#[test]\nfn it_runs() {}\n\nfn helper() {}\n");
    let found = check(table, &documents, &code);
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn each_block_has_a_line_in_the_table() {
    let document =
        "# One\n\n```sh\nmake a\nmake b\n```\n\n```text\nmake c\n```\n\n```sh\nmake a\n```\n";
    let run = tried("make a", Trial::Test(TEST, "it_runs"));
    let left_out = tried("make a", Trial::None("takes hours"));
    assert!(messages(&[run, left_out], document).is_empty());
    assert_eq!(
        messages(&[run], document),
        [
            "docs/one.md:13: [command] The block \"make a\" is not in the table of crates/layout/src/documented.rs. \
             Name the test that runs it."
        ]
    );
    let gone = tried("make d", Trial::None("takes hours"));
    assert_eq!(
        messages(&[run, left_out, gone], document),
        ["docs/one.md: [command] No block begins with \"make d\"."]
    );
    for name in ["helper", "it_run", "other"] {
        let missing = tried("make a", Trial::Test(TEST, name));
        assert_eq!(
            messages(&[run, missing], document),
            [format!(
                "docs/one.md: [command] tests/run.rs has no test {name}."
            )]
        );
    }
}
