// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A message that a document quotes is one that a program or a test says.

use layout::messages::Texts;
use layout::sources::Sources;

const CODE: &str = r#"
const FAILURE: &str = "cannot open {0}: it is \
                       busy; try again";
"#;

/// Checks rows of a table of messages.
fn check(rows: &str) -> Vec<String> {
    let mut code = Sources::default();
    code.insert("src/a.rs", CODE);
    let mut documents = Sources::default();
    let table = format!("| Message | What to do |\n| --- | --- |\n{rows}\n\n| `not a message` |\n");
    documents.insert("docs/a.md", &table);
    let found = Texts::new(&code).check(&documents);
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn true_messages_are_not_found() {
    let found = check(
        "| `cannot open …: it is busy; try again` | run `some thing else` |\n\
         | state `busy` | wait |\n| nothing | look |",
    );
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn message_that_nobody_says_is_found() {
    assert_eq!(
        check("| nothing | |\n| `cannot open …: it is locked` | |"),
        [
            "docs/a.md:4: [quote] No program and no test says \": it is locked\". Quote the message word for word."
        ]
    );
}
