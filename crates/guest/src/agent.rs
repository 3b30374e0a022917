// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Serves commands over a serial port, see [`guest::protocol`].

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Context as _;
use guest::protocol::{Answer, Message, READY};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::commands::Session;

/// Reads requests from `port` forever and runs each in a thread of its own.
pub(crate) fn serve(port: &str) -> anyhow::Result<Infallible> {
    let tty = OpenOptions::new()
        .read(true)
        .write(true)
        .open(port)
        .context("cannot open it")?;
    let mut settings = tcgetattr(&tty).context("cannot read its settings")?;
    settings.make_raw();
    tcsetattr(&tty, OptionalActions::Now, &settings).context("cannot make it raw")?;

    let requests = BufReader::new(tty.try_clone().context("cannot share it")?);
    let port = Arc::new(Mutex::new(tty));
    let session = Arc::new(Session::default());
    send(&port, READY);
    for line in requests.lines() {
        let line = line.context("cannot read from it")?;
        let mut words = line.split_whitespace();
        let Some(id) = words.next().and_then(|word| word.parse().ok()) else {
            continue;
        };
        let command: Vec<String> = words.map(str::to_owned).collect();
        let (port, session) = (Arc::clone(&port), Arc::clone(&session));
        thread::spawn(move || {
            let mut output = |text: &str| {
                for text in text.lines() {
                    send(
                        &port,
                        Message {
                            id,
                            answer: Answer::Line(text.to_owned()),
                        },
                    );
                }
            };
            let answer = match session.run(&command, &mut output) {
                Ok(()) => Answer::Ok,
                Err(error) => Answer::Error(format!("{error:#}")),
            };
            send(&port, Message { id, answer });
        });
    }
    anyhow::bail!("end of file")
}

/// Writes one line; a host that has gone is no reason to stop.
fn send(port: &Mutex<File>, message: impl std::fmt::Display) {
    let line = format!("{message}\n");
    let mut port = port.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = port.write_all(line.as_bytes()) {
        eprintln!("guest agent: cannot answer: {error}");
    }
}
