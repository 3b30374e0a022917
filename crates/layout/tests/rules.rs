// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Each rule of the house finds a breach that is planted for it, and nothing in code that keeps it.

use layout::finding::{Finding, Rule};
use layout::modules::Modules;
use layout::rules::{Exception, House, Layers};
use layout::sources::Sources;

const HOUSE: House = House {
    crates: &[("house", "src/lib.rs")],
    max_lines: 20,
    layers: &[],
    exceptions: &[],
};

fn check_with(house: &House, files: &[(&str, &str)]) -> Vec<Finding> {
    let mut sources = Sources::default();
    for (path, text) in files {
        sources.insert(path, text);
    }
    let modules = Modules::parse(&sources, house.crates).expect("the planted code does not parse");
    house.check(
        &sources,
        &modules,
        &["std".to_owned(), "log".to_owned()].into(),
    )
}

fn check(files: &[(&str, &str)]) -> Vec<Finding> {
    check_with(&HOUSE, files)
}

/// Asserts that there is one finding, and returns its text.
fn only(found: &[Finding], rule: Rule) -> String {
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].rule, rule, "{found:#?}");
    found[0].to_string()
}

const CLEAN: &[(&str, &str)] = &[
    (
        "src/lib.rs",
        "mod upper;\nmod lower;\npub use upper::Upper;\n",
    ),
    (
        "src/upper.rs",
        "use crate::lower::Lower;\npub struct Upper(Lower);\nimpl Upper { fn lower(&self) -> &Lower { &self.0 } }\n",
    ),
    ("src/lower.rs", "pub struct Lower;\nimpl Lower {}\n"),
];

#[test]
fn clean_code_has_no_findings() {
    assert_eq!(check(CLEAN), []);
}

#[test]
fn circles_of_two_modules_are_found() {
    let found = check(&[
        ("src/lib.rs", "mod a;\nmod b;\n"),
        ("src/a.rs", "\nuse super::b::B;\npub struct A(B);\n"),
        ("src/b.rs", "pub struct B;\nfn a() { crate::a::f() }\n"),
    ]);
    let text = only(&found, Rule::Circle);
    assert!(
        text.contains("src/a.rs:2: [circle] In house, a, b import"),
        "{text}"
    );
    assert!(text.contains("b -> a (1x, src/b.rs:2)"), "{text}");
}

#[test]
fn circles_by_way_of_a_third_module_are_found() {
    let found = check(&[
        ("src/lib.rs", "mod a;\nmod b;\nmod c;\n"),
        ("src/a.rs", "mod inner;\n"),
        ("src/a/inner.rs", "use crate::b;\nfn f() -> b::B { b::B }\n"),
        (
            "src/b.rs",
            "pub struct B;\nmacro_rules! m { () => { crate::c::f() } }\n",
        ),
        (
            "src/c.rs",
            "pub fn f() { println!(\"{}\", super::a::NAME) }\n",
        ),
    ]);
    let text = only(&found, Rule::Circle);
    assert!(text.contains("a, b, c import each other"), "{text}");
}

#[test]
fn circles_through_reexports_are_found() {
    let found = check(&[
        (
            "src/lib.rs",
            "mod a;\nmod b;\npub use a::A;\npub use b::*;\n",
        ),
        ("src/a.rs", "use crate::B;\npub struct A(B);\n"),
        ("src/b.rs", "pub struct B;\nuse crate::A;\n"),
    ]);
    let text = only(&found, Rule::Circle);
    assert!(text.contains("a -> b"), "{text}");
}

#[test]
fn imports_by_tests_and_test_doors_are_no_arrows() {
    let found = check(&[
        (
            "src/lib.rs",
            "mod a;\nmod b;\n#[cfg(any(test, feature = \"fuzzing\"))]\nmod door;\n",
        ),
        ("src/a.rs", "use crate::b::B;\npub struct A(B);\n"),
        (
            "src/b.rs",
            "pub struct B;\n#[cfg(test)]\nmod tests { use crate::a::A; }\n#[cfg(test)]\nuse crate::a::A;\n\
             impl B {\n#[cfg(feature = \"fuzzing\")]\nfn a() -> crate::a::A {}\n}\n",
        ),
    ]);
    assert_eq!(found, []);
}

#[test]
fn code_left_out_of_tests_is_product_code() {
    let found = check(&[
        ("src/lib.rs", "mod a;\nmod b;\n"),
        ("src/a.rs", "#[cfg(not(test))]\nuse crate::b::B;\n"),
        (
            "src/b.rs",
            "#[cfg(all(unix, feature = \"virgl\"))]\nuse crate::a::A;\n",
        ),
    ]);
    only(&found, Rule::Circle);
}

#[test]
fn arrows_up_are_found() {
    let house = House {
        layers: &[Layers {
            of: "house",
            rows: &[&["lower"], &["upper"]],
        }],
        ..HOUSE
    };
    let found = check_with(&house, CLEAN);
    let text = only(&found, Rule::Up);
    assert!(
        text.contains("src/upper.rs:1: [up] In house, upper imports from lower"),
        "{text}"
    );
}

#[test]
fn arrows_within_a_row_are_found() {
    let house = House {
        layers: &[Layers {
            of: "house",
            rows: &[&["lower", "upper"]],
        }],
        ..HOUSE
    };
    only(&check_with(&house, CLEAN), Rule::Up);
}

#[test]
fn modules_without_a_layer_and_layers_without_a_module_are_found() {
    let house = House {
        layers: &[Layers {
            of: "house",
            rows: &[&["upper"], &["gone"]],
        }],
        ..HOUSE
    };
    let found = check_with(&house, CLEAN);
    let rules: Vec<_> = found.iter().map(|finding| finding.rule).collect();
    assert_eq!(rules, [Rule::Table, Rule::Table], "{found:#?}");
    assert!(
        found.iter().any(|one| one.key == "house::gone"),
        "{found:#?}"
    );
    assert!(
        found.iter().any(|one| one.key == "house::lower"),
        "{found:#?}"
    );
}

#[test]
fn long_files_are_found() {
    let long = "fn f() {}\n".repeat(21);
    let text = only(&check(&[("src/lib.rs", &long)]), Rule::Length);
    assert!(text.contains("src/lib.rs: [length] 21 lines"), "{text}");
}

#[test]
fn tests_do_not_make_a_file_long() {
    let long = format!(
        "fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}\n",
        "fn f() {}\n".repeat(21)
    );
    assert_eq!(check(&[("src/lib.rs", &long)]), []);
}

#[test]
fn impl_blocks_away_from_the_type_are_found() {
    let found = check(&[
        ("src/lib.rs", "mod device;\n"),
        (
            "src/device/mod.rs",
            "mod queues;\npub struct Gpu;\nimpl Gpu {}\n",
        ),
        (
            "src/device/queues.rs",
            "use super::Gpu;\n\nimpl<'a> Gpu {}\n",
        ),
    ]);
    let text = only(&found, Rule::Impl);
    assert!(
        text.contains("src/device/queues.rs:3: [impl] `Gpu`"),
        "{text}"
    );
}

#[test]
fn impl_blocks_of_traits_and_of_tests_may_be_anywhere() {
    let found = check(&[
        ("src/lib.rs", "mod device;\nmod one;\n"),
        ("src/device.rs", "pub struct Gpu;\n"),
        (
            "src/one.rs",
            "use crate::device::Gpu;\nimpl Clone for Gpu {}\n#[cfg(test)]\nimpl Gpu {}\n",
        ),
    ]);
    assert_eq!(found, []);
}

#[test]
fn types_of_one_name_are_told_apart() {
    let found = check(&[
        ("src/lib.rs", "mod a;\nmod b;\n"),
        ("src/a.rs", "struct State;\nimpl State {}\n"),
        ("src/b.rs", "struct State;\nimpl State {}\n"),
    ]);
    assert_eq!(found, []);
}

#[test]
fn super_super_is_found() {
    let text = concat!(
        "mod a;\n// super::",
        "super in a comment\nuse super::",
        "super::X;\n"
    );
    let text = only(
        &check(&[("src/lib.rs", text), ("src/a.rs", "")]),
        Rule::Super,
    );
    assert!(text.starts_with("src/lib.rs:3: [super]"), "{text}");
}

#[test]
fn modules_named_like_crates_are_found() {
    let found = check(&[("src/lib.rs", "\nmod log;\n"), ("src/log.rs", "")]);
    let text = only(&found, Rule::Name);
    assert!(
        text.starts_with("src/lib.rs:2: [name] house::log"),
        "{text}"
    );
}

#[test]
fn files_from_other_folders_are_found() {
    let found = check(&[
        ("src/lib.rs", "#[path = \"../other/a.rs\"]\nmod a;\n"),
        ("other/a.rs", ""),
    ]);
    let text = only(&found, Rule::Path);
    assert!(text.starts_with("src/lib.rs:2: [path]"), "{text}");
}

#[test]
fn exceptions_leave_out_what_they_name_and_nothing_else() {
    let house = House {
        exceptions: &[Exception {
            rule: Rule::Name,
            key: "house::log",
            reason: "a test",
        }],
        ..HOUSE
    };
    let files: &[(&str, &str)] = &[
        ("src/lib.rs", "mod log;\nmod std;\n"),
        ("src/log.rs", ""),
        ("src/std.rs", ""),
    ];
    let text = only(&check_with(&house, files), Rule::Name);
    assert!(text.contains("house::std"), "{text}");
}

#[test]
fn unused_exceptions_are_found() {
    let house = House {
        exceptions: &[Exception {
            rule: Rule::Length,
            key: "src/lib.rs",
            reason: "a test",
        }],
        ..HOUSE
    };
    let text = only(&check_with(&house, CLEAN), Rule::Exception);
    assert!(text.contains("Remove the exception"), "{text}");
}
