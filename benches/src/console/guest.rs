// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest that is played, on whatever serves its devices.

use std::path::PathBuf;
use std::time::Duration;

use frontend::Memory;
use frontend::gpu::CommandQueue;
use frontend::input::Event;

/// A guest with a GPU, a keyboard and a VNC server, whose driver is played.
pub(super) trait Guest {
    /// The processes that serve it.
    fn pids(&self) -> Vec<u32>;

    /// The VNC server's socket.
    fn vnc(&self) -> PathBuf;

    /// The GPU's control queue.
    fn control(&mut self) -> &mut CommandQueue;

    /// The guest's memory.
    fn memory(&self) -> Memory;

    /// Tells the GPU of all that was pushed.
    ///
    /// # Errors
    /// If the device is gone.
    fn kick(&mut self) -> anyhow::Result<()>;

    /// Waits until the GPU has answered one more command.
    ///
    /// # Errors
    /// If it does not in time.
    fn wait_answer(&mut self) -> anyhow::Result<()>;

    /// The keyboard's next event.
    ///
    /// # Errors
    /// If none comes in time.
    fn next_event(&mut self) -> anyhow::Result<Event>;

    /// Processor time since the last call that playing the guest took in these processes.
    fn take_excess(&mut self) -> Duration;

    /// What the processes have said on stderr.
    fn said(&self) -> String;
}
