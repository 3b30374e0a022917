// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Leaves out what Cargo does not read.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use crate::graph::Crate;

const MANIFEST: &str = "Cargo.toml";
const CHECKSUMS: &str = ".cargo-checksum.json";
/// How programs and libraries of Windows, archives of objects, and programs and libraries of Linux begin.
const COMPILED: [&[u8]; 3] = [b"MZ", b"!<arch>\n", b"\x7fELF"];

/// Reduces all crates in `folder` but the `needed` ones to their manifest, and takes what is compiled out of the
/// `needed` ones; returns how many the others are.
///
/// Cargo compares the files of a crate with its checksums only where it builds it, but reads the manifests of all.
pub(crate) fn reduce(folder: &Path, needed: &[Crate]) -> anyhow::Result<usize> {
    let needed: HashSet<String> = needed.iter().map(Crate::folder).collect();
    let mut count = 0;
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let entry = entry?;
        let is_needed = entry
            .file_name()
            .to_str()
            .is_some_and(|name| needed.contains(name));
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let path = entry.path();
        let context = || path.display().to_string();
        if is_needed {
            remove_compiled(&path).with_context(context)?;
        } else {
            reduce_crate(&path).with_context(context)?;
            count += 1;
        }
    }
    Ok(count)
}

/// Tests of some crates have programs of Windows, which nobody can build from this source.
fn remove_compiled(folder: &Path) -> anyhow::Result<()> {
    let path = folder.join(CHECKSUMS);
    let mut checksums: Value = serde_json::from_slice(&fs::read(&path)?)?;
    let files = checksums
        .get_mut("files")
        .and_then(Value::as_object_mut)
        .context("no checksums of files")?;
    let count = files.len();
    for file in files_below(folder)? {
        let mut start = Vec::new();
        File::open(&file)?.take(8).read_to_end(&mut start)?;
        if COMPILED.iter().any(|magic| start.starts_with(magic)) {
            fs::remove_file(&file)?;
            let name = file.strip_prefix(folder)?;
            files.remove(name.to_str().context("a name that is no UTF-8")?);
        }
    }
    if files.len() < count {
        fs::write(&path, checksums.to_string())?;
    }
    Ok(())
}

fn files_below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

fn reduce_crate(folder: &Path) -> anyhow::Result<()> {
    let checksums: Value = serde_json::from_slice(&fs::read(folder.join(CHECKSUMS))?)?;
    let package = checksums
        .get("package")
        .context("no checksum of the crate")?;
    let checksums = serde_json::json!({ "files": {}, "package": package });
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else if entry.file_name() != MANIFEST {
            fs::remove_file(entry.path())?;
        }
    }
    // Cargo asks for a target.
    fs::create_dir(folder.join("src"))?;
    fs::write(folder.join("src/lib.rs"), "")?;
    fs::write(folder.join(CHECKSUMS), checksums.to_string())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(folder: &Path, name: &str) {
        let folder = folder.join(name);
        fs::create_dir_all(folder.join("src")).unwrap();
        fs::create_dir_all(folder.join("lib")).unwrap();
        fs::write(folder.join(MANIFEST), "[package]\n").unwrap();
        fs::write(folder.join("src/lib.rs"), "pub fn f() {}\n").unwrap();
        fs::write(folder.join("lib/import.a"), "!<arch>\n").unwrap();
        let checksums = r#"{"files":{"Cargo.toml":"12"},"package":"34"}"#;
        fs::write(folder.join(CHECKSUMS), checksums).unwrap();
    }

    fn used() -> Crate {
        Crate {
            name: "used".to_owned(),
            version: "1.0.0".to_owned(),
            license: None,
            authors: Vec::new(),
        }
    }

    #[test]
    fn only_manifests_are_left_of_what_is_not_needed() {
        let folder = tempfile::tempdir().unwrap();
        add(folder.path(), "used-1.0.0");
        add(folder.path(), "windows-1.0.0");
        assert_eq!(reduce(folder.path(), &[used()]).unwrap(), 1);
        let read = |name: &str| fs::read_to_string(folder.path().join(name));
        assert_eq!(read("used-1.0.0/src/lib.rs").unwrap(), "pub fn f() {}\n");
        assert_eq!(read("windows-1.0.0/Cargo.toml").unwrap(), "[package]\n");
        assert_eq!(read("windows-1.0.0/src/lib.rs").unwrap(), "");
        assert!(read("windows-1.0.0/lib/import.a").is_err());
        let checksums = read("windows-1.0.0/.cargo-checksum.json").unwrap();
        assert_eq!(checksums, r#"{"files":{},"package":"34"}"#);
    }

    #[test]
    fn compiled_files_are_taken_out_of_what_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        add(folder.path(), "used-1.0.0");
        let used_crate = folder.path().join("used-1.0.0");
        let tests = used_crate.join("tests/data");
        fs::create_dir_all(&tests).unwrap();
        fs::write(tests.join("a.dll"), b"MZ\x90\0").unwrap();
        fs::write(tests.join("b.gz"), b"\x1f\x8b\x08").unwrap();
        fs::write(tests.join("empty"), b"").unwrap();
        let checksums = r#"{"files":{"Cargo.toml":"12","lib/import.a":"1","tests/data/a.dll":"2","tests/data/b.gz":"3"},"package":"34"}"#;
        fs::write(used_crate.join(CHECKSUMS), checksums).unwrap();
        reduce(folder.path(), &[used()]).unwrap();
        assert!(!tests.join("a.dll").exists());
        assert!(!used_crate.join("lib/import.a").exists());
        assert!(tests.join("b.gz").exists() && tests.join("empty").exists());
        let checksums = fs::read_to_string(used_crate.join(CHECKSUMS)).unwrap();
        assert_eq!(
            checksums,
            r#"{"files":{"Cargo.toml":"12","tests/data/b.gz":"3"},"package":"34"}"#
        );
    }
}
