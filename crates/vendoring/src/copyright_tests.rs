// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;

fn a_crate(folder: &Path, name: &str, license: &str, files: &[(&str, &str)]) -> Crate {
    let one = Crate {
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        license: Some(license.to_owned()),
        authors: vec!["Ann <ann@example.org>".to_owned()],
    };
    let folder = folder.join(one.folder());
    fs::create_dir(&folder).unwrap();
    for (name, text) in files {
        fs::write(folder.join(name), text).unwrap();
    }
    one
}

#[test]
fn expressions_are_translated() {
    let translated = |expression| translate(expression).unwrap().0;
    assert_eq!(translated("MIT OR Apache-2.0"), "Expat or Apache-2.0");
    assert_eq!(translated("Apache-2.0/MIT"), "Apache-2.0 or Expat");
    assert_eq!(
        translated("(MIT OR Apache-2.0) AND Unicode-3.0"),
        "Expat or Apache-2.0, and Unicode-3.0"
    );
    assert_eq!(
        translated("Apache-2.0 WITH LLVM-exception OR MIT"),
        "Apache-2.0 with LLVM exception or Expat"
    );
}

#[test]
fn unknown_licence_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let one = a_crate(folder.path(), "closed", "Proprietary", &[]);
    let error = format!("{:#}", paragraphs(folder.path(), &[one]).unwrap_err());
    assert!(
        error.contains("closed 1.0.0: Proprietary: no text"),
        "{error}"
    );
}

#[test]
fn holders_and_texts_are_those_of_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let mit = "The MIT License\n\nCopyright (c) 2015 Bob\n\nPermission is hereby granted, free of charge, to all.\n\nNo warranty.\n";
    let crates = [
        a_crate(folder.path(), "bob", "MIT", &[("LICENSE", mit)]),
        a_crate(
            folder.path(),
            "ann",
            "Apache-2.0",
            &[("LICENSE", "Copyright [yyyy] [name]\n")],
        ),
    ];
    let text = paragraphs(folder.path(), &crates).unwrap();
    let expected = "
Files: vendor/bob-1.0.0/*
Copyright: 2015 Bob
License: Expat

Files: vendor/ann-1.0.0/*
Copyright: Ann <ann@example.org>
License: Apache-2.0

License: Apache-2.0
 On Debian systems the text of this licence is in /usr/share/common-licenses/Apache-2.0.

License: Expat
 Permission is hereby granted, free of charge, to all.
 .
 No warranty.
";
    assert_eq!(text, expected);
}

#[test]
fn text_that_two_licences_begin_with_comes_from_a_file_of_the_right_one() {
    let folder = tempfile::tempdir().unwrap();
    let start = "Permission to use, copy, modify, and/or distribute this software";
    let isc = format!("{start} (ISC)\n");
    let zero = format!("{start} (0BSD)\n");
    let crates = [
        a_crate(
            folder.path(),
            "one",
            "0BSD OR MIT",
            &[
                ("LICENSE-0BSD", &zero),
                (
                    "LICENSE-MIT",
                    "Permission is hereby granted, free of charge\n",
                ),
            ],
        ),
        a_crate(folder.path(), "two", "ISC", &[("LICENSE", &isc)]),
    ];
    let text = paragraphs(folder.path(), &crates).unwrap();
    assert!(
        text.contains(&format!("License: 0BSD\n {start} (0BSD)\n")),
        "{text}"
    );
    assert!(
        text.contains(&format!("License: ISC\n {start} (ISC)\n")),
        "{text}"
    );
}
