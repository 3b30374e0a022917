// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Compiles the list of system calls to a BPF program (Linux's Documentation/userspace-api/seccomp_filter.rst):
//! a binary search for the number, then the cases of that call. The kernel runs the program for each number
//! when it is installed, so its length costs start-up time.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::offset_of;

use libc::seccomp_data;
use seccompiler::{BackendError, BpfProgram, TargetArch, sock_filter};

use super::policy::{Action, SyscallArgument};

/// `file_setattr`, the last call of Linux 6.18, the newest that this was tested with. Numbers from 424 on are
/// the same on all architectures. A newer call fails as on an older kernel, and a C library falls back to the
/// call before.
pub(super) const NEWEST: u32 = 469;

/// The numbers of x32 on x86-64. No other architecture has numbers this large.
const X32: u32 = 0x4000_0000;

/// An action, and the argument for which it is taken; without one, always.
pub(super) type Case = (Option<SyscallArgument>, Action);

/// Compiles the list: the first case that matches decides; without a match, `unlisted` does.
///
/// # Errors
/// For an unknown architecture.
pub(super) fn compile(
    list: &BTreeMap<u32, Vec<Case>>,
    unlisted: Action,
) -> Result<BpfProgram, BackendError> {
    let processor = match TargetArch::try_from(std::env::consts::ARCH)? {
        TargetArch::x86_64 => 0xc000_003e,
        TargetArch::aarch64 => 0xc000_00b7,
        TargetArch::riscv64 => 0xc000_00f3,
    };
    let cases = |number: u32| match list.get(&number) {
        Some(cases) => &cases[..],
        None if (NEWEST + 1..X32).contains(&number) => &[(None, Action::Errno(libc::ENOSYS))],
        None => &[],
    };
    // Numbers at which the cases may change.
    let mut starts = BTreeSet::from([0, NEWEST + 1, X32]);
    for number in list.keys() {
        starts.extend([*number, number.saturating_add(1)]);
    }
    let mut ranges: Vec<(u32, &[Case])> = Vec::new();
    for start in starts {
        let cases = cases(start);
        if ranges.last().is_none_or(|(_, before)| *before != cases) {
            ranges.push((start, cases));
        }
    }
    let mut program = vec![
        load(offset_of!(seccomp_data, arch)),
        jump(libc::BPF_JEQ, processor, 1, 0),
        ret(unlisted),
        load(offset_of!(seccomp_data, nr)),
    ];
    program.extend(look_up(&ranges, unlisted));
    Ok(program)
}

/// Searches for the range of the loaded number.
fn look_up(ranges: &[(u32, &[Case])], unlisted: Action) -> BpfProgram {
    match ranges {
        [] => Vec::new(),
        [(_, cases)] => decide(cases, unlisted),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let middle = high.first().map_or(0, |(start, _)| *start);
            let (low, high) = (look_up(low, unlisted), look_up(high, unlisted));
            // A conditional jump reaches at most 255 instructions.
            let mut program = match u8::try_from(low.len()) {
                Ok(over) => vec![jump(libc::BPF_JGE, middle, over, 0)],
                Err(_) => vec![
                    jump(libc::BPF_JGE, middle, 0, 1),
                    statement(libc::BPF_JMP | libc::BPF_JA, low.len() as u32),
                ],
            };
            program.extend(low);
            program.extend(high);
            program
        }
    }
}

/// Returns the action of the first case that matches, or `unlisted`.
fn decide(cases: &[Case], unlisted: Action) -> BpfProgram {
    let mut program = Vec::new();
    let mut loaded = None;
    for (argument, action) in cases {
        let Some(argument) = argument else {
            program.push(ret(*action));
            return program;
        };
        if loaded != Some((argument.index, argument.mask)) {
            loaded = Some((argument.index, argument.mask));
            // The lower 32 bits, which come first on all these architectures.
            let size = size_of::<u64>() * usize::from(argument.index);
            program.push(load(offset_of!(seccomp_data, args) + size));
            if argument.mask != u32::MAX {
                program.push(statement(libc::BPF_ALU | libc::BPF_AND, argument.mask));
            }
        }
        program.push(jump(libc::BPF_JEQ, argument.value, 0, 1));
        program.push(ret(*action));
    }
    program.push(ret(unlisted));
    program
}

fn load(offset: usize) -> sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset as u32)
}

fn ret(action: Action) -> sock_filter {
    let action = match action {
        Action::Allow => libc::SECCOMP_RET_ALLOW,
        Action::Errno(errno) => libc::SECCOMP_RET_ERRNO | errno as u32,
        Action::Log => libc::SECCOMP_RET_LOG,
        Action::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
    };
    statement(libc::BPF_RET, action)
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

fn jump(condition: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter {
        jt,
        jf,
        ..statement(libc::BPF_JMP | condition, k)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel does with a program: its answer to a call.
    fn run(program: &[sock_filter], number: u32, processor: u32, arguments: [u64; 6]) -> u32 {
        let mut data = [number, processor, 0, 0].to_vec();
        for argument in arguments {
            data.extend([argument as u32, (argument >> 32) as u32]);
        }
        let (mut value, mut at) = (0, 0);
        // None jumps back.
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let branch = |yes| usize::from(if yes { jt } else { jf });
            match u32::from(code) {
                0x20 => value = data[k as usize / 4],
                0x54 => value &= k,
                0x05 => at += k as usize,
                0x15 => at += branch(value == k),
                0x35 => at += branch(value >= k),
                0x06 => return k,
                other => panic!("{other:#x} is no instruction of ours"),
            }
        }
    }

    fn ours() -> u32 {
        compile(&BTreeMap::new(), Action::KillProcess).unwrap()[1].k
    }

    const ALLOW: u32 = 0x7fff_0000;
    const KILL: u32 = 0x8000_0000;
    const NO_SUCH_CALL: u32 = 0x0005_0000 | libc::ENOSYS as u32;

    #[test]
    fn every_syscall_number_gets_its_action() {
        let allow = |argument| (argument, Action::Allow);
        // Enough of them, and large enough, that jumps have to go further than 255.
        let many = |n: u32| (0..40).map(move |m| allow(Some(SyscallArgument::is(1, n + m))));
        let mut list = BTreeMap::new();
        for number in (0..300).filter(|n| n % 3 != 0) {
            let cases = match number % 7 {
                0 => many(number).collect(),
                1 => vec![(None, Action::Errno(libc::EPERM))],
                2 => vec![
                    (Some(SyscallArgument::is(0, 5)), Action::Errno(libc::EPERM)),
                    allow(Some(SyscallArgument::masked(2, 0xf0, 0x10))),
                ],
                3 => vec![
                    allow(Some(SyscallArgument::lacks(5, 4))),
                    (None, Action::Errno(1)),
                ],
                _ => vec![allow(None)],
            };
            list.insert(number, cases);
        }
        let program = compile(&list, Action::KillProcess).unwrap();
        assert!(program.len() > 1000 && program.len() < 4096);
        let refused = 0x0005_0000 | libc::EPERM as u32;
        for number in 0..NEWEST + 50 {
            let answer = |arguments| run(&program, number, ours(), arguments);
            // The upper half does not count.
            let high = 7 << 32;
            let n = u64::from(number);
            let [one, five, masked, four] = [
                answer([high, n | high, 0, 0, 0, 4]),
                answer([5 | high, n + 39, 0x10, 0, 0, 4]),
                answer([0, n + 40, 0xa1f | high, 0, 0, 4]),
                answer([0, u64::MAX, 0x21, 0, 0, 3]),
            ];
            let all = [one, five, masked, four];
            match (list.contains_key(&number), number % 7) {
                (true, 0) => assert_eq!(all, [ALLOW, ALLOW, KILL, KILL], "{number}"),
                (true, 1) => assert_eq!(all, [refused; 4], "{number}"),
                (true, 2) => assert_eq!(all, [KILL, refused, ALLOW, KILL], "{number}"),
                (true, 3) => assert_eq!(all, [refused, refused, refused, ALLOW], "{number}"),
                (true, _) => assert_eq!(all, [ALLOW; 4], "{number}"),
                (false, _) if number > NEWEST => assert_eq!(all, [NO_SUCH_CALL; 4], "{number}"),
                (false, _) => assert_eq!(all, [KILL; 4], "{number}"),
            }
        }
        for number in [X32, X32 + 1, X32 + 39, u32::MAX] {
            assert_eq!(run(&program, number, ours(), [0; 6]), KILL);
        }
        assert_eq!(run(&program, X32 - 1, ours(), [0; 6]), NO_SUCH_CALL);
        // i386: its numbers are others.
        assert_eq!(run(&program, 1, 0x4000_0003, [0; 6]), KILL);
    }

    /// Whatever would end the process, and nothing else.
    #[test]
    fn unlisted_calls_can_be_logged() {
        let one = SyscallArgument::is(0, 1);
        let list = BTreeMap::from([
            (1, vec![(None, Action::Allow)]),
            (2, vec![(Some(one), Action::Errno(libc::EPERM))]),
        ]);
        let program = compile(&list, Action::Log).unwrap();
        let answer = |number, processor, argument| {
            run(&program, number, processor, [argument, 0, 0, 0, 0, 0])
        };
        const LOG: u32 = 0x7ffc_0000;
        assert_eq!(answer(1, ours(), 0), ALLOW);
        assert_eq!(answer(2, ours(), 1), 0x0005_0000 | libc::EPERM as u32);
        assert_eq!(answer(NEWEST + 1, ours(), 0), NO_SUCH_CALL);
        for (number, processor) in [(2, ours()), (3, ours()), (X32, ours()), (1, 0x4000_0003)] {
            assert_eq!(answer(number, processor, 0), LOG, "{number}");
        }
    }
}
