// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--socket-path` and `--fd`, in all their forms.

use std::fs::{self, File};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use conventions::SOCKET_PATH_MAX;
use frontend::{FrontendReq, Session};
use rustix::process::Signal;

use super::{CONVENTIONS, RELIED_ON, refused, refuses};
use crate::outcome::{Flaw, Seen, fails, not_tried};
use crate::point::Point;
use crate::trial::{Form, Trial, connect, path_option, sockets_beside};

pub(super) const POINTS: &[Point] = &[
    Point::required(
        "conventions/socket-path",
        CONVENTIONS,
        "With --socket-path=PATH the program listens on a Unix stream socket at exactly PATH, and serves the front-end \
         that connects.",
        socket_path,
    ),
    Point::required(
        "conventions/fd",
        CONVENTIONS,
        "With --fd=FDNUM the program serves the front-end on that descriptor, connected or listening.",
        either_fd,
    ),
    Point::recommended(
        "conventions/fd-connected",
        CONVENTIONS,
        "The socket of --fd may be connected, under any number, as libvirt passes it.",
        connected_fd,
    ),
    Point::recommended(
        "conventions/fd-listening",
        CONVENTIONS,
        "The socket of --fd may be a listening one, as systemd and systemd-vmspawn pass it.",
        listening_fd,
    ),
    Point::required(
        "conventions/socket-both",
        CONVENTIONS,
        "--socket-path and --fd exclude each other: with both the program fails at its start.",
        both,
    ),
    Point::recommended(
        "conventions/socket-neither",
        RELIED_ON,
        "Without --socket-path and --fd there is no socket: the program fails at its start.",
        neither,
    ),
    Point::recommended(
        "conventions/fd-not-open",
        CONVENTIONS,
        "With --fd of a descriptor that is not open the program fails at its start.",
        fd_not_open,
    ),
    Point::recommended(
        "conventions/fd-not-a-socket",
        CONVENTIONS,
        "With --fd of a file the program fails at its start.",
        fd_not_a_socket,
    ),
    Point::recommended(
        "conventions/fd-malformed",
        CONVENTIONS,
        "With --fd of what is no number the program fails at its start.",
        fd_malformed,
    ),
    Point::recommended(
        "conventions/socket-path-missing-folder",
        CONVENTIONS,
        "With --socket-path in a folder that does not exist the program fails at its start.",
        missing_folder,
    ),
    Point::recommended(
        "conventions/socket-path-too-long",
        CONVENTIONS,
        "With a --socket-path longer than a socket's address the program fails at its start, and listens at no other path.",
        too_long,
    ),
    Point::recommended(
        "conventions/socket-path-stale",
        CONVENTIONS,
        "A socket at PATH that nobody listens on any more, as after SIGKILL, does not keep the program from starting.",
        stale,
    ),
    Point::recommended(
        "conventions/socket-path-foreign-file",
        CONVENTIONS,
        "A file at PATH that is no socket is not removed; the program fails at its start.",
        foreign_file,
    ),
    Point::recommended(
        "conventions/socket-path-live",
        CONVENTIONS,
        "A socket at PATH that another process listens on is not taken away from it; the program fails at its start.",
        live,
    ),
    Point::recommended(
        "conventions/socket-removed",
        CONVENTIONS,
        "The socket that the program made is gone after SIGTERM.",
        removed,
    ),
];

/// A question of a front-end, and its answer.
fn is_served(session: &mut Session) -> Result<u64, Flaw> {
    Ok(session.get_u64(FrontendReq::GET_FEATURES)?)
}

fn served_in(trial: &Trial, form: Form) -> Result<u64, Flaw> {
    let mut served = trial.serve_in(form)?;
    served.started.first_answer(&mut served.session)
}

fn socket_path(trial: &Trial) -> Seen {
    let mut started = trial.start(Form::Path)?;
    let path = trial.socket_path();
    // Before the front-end connects: some remove the socket once it has.
    let is_there = || -> frontend::Result<Option<()>> {
        let found = sockets_beside(&path);
        Ok((!found.is_empty() || started.backend.end()?.is_some()).then_some(()))
    };
    // A program that makes none is told of below.
    let _ = trial.deadline.until("a socket", is_there);
    let found = sockets_beside(&path);
    if !found.is_empty() && !found.contains(&path) {
        let found: Vec<_> = found
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        return fails(format!("it listens at {} instead", found.join(", ")));
    }
    let mut session = started.session(trial)?;
    let features = is_served(&mut session)?;
    Ok(format!("served, features {features:#x}"))
}

fn either_fd(trial: &Trial) -> Seen {
    let mut served = trial.serve_in(Form::Connected(7))?;
    // The other half is for the other form.
    served.session.channel.limit = trial.left() / 2;
    let Err(connected) = served.started.first_answer(&mut served.session) else {
        return Ok("served on a connected socket".into());
    };
    drop(served);
    match served_in(trial, Form::Listening(7)) {
        Ok(_) => Ok("served on a listening socket".into()),
        Err(Flaw::NotTried(_)) => Err(connected),
        Err(flaw) => Err(flaw),
    }
}

/// libvirt passes what number is free; 0 to 2 are the standard streams.
fn connected_fd(trial: &Trial) -> Seen {
    has_fd(trial)?;
    for number in [3, 42] {
        served_in(trial, Form::Connected(number))?;
    }
    Ok("served on descriptors 3 and 42".into())
}

fn listening_fd(trial: &Trial) -> Seen {
    has_fd(trial)?;
    served_in(trial, Form::Listening(3))?;
    Ok("served on descriptor 3".into())
}

/// A point about an option says nothing of a program that does not have it.
fn has_fd(trial: &Trial) -> Result<(), Flaw> {
    match either_fd(trial) {
        Ok(_) => Ok(()),
        Err(flaw @ (Flaw::Unfinished(_) | Flaw::CheckFailed(_))) => Err(flaw),
        Err(_) => not_tried("it serves no --fd"),
    }
}

fn has_path(trial: &Trial) -> Result<(), Flaw> {
    let mut started = trial.start(Form::Path)?;
    match started.session(trial) {
        Ok(_) => Ok(()),
        Err(flaw @ (Flaw::Unfinished(_) | Flaw::CheckFailed(_))) => Err(flaw),
        Err(_) => not_tried("it serves no --socket-path"),
    }
}

fn both(trial: &Trial) -> Seen {
    has_path(trial)?;
    let path = trial.folder().join("socket/both");
    let (_ours, theirs) = UnixStream::pair()?;
    let launch = trial.launch_at(&path).arg("--fd=7").fd(7, theirs);
    refuses(trial, launch, "with both")
}

fn neither(trial: &Trial) -> Seen {
    match has_path(trial) {
        Err(Flaw::NotTried(_)) => has_fd(trial).map_err(|flaw| match flaw {
            Flaw::NotTried(_) => Flaw::NotTried("it serves neither --socket-path nor --fd".into()),
            other => other,
        })?,
        path => path?,
    }
    refuses(trial, trial.launch(), "with neither")
}

fn fd_not_open(trial: &Trial) -> Seen {
    has_fd(trial)?;
    refuses(trial, trial.launch().arg("--fd=99"), "--fd=99")
}

fn fd_not_a_socket(trial: &Trial) -> Seen {
    has_fd(trial)?;
    let file = File::open(trial.disk())?;
    let launch = trial.launch().arg("--fd=7").fd(7, file);
    refuses(trial, launch, "a file as --fd")
}

fn fd_malformed(trial: &Trial) -> Seen {
    has_fd(trial)?;
    let mut seen = String::new();
    for word in ["--fd=x", "--fd=", "--fd=-1", "--fd=99999999999"] {
        seen = refuses(trial, trial.launch().arg(word), word)?;
    }
    Ok(seen)
}

fn missing_folder(trial: &Trial) -> Seen {
    has_path(trial)?;
    let path = trial.folder().join("missing/socket");
    refuses(trial, trial.launch_at(&path), "in a missing folder")
}

fn too_long(trial: &Trial) -> Seen {
    has_path(trial)?;
    let folder = trial.folder().join("long");
    fs::create_dir(&folder)?;
    let missing = (SOCKET_PATH_MAX + 2).saturating_sub(folder.as_os_str().len() + 1);
    let path = folder.join("x".repeat(missing.max(1)));
    let length = path.as_os_str().len();
    let mut backend = trial.launch_at(&path).spawn()?;
    let seen = refused(trial, &mut backend, &format!("a path of {length} bytes"));
    match sockets_beside(&path).first() {
        Some(made) => fails(format!("it makes {} of {length} bytes", made.display())),
        None => seen,
    }
}

fn stale(trial: &Trial) -> Seen {
    has_path(trial)?;
    let path = trial.folder().join("socket/stale");
    drop(UnixListener::bind(&path)?);
    // Another thread may have forked meanwhile: its child has the socket until it executes its program.
    let is_stale = || Ok(UnixStream::connect(&path).is_err().then_some(()));
    trial.deadline.until("a stale socket", is_stale)?;
    let mut backend = trial.launch_at(&path).spawn()?;
    let stream = connect_at(trial, &mut backend, &path)?;
    let mut session = Session::new(stream);
    session.channel.limit = trial.left();
    is_served(&mut session)?;
    Ok("it serves at the path".into())
}

/// At this path only: another socket lies in the folder.
fn connect_at(
    trial: &Trial,
    backend: &mut crate::process::Backend,
    path: &Path,
) -> Result<UnixStream, Flaw> {
    for other in sockets_beside(path) {
        if other != path {
            fs::remove_file(other)?;
        }
    }
    connect(backend, path, &trial.deadline)
}

fn foreign_file(trial: &Trial) -> Seen {
    has_path(trial)?;
    let path = trial.folder().join("socket/file");
    fs::write(&path, "precious")?;
    let mut backend = trial.launch_at(&path).spawn()?;
    let seen = refused(trial, &mut backend, "a file at the path");
    match fs::read_to_string(&path) {
        Ok(text) if text == "precious" => seen,
        _ => fails("it removes or replaces a file that is no socket"),
    }
}

fn live(trial: &Trial) -> Seen {
    has_path(trial)?;
    let path = trial.folder().join("socket/live");
    let listener = UnixListener::bind(&path)?;
    let before = fs::symlink_metadata(&path)?;
    let mut backend = trial.launch_at(&path).spawn()?;
    let seen = refused(trial, &mut backend, "a live socket at the path");
    let same = |after: &fs::Metadata| {
        use std::os::unix::fs::MetadataExt as _;
        after.ino() == before.ino() && after.file_type().is_socket()
    };
    if !fs::symlink_metadata(&path).as_ref().is_ok_and(same) {
        return fails("it replaces the socket of a process that listens");
    }
    drop(listener);
    seen
}

fn removed(trial: &Trial) -> Seen {
    let path = trial.socket_path();
    let mut backend = trial.bare(Vec::<String>::new());
    backend.args = trial.launch().args;
    let mut backend = backend.arg(path_option(&path)).spawn()?;
    if connect(&mut backend, &path, &trial.deadline).is_err() {
        return not_tried("it serves no --socket-path");
    }
    backend.signal(Signal::TERM)?;
    match backend.wait_end(&trial.deadline)? {
        None => not_tried("it does not end on SIGTERM"),
        Some(end) => match sockets_beside(&path)[..] {
            [] => Ok(format!("{end}, and the socket is gone")),
            _ => fails(format!("{end}, and the socket is left")),
        },
    }
}
