// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Compressed parts of Debian's kernel packages: which compression, and what it holds.

use std::io::{Read as _, Write as _};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, ensure};

/// Compressions that Debian uses: suffix of file names, magic number, unpacker.
const COMPRESSIONS: [(&str, &[u8], &str); 3] = [
    (".xz", b"\xfd7zXZ\0", "xz"),
    (".zst", b"\x28\xb5\x2f\xfd", "zstd"),
    (".gz", b"\x1f\x8b", "gzip"),
];

/// A file name without the suffix of its compression.
#[must_use]
pub fn stem(name: &str) -> &str {
    COMPRESSIONS
        .iter()
        .find_map(|(suffix, _, _)| name.strip_suffix(suffix))
        .unwrap_or(name)
}

/// Whether `content` begins as one of the compressions does.
#[must_use]
pub fn is_compressed(content: &[u8]) -> bool {
    unpacker(content).is_some()
}

/// Decompresses `content`.
///
/// # Errors
///
/// If the compression is unknown, its program is not installed, or the data are broken.
pub fn decompress(content: &[u8]) -> anyhow::Result<Vec<u8>> {
    let (plain, status) = unpack(content)?;
    ensure!(status.success(), "the compressed data are broken: {status}");
    Ok(plain)
}

/// As [`decompress`], for compressed data that other data follow.
///
/// # Errors
///
/// As [`decompress`]; broken data are an error only if they begin so.
pub fn decompress_prefix(content: &[u8]) -> anyhow::Result<Vec<u8>> {
    // A status other than 0 may only say that other data follow.
    let (plain, status) = unpack(content)?;
    ensure!(
        !plain.is_empty(),
        "the compressed data are broken: {status}"
    );
    Ok(plain)
}

fn unpack(content: &[u8]) -> anyhow::Result<(Vec<u8>, ExitStatus)> {
    let unpacker = unpacker(content).context("compressed in an unknown way")?;
    let mut child = Command::new(unpacker)
        .args(["-d", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {unpacker}: install the package {unpacker}"))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let mut plain = Vec::new();
    let read = std::thread::scope(|scope| {
        scope.spawn(|| {
            // The unpacker may end before it has read what follows its own data.
            stdin.map(|mut stdin| stdin.write_all(content))
        });
        stdout.map(|mut stdout| stdout.read_to_end(&mut plain))
    });
    read.transpose()
        .with_context(|| format!("cannot read from {unpacker}"))?;
    Ok((plain, child.wait()?))
}

fn unpacker(content: &[u8]) -> Option<&'static str> {
    COMPRESSIONS
        .iter()
        .find(|(_, magic, _)| content.starts_with(magic))
        .map(|(_, _, unpacker)| *unpacker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decompression_covers_each_format() {
        // More than a pipe holds.
        let plain: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        let folder = tempfile::tempdir().expect("tempdir");
        let file = folder.path().join("file");
        std::fs::write(&file, &plain).expect("write");
        for (_, _, program) in COMPRESSIONS {
            let mut command = Command::new(program);
            let mut packed = crate::run::run(command.arg("-c").arg(&file))
                .expect(program)
                .stdout;
            assert!(is_compressed(&packed), "{program}");
            assert!(decompress(&packed).expect(program) == plain, "{program}");
            assert!(
                decompress(&packed[..packed.len() / 2]).is_err(),
                "{program}"
            );
            packed.extend(b"length");
            assert!(decompress(&packed).is_err(), "{program}");
            let prefix = decompress_prefix(&packed).expect(program);
            assert!(prefix == plain, "{program}");
        }
    }

    #[test]
    fn plain_data_is_refused() {
        assert!(!is_compressed(b"\x7fELF"));
        assert!(decompress(b"\x7fELF").is_err());
        assert!(decompress_prefix(b"\x1f\x8bbroken").is_err());
    }

    #[test]
    fn compression_suffixes_are_removed_and_no_others() {
        assert_eq!(stem("evdev.ko.xz"), "evdev.ko");
        assert_eq!(stem("evdev.ko.zst"), "evdev.ko");
        assert_eq!(stem("evdev.ko"), "evdev.ko");
    }
}
