// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A source whose kind is chosen at run time.

use std::io;
use std::os::fd::BorrowedFd;

use crate::backend::{DeviceContext, SandboxPolicy};
use crate::input::device_info::DeviceInfo;
use crate::input::device_state::DeviceState;
use crate::input::protocol::{Bitmap, Event};
use crate::input::source::{EventSource, HostAccess, ReadOutcome, SourceReturn};

impl EventSource for Box<dyn EventSource> {
    fn info(&self) -> &DeviceInfo {
        (**self).info()
    }

    fn label(&self) -> String {
        (**self).label()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        (**self).fd()
    }

    fn listen(&mut self, context: &DeviceContext, token: u16) -> io::Result<()> {
        (**self).listen(context, token)
    }

    fn accept(&mut self) {
        (**self).accept();
    }

    fn keeps_events(&self) -> bool {
        (**self).keeps_events()
    }

    fn read(&mut self, events: &mut Vec<Event>) -> io::Result<ReadOutcome> {
        (**self).read(events)
    }

    fn committed(&mut self) {
        (**self).committed();
    }

    fn state(&self) -> io::Result<DeviceState> {
        (**self).state()
    }

    fn leds(&self) -> io::Result<Bitmap> {
        (**self).leds()
    }

    fn send(&mut self, events: &[Event]) -> io::Result<()> {
        (**self).send(events)
    }

    fn host_access(&self) -> HostAccess {
        (**self).host_access()
    }

    fn grab(&mut self) -> io::Result<()> {
        (**self).grab()
    }

    fn ungrab(&mut self) -> io::Result<()> {
        (**self).ungrab()
    }

    fn return_fd(&self) -> Option<BorrowedFd<'_>> {
        (**self).return_fd()
    }

    fn await_return(&mut self) {
        (**self).await_return();
    }

    fn take_return(&mut self, is_wanted: bool) -> SourceReturn {
        (**self).take_return(is_wanted)
    }

    fn sandbox_policy(&self) -> SandboxPolicy {
        (**self).sandbox_policy()
    }
}
