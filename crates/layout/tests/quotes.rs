// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The check of documents finds each kind of quote that leads nowhere, and nothing in true ones.

use layout::quotes::Quotable;
use layout::sources::Sources;

/// Checks a document `docs/a.md` in a small repository; what is found, as texts.
fn check(document: &str) -> Vec<String> {
    let mut quotable = Quotable::default();
    for path in [
        "docs",
        "docs/a.md",
        "docs/b.md",
        "src",
        "src/gpu",
        "src/gpu/region.rs",
        "README.md",
    ] {
        quotable.paths.insert(path.into());
    }
    let mut code = Sources::default();
    code.insert(
        "tests/a.rs",
        "fn a_guest_draws() {} fn a_guest_draws_twice() {}",
    );
    quotable.add_code(&code);
    quotable.foreign.insert("name_of_others".to_owned());
    let mut documents = Sources::default();
    documents.insert("docs/a.md", document);
    documents.insert("docs/b.md", "# The `B`, and its title\n");
    let found = quotable.check(&documents);
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn true_quotes_are_not_found() {
    let found = check(
        "# Title\n`src/gpu/region.rs`, `src/gpu/`, `src/gpu/*`, `b.md`, `a_guest_draws`, `tests::a_guest_draws_*`,\n\
         `name_of_others`, `/usr/lib/x`, `vhost-user-gpu@.service`, [one](b.md), [two](b.md#the-b-and-its-title),\n\
         [three](../README.md), [four](#title), [five](https://example.org/a#b), `some/other`\n\
         ```text\n`src/gone.rs` `a_test_in_a_block_of_code`\n```\n",
    );
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn missing_paths_are_found() {
    for quote in ["src/gpu/gone.rs", "src/gone", "src/gone/*", "gone/file.rs"] {
        let found = check(&format!("\n`{quote}`\n"));
        assert_eq!(
            found,
            [format!(
                "docs/a.md:2: [quote] There is no `{quote}`. Name the file that there is."
            )]
        );
    }
}

#[test]
fn missing_names_are_found() {
    for quote in ["a_guest_sleeps", "tests::a_guest_sleeps", "a_host_draws_*"] {
        let found = check(&format!("`{quote}`"));
        assert_eq!(
            found,
            [format!(
                "docs/a.md:1: [quote] Nothing in the code is named `{quote}`. Name what there is."
            )]
        );
    }
}

#[test]
fn links_that_lead_nowhere_are_found() {
    assert_eq!(
        check("[one](gone.md) and [two](b.md#gone)"),
        [
            "docs/a.md:1: [quote] The link leads to docs/gone.md, which is not there.",
            "docs/a.md:1: [quote] docs/b.md has no heading for \"#gone\".",
        ]
    );
}
