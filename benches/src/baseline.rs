// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The baseline: the work no backend can avoid, in a process of its own. One copy of the pixels out of the
//! guest's memory, and one write of them to the display's socket.

use std::fs::File;
use std::io::{IoSlice, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::Context as _;
use frontend::Memory;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use vm_memory::{Bytes as _, FileOffset, GuestAddress, GuestMemoryMmap};

use crate::workload::{Batch, Sample, Workload};

/// The command line's word for this process.
pub(crate) const WORD: &str = "baseline";
/// Bytes of an UPDATE message before its pixels.
const HEAD: usize = 32;

/// The child's part: serves orders on standard input until that is closed; pixels go to standard
/// output.
///
/// # Errors
/// If it was not started by [`Baseline::start`].
pub(crate) fn serve(memory: &Path, size: usize) -> anyhow::Result<()> {
    let file = File::options().read(true).write(true).open(memory)?;
    let range = (GuestAddress(0), size, Some(FileOffset::new(file, 0)));
    let guest: GuestMemoryMmap = GuestMemoryMmap::from_ranges_with_files([range])?;
    let mut orders = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let display = std::io::stdout().as_fd().try_clone_to_owned()?;
    let mut image = vec![0; size];
    let mut order = [0; 16];
    while orders.read_exact(&mut order).is_ok() {
        let [copied, sent] = [0, 8].map(|at| {
            let word = order.get(at..).and_then(|rest| rest.first_chunk());
            word.map_or(0, |word| u64::from_ne_bytes(*word)) as usize
        });
        let pixels = image.get_mut(..copied).context("an order for too much")?;
        guest.read_slice(pixels, GuestAddress(0))?;
        let pixels = image.get(..sent).context("an order for too much")?;
        send(&display, &[0; HEAD], pixels)?;
        orders.write_all(&[0; 8])?;
    }
    Ok(())
}

/// One blocking call, unless the kernel stops in the middle.
fn send(display: &OwnedFd, mut head: &[u8], mut pixels: &[u8]) -> anyhow::Result<()> {
    while !head.is_empty() || !pixels.is_empty() {
        let pieces = [IoSlice::new(head), IoSlice::new(pixels)];
        let mut none = SendAncillaryBuffer::default();
        let sent = sendmsg(display, &pieces, &mut none, SendFlags::NOSIGNAL)?;
        let of_head = sent.min(head.len());
        head = head.get(of_head..).unwrap_or_default();
        pixels = pixels.get(sent - of_head..).unwrap_or_default();
    }
    Ok(())
}

/// The parent's part.
#[derive(Debug)]
pub(crate) struct Baseline {
    child: Child,
    orders: UnixStream,
    display: UnixStream,
    buffer: Vec<u8>,
    memory: Memory,
    copied: u64,
    sent: u64,
    value: u8,
}

impl Baseline {
    /// A process that copies and sends as many bytes for each piece of work.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn start(program: &Path, copied: u64, sent: u64) -> anyhow::Result<Self> {
        let size = copied.max(sent).max(4096).next_multiple_of(4096);
        let memory = Memory::with_size(size)?;
        let file = match memory.regions().first() {
            Some(region) => region.fd.as_raw_fd(),
            None => anyhow::bail!("no memory"),
        };
        let (orders, theirs) = UnixStream::pair()?;
        let (display, pixels) = UnixStream::pair()?;
        let child = Command::new(program)
            .arg(WORD)
            .arg(format!("/proc/{}/fd/{file}", std::process::id()))
            .arg(size.to_string())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(OwnedFd::from(pixels)))
            .spawn()
            .context("cannot start the baseline")?;
        Ok(Self {
            child,
            orders,
            display,
            // As large as the message, as that of the other programs' display.
            buffer: vec![0; HEAD + sent as usize],
            memory,
            copied,
            sent,
            value: 0,
        })
    }
}

impl Workload for Baseline {
    fn pids(&self) -> Vec<u32> {
        vec![self.child.id()]
    }

    fn batch(&mut self, batch: Batch) -> anyhow::Result<Vec<Sample>> {
        batch.run(|| {
            self.value = self.value.wrapping_add(1);
            let base = 1 << 30;
            self.memory.fill(base, self.value, self.copied as usize)?;
            let start = Instant::now();
            let words = [self.copied, self.sent].map(u64::to_ne_bytes);
            self.orders.write_all(words.as_flattened())?;
            self.display.read_exact(&mut self.buffer)?;
            self.orders.read_exact(&mut [0; 8])?;
            Ok(Sample {
                latency: start.elapsed(),
                bytes: HEAD as u64 + self.sent,
            })
        })
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        // Fails only where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
