// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the sandbox must allow for OpenGL: files, devices and system calls. docs/sandbox.md says which
//! were observed, and which are taken from the drivers' sources.

use std::path::{Path, PathBuf};

use crate::backend::{SandboxPolicy, SyscallArgument, SyscallRule};

/// Folders and files of libraries, drivers and their settings, on all known distributions.
const LIBRARIES: [&str; 18] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/gnu/store",
    "/run/opengl-driver",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/ld-nix.so.preload",
    "/etc/drirc",
    "/etc/egl",
    "/etc/glvnd",
    "/etc/localtime",
    // Properties of processors and GPUs.
    "/sys/devices",
    "/sys/dev/char",
    "/sys/class/drm",
    "/sys/bus/pci/devices",
];
const PROCESS: [&str; 4] = ["/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat"];
/// Where Mesa lists render nodes. It may open the VM's only.
const NODES: &str = "/dev/dri";
/// Environment variables with more folders or files of libraries, separated by colons.
const PATH_VARIABLES: [&str; 6] = [
    "LD_LIBRARY_PATH",
    "LIBGL_DRIVERS_PATH",
    "GBM_BACKENDS_PATH",
    "__EGL_VENDOR_LIBRARY_DIRS",
    "__EGL_VENDOR_LIBRARY_FILENAMES",
    "DRIRC_CONFIGDIR",
];
/// Environment variable with the folder of compiled shaders. Mesa's default, in the user's home, is shared
/// with other processes of the user: code that one guest left there would be executed for another.
const SHADER_CACHE: &str = "MESA_SHADER_CACHE_DIR";

/// Makes dmabufs of shared memory, for software rendering.
const UDMABUF: &str = "/dev/udmabuf";

/// All ioctls with one type letter (Linux, Documentation/userspace-api/ioctl/ioctl-number.rst).
const fn ioctls(letter: u8) -> SyscallRule {
    let kind = (letter as u32) << 8;
    SyscallRule::with(libc::SYS_ioctl, SyscallArgument::masked(1, 0xff00, kind))
}

const CALLS: &[SyscallRule] = &[
    // Files: the shader cache, drivers' settings, /sys.
    SyscallRule::any(libc::SYS_pread64),
    SyscallRule::any(libc::SYS_pwrite64),
    SyscallRule::any(libc::SYS_preadv),
    SyscallRule::any(libc::SYS_pwritev),
    SyscallRule::any(libc::SYS_getdents64),
    SyscallRule::any(libc::SYS_statfs),
    SyscallRule::any(libc::SYS_fstatfs),
    SyscallRule::any(libc::SYS_ftruncate),
    SyscallRule::any(libc::SYS_fallocate),
    SyscallRule::any(libc::SYS_fadvise64),
    SyscallRule::any(libc::SYS_fsync),
    SyscallRule::any(libc::SYS_fdatasync),
    SyscallRule::any(libc::SYS_flock),
    SyscallRule::with(
        libc::SYS_fcntl,
        SyscallArgument::is(1, libc::F_SETLK as u32),
    ),
    SyscallRule::with(
        libc::SYS_fcntl,
        SyscallArgument::is(1, libc::F_SETLKW as u32),
    ),
    SyscallRule::with(
        libc::SYS_fcntl,
        SyscallArgument::is(1, libc::F_OFD_SETLK as u32),
    ),
    SyscallRule::with(
        libc::SYS_fcntl,
        SyscallArgument::is(1, libc::F_OFD_SETLKW as u32),
    ),
    SyscallRule::any(libc::SYS_mkdirat),
    SyscallRule::any(libc::SYS_renameat2),
    SyscallRule::any(libc::SYS_unlinkat),
    #[cfg(target_arch = "x86_64")]
    SyscallRule::any(libc::SYS_mkdir),
    #[cfg(target_arch = "x86_64")]
    SyscallRule::any(libc::SYS_rename),
    #[cfg(target_arch = "x86_64")]
    SyscallRule::any(libc::SYS_renameat),
    // renameat, which the crate libc lacks there.
    #[cfg(target_arch = "aarch64")]
    SyscallRule::any(38),
    #[cfg(target_arch = "x86_64")]
    SyscallRule::any(libc::SYS_unlink),
    #[cfg(target_arch = "x86_64")]
    SyscallRule::any(libc::SYS_getdents),
    // Events between threads, and fences.
    SyscallRule::any(libc::SYS_pipe2),
    SyscallRule::any(libc::SYS_dup3),
    SyscallRule::any(libc::SYS_epoll_create1),
    SyscallRule::any(libc::SYS_membarrier),
    SyscallRule::any(libc::SYS_get_robust_list),
    // Properties of the process and the host.
    SyscallRule::any(libc::SYS_getuid),
    SyscallRule::any(libc::SYS_geteuid),
    SyscallRule::any(libc::SYS_getgid),
    SyscallRule::any(libc::SYS_getegid),
    SyscallRule::any(libc::SYS_getppid),
    SyscallRule::any(libc::SYS_uname),
    SyscallRule::any(libc::SYS_sysinfo),
    SyscallRule::any(libc::SYS_getcpu),
    SyscallRule::any(libc::SYS_getrusage),
    SyscallRule::any(libc::SYS_times),
    SyscallRule::with(
        libc::SYS_prctl,
        SyscallArgument::is(0, libc::PR_GET_NAME as u32),
    ),
    // Mesa sets the processors and the priority of its threads. These calls could also name threads of
    // the user's other processes, so they fail, as in the units. Mesa continues without.
    SyscallRule::any(libc::SYS_sched_setaffinity).fails(libc::EPERM),
    SyscallRule::any(libc::SYS_sched_setscheduler).fails(libc::EPERM),
    SyscallRule::any(libc::SYS_setpriority).fails(libc::EPERM),
    SyscallRule::any(libc::SYS_sched_getparam),
    SyscallRule::any(libc::SYS_sched_getscheduler),
    SyscallRule::any(libc::SYS_sched_get_priority_min),
    SyscallRule::any(libc::SYS_sched_get_priority_max),
    SyscallRule::any(libc::SYS_getpriority),
    // Compares the files of two descriptors (KCMP_FILE).
    SyscallRule::with(libc::SYS_kcmp, SyscallArgument::is(2, 0)),
    // DRM, dma-buf, sync_file, udmabuf.
    ioctls(b'd'),
    ioctls(b'b'),
    ioctls(b'>'),
    ioctls(b'u'),
];

/// The policy for the render node `node`, or without one for software rendering.
pub(super) fn sandbox_policy(node: Option<&Path>) -> SandboxPolicy {
    let paths = |fixed: &[&str]| fixed.iter().map(PathBuf::from).collect::<Vec<_>>();
    let mut read = paths(&LIBRARIES);
    read.extend(paths(&PROCESS));
    for variable in PATH_VARIABLES {
        let value = std::env::var_os(variable).unwrap_or_default();
        read.extend(std::env::split_paths(&value).filter(|path| path.is_absolute()));
    }
    let mut devices = paths(&[UDMABUF]);
    devices.extend(node.map(Path::to_owned));
    SandboxPolicy {
        read,
        list: paths(&[NODES]),
        write: std::env::var_os(SHADER_CACHE)
            .map(PathBuf::from)
            .into_iter()
            .collect(),
        devices,
        calls: CALLS.to_vec(),
        threads: true,
        code: true,
    }
}

/// The policy for the render node `node`, without OpenGL, which alone makes code.
pub(in crate::gpu::renderer) fn node_policy(node: &Path) -> SandboxPolicy {
    SandboxPolicy {
        write: Vec::new(),
        code: false,
        ..sandbox_policy(Some(node))
    }
}
