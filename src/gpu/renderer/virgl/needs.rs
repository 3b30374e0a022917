//! What OpenGL needs of the system: its libraries, its description of the host, the render node, and
//! what they do with them. docs/sandbox.md says what was seen to be called, and what is taken from
//! the drivers' sources.

use std::path::{Path, PathBuf};

use crate::backend::{Argument, Call, Needs};

/// Where libraries, drivers and their settings lie, on all distributions that are known to us.
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
    // What the processors and the GPUs are.
    "/sys/devices",
    "/sys/dev/char",
    "/sys/class/drm",
    "/sys/bus/pci/devices",
];
const PROCESS: [&str; 4] = ["/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat"];
/// Where Mesa finds out which nodes there are; only that of the VM is for opening.
const NODES: &str = "/dev/dri";
/// By which whoever starts the program names other places of libraries: folders or files, separated
/// by colons.
const PLACES: [&str; 6] = [
    "LD_LIBRARY_PATH",
    "LIBGL_DRIVERS_PATH",
    "GBM_BACKENDS_PATH",
    "__EGL_VENDOR_LIBRARY_DIRS",
    "__EGL_VENDOR_LIBRARY_FILENAMES",
    "DRIRC_CONFIGDIR",
];
/// The folder for compiled shaders. Mesa's other choices, in the user's home, are shared with what
/// else runs as that user: what one guest left there would be executed for another.
const SHADERS: &str = "MESA_SHADER_CACHE_DIR";

/// Buffers of shared memory as dmabufs, for drivers that draw by software.
const UDMABUF: &str = "/dev/udmabuf";

/// The ioctls of one kind of file: all that have its letter.
const fn ioctls(letter: u8) -> Call {
    let kind = (letter as u32) << 8;
    Call::with(libc::SYS_ioctl, Argument::masked(1, 0xff00, kind))
}

const CALLS: &[Call] = &[
    // Files: shaders that are kept, drivers' settings, what /sys tells.
    Call::any(libc::SYS_pread64),
    Call::any(libc::SYS_pwrite64),
    Call::any(libc::SYS_preadv),
    Call::any(libc::SYS_pwritev),
    Call::any(libc::SYS_getdents64),
    Call::any(libc::SYS_statfs),
    Call::any(libc::SYS_fstatfs),
    Call::any(libc::SYS_ftruncate),
    Call::any(libc::SYS_fallocate),
    Call::any(libc::SYS_fadvise64),
    Call::any(libc::SYS_fsync),
    Call::any(libc::SYS_fdatasync),
    Call::any(libc::SYS_flock),
    Call::with(libc::SYS_fcntl, Argument::is(1, libc::F_SETLK as u32)),
    Call::with(libc::SYS_fcntl, Argument::is(1, libc::F_SETLKW as u32)),
    Call::with(libc::SYS_fcntl, Argument::is(1, libc::F_OFD_SETLK as u32)),
    Call::with(libc::SYS_fcntl, Argument::is(1, libc::F_OFD_SETLKW as u32)),
    Call::any(libc::SYS_mkdirat),
    Call::any(libc::SYS_renameat2),
    Call::any(libc::SYS_unlinkat),
    #[cfg(target_arch = "x86_64")]
    Call::any(libc::SYS_mkdir),
    #[cfg(target_arch = "x86_64")]
    Call::any(libc::SYS_rename),
    #[cfg(target_arch = "x86_64")]
    Call::any(libc::SYS_renameat),
    // Which the crate libc does not name there.
    #[cfg(target_arch = "aarch64")]
    Call::any(38),
    #[cfg(target_arch = "x86_64")]
    Call::any(libc::SYS_unlink),
    #[cfg(target_arch = "x86_64")]
    Call::any(libc::SYS_getdents),
    // Events between threads, and of fences.
    Call::any(libc::SYS_pipe2),
    Call::any(libc::SYS_dup3),
    Call::any(libc::SYS_epoll_create1),
    Call::any(libc::SYS_membarrier),
    Call::any(libc::SYS_get_robust_list),
    // Who and where we are.
    Call::any(libc::SYS_getuid),
    Call::any(libc::SYS_geteuid),
    Call::any(libc::SYS_getgid),
    Call::any(libc::SYS_getegid),
    Call::any(libc::SYS_getppid),
    Call::any(libc::SYS_uname),
    Call::any(libc::SYS_sysinfo),
    Call::any(libc::SYS_getcpu),
    Call::any(libc::SYS_getrusage),
    Call::any(libc::SYS_times),
    Call::with(libc::SYS_prctl, Argument::is(0, libc::PR_GET_NAME as u32)),
    // Threads say on which processors and how urgently they run. Mesa names them by their numbers,
    // and others of the same user could be named as well, so it is told no, as by the units. It goes
    // on without.
    Call::any(libc::SYS_sched_setaffinity).fails(libc::EPERM),
    Call::any(libc::SYS_sched_setscheduler).fails(libc::EPERM),
    Call::any(libc::SYS_setpriority).fails(libc::EPERM),
    Call::any(libc::SYS_sched_getparam),
    Call::any(libc::SYS_sched_getscheduler),
    Call::any(libc::SYS_sched_get_priority_min),
    Call::any(libc::SYS_sched_get_priority_max),
    Call::any(libc::SYS_getpriority),
    // Whether two descriptors are of one GPU (KCMP_FILE).
    Call::with(libc::SYS_kcmp, Argument::is(2, 0)),
    // DRM, dma-buf, sync_file, udmabuf.
    ioctls(b'd'),
    ioctls(b'b'),
    ioctls(b'>'),
    ioctls(b'u'),
];

/// What is needed on the render node `node`, or without any.
pub(super) fn needs(node: Option<&Path>) -> Needs {
    let paths = |fixed: &[&str]| fixed.iter().map(PathBuf::from).collect::<Vec<_>>();
    let mut read = paths(&LIBRARIES);
    read.extend(paths(&PROCESS));
    for place in PLACES {
        let value = std::env::var_os(place).unwrap_or_default();
        read.extend(std::env::split_paths(&value).filter(|path| path.is_absolute()));
    }
    let mut devices = paths(&[UDMABUF]);
    devices.extend(node.map(Path::to_owned));
    Needs {
        read,
        list: paths(&[NODES]),
        write: std::env::var_os(SHADERS)
            .map(PathBuf::from)
            .into_iter()
            .collect(),
        devices,
        calls: CALLS.to_vec(),
        threads: true,
        code: true,
    }
}
