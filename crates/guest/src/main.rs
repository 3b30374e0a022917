// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The program of the small test guest: its init, its agent and its commands.
//!
//! As PID 1 it mounts what a Linux system needs, loads the modules that the
//! initramfs brought and serves commands over the second serial port. On a guest with an init of its
//! own, `guest serve PORT` does that alone. Called with
//! a command as its arguments, on the guest or on the host, it runs that command
//! and ends; `guest evdev-list` describes the input devices of any machine.

mod agent;
mod boot;
mod commands;
mod display;
mod recording;

use std::process::ExitCode;

use anyhow::Context as _;

/// The port of the agent: the first serial port carries the kernel's messages.
const AGENT_PORT: &str = "/dev/ttyS1";

fn main() -> ExitCode {
    if std::process::id() == 1 {
        let Err(error) = run_init();
        eprintln!("guest init: {error:#}");
        // PID 1 must not end: the kernel would panic and hide the message.
        loop {
            std::thread::park();
        }
    }
    let command: Vec<String> = std::env::args().skip(1).collect();
    if let [verb, port] = &command[..] {
        if verb == "serve" {
            let Err(error) = agent::serve(port);
            eprintln!("guest: the agent on {port} ended: {error:#}");
            return ExitCode::FAILURE;
        }
    }
    let session = commands::Session::default();
    match session.run(&command, &mut |line| println!("{line}")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_init() -> anyhow::Result<std::convert::Infallible> {
    boot::mount_all().context("cannot mount the kernel's file systems")?;
    boot::load_modules().context("cannot load the modules of the initramfs")?;
    agent::serve(AGENT_PORT).with_context(|| format!("the agent on {AGENT_PORT} ended"))
}
