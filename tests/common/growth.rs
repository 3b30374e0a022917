// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checks that a program does not grow.

use frontend::Program;

/// What a program holds: resident memory in KiB, and open descriptors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holdings {
    pub resident: u64,
    pub descriptors: usize,
}

impl Holdings {
    /// What `program` holds now.
    pub(crate) fn of(program: &Program) -> Self {
        Self {
            resident: status_kib(program, "VmRSS:"),
            descriptors: program.open_descriptors().unwrap(),
        }
    }

    /// Asserts that `program` holds no more than this, but for `kib` KiB.
    #[track_caller]
    pub(crate) fn assert_not_grown(self, program: &Program, kib: u64) {
        let now = Self::of(program);
        assert_eq!(now.descriptors, self.descriptors, "open descriptors");
        let grown = now.resident.saturating_sub(self.resident);
        assert!(grown < kib, "{grown} KiB more, {} before", self.resident);
    }
}

/// The most memory that `program` ever had resident, in KiB.
pub(crate) fn peak_resident(program: &Program) -> u64 {
    status_kib(program, "VmHWM:")
}

/// How many pages `program` was given so far without a read of a disk (`minflt` of proc_pid_stat(5)).
pub(crate) fn minor_faults(program: &Program) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", program.pid())).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').nth(7).unwrap().parse().unwrap()
}

fn status_kib(program: &Program, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
