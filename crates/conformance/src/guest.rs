// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A guest with a driver that gives the device the smallest of its requests.

use frontend::features::{PROTOCOL_FEATURES, VERSION_1};
use frontend::{Memory, Offer, Queue, Session};

use crate::outcome::{Flaw, fails, not_tried};
use crate::trial::{Served, Started, Trial};
use crate::work::{Request, Work};

/// Entries of its virtqueues, unless a point wants others.
pub(crate) const QUEUE_SIZE: u16 = 64;
/// Guest physical memory: low memory, and more beyond 4 GiB, as a PC has.
const REGIONS: [(u64, u64); 2] = [(0, 1 << 20), (1 << 32, 4 << 20)];

/// A guest, and the program that serves it.
#[derive(Debug)]
pub(crate) struct Guest {
    /// First, so that the front-end leaves before the program is killed.
    pub(crate) session: Session,
    pub(crate) started: Started,
    pub(crate) memory: Memory,
    pub(crate) queues: Vec<Queue>,
    pub(crate) work: Work,
    /// The features that the driver takes.
    pub(crate) features: u64,
    /// The region that buffers lie in.
    pub(crate) part: usize,
    /// Memory that was plugged in: buffers lie in it instead.
    pub(crate) plugged: Option<Memory>,
    next: u32,
    /// Requests that were done, by all drivers.
    done: u32,
    /// The requests, and the memory that their buffers lie in.
    pending: Vec<(Request, Memory)>,
}

impl Guest {
    /// Whether a request of the trial's device is known.
    pub(crate) fn knows(trial: &Trial) -> bool {
        trial.facts.device_type.and_then(Work::of).is_some()
    }

    /// How many virtqueues a driver of the trial's device sets up.
    pub(crate) fn queues_of(trial: &Trial) -> Result<u32, Flaw> {
        Ok(work_of(trial)?.queues)
    }

    /// Starts the program and negotiates; no virtqueue runs.
    pub(crate) fn connect(trial: &Trial) -> Result<Self, Flaw> {
        Self::connect_with(trial, QUEUE_SIZE, |session| {
            Ok(session.negotiate(Session::usual_protocol_features())?)
        })
    }

    /// As [`Guest::connect`], with virtqueues of this size, and negotiated in this way.
    pub(crate) fn connect_with(
        trial: &Trial,
        size: u16,
        negotiate: impl FnOnce(&mut Session) -> Result<Offer, Flaw>,
    ) -> Result<Self, Flaw> {
        let work = work_of(trial)?;
        Self::set_up(work, trial.serve()?, size, negotiate)
    }

    /// A guest on a connection that is there, negotiated in the usual way.
    pub(crate) fn on(trial: &Trial, served: Served) -> Result<Self, Flaw> {
        let usual =
            |session: &mut Session| Ok(session.negotiate(Session::usual_protocol_features())?);
        Self::set_up(work_of(trial)?, served, QUEUE_SIZE, usual)
    }

    fn set_up(
        work: Work,
        served: Served,
        size: u16,
        negotiate: impl FnOnce(&mut Session) -> Result<Offer, Flaw>,
    ) -> Result<Self, Flaw> {
        let Served {
            mut session,
            started,
        } = served;
        let offer = negotiate(&mut session)?;
        let memory = Memory::new(&REGIONS)?;
        let queues = (0..work.queues).map(|_| Queue::new(&memory, size, false));
        let queues = queues.collect::<frontend::Result<_>>()?;
        Ok(Self {
            session,
            started,
            memory,
            queues,
            work,
            features: offer.features & (VERSION_1 | PROTOCOL_FEATURES),
            part: 0,
            plugged: None,
            next: 0,
            done: 0,
            pending: Vec::new(),
        })
    }

    /// Starts the program and all virtqueues.
    pub(crate) fn start(trial: &Trial) -> Result<Self, Flaw> {
        let mut guest = Self::connect(trial)?;
        guest.run()?;
        Ok(guest)
    }

    /// The driver begins: features, memory, virtqueues.
    pub(crate) fn run(&mut self) -> Result<(), Flaw> {
        self.session.set_features(self.features)?;
        self.session.set_memory(&self.memory)?;
        self.start_queues()
    }

    pub(crate) fn start_queues(&mut self) -> Result<(), Flaw> {
        for (index, queue) in (0..).zip(&self.queues) {
            self.session.start_queue(index, queue)?;
        }
        Ok(self.session.settle()?)
    }

    /// Stops all virtqueues.
    pub(crate) fn stop_queues(&mut self) -> Result<(), Flaw> {
        for index in 0..self.work.queues {
            self.session.stop_queue(index)?;
        }
        Ok(())
    }

    /// The virtqueue that gets the requests.
    pub(crate) fn queue(&mut self) -> &mut Queue {
        &mut self.queues[self.work.ring as usize]
    }

    /// Where buffers lie.
    fn place(&self) -> (Memory, usize) {
        match &self.plugged {
            Some(memory) => (memory.clone(), 0),
            None => (self.memory.clone(), self.part),
        }
    }

    /// Puts requests into the virtqueue, and does not show them to the device.
    pub(crate) fn add(&mut self, count: u32) -> Result<(), Flaw> {
        for _ in 0..count {
            let (memory, part) = self.place();
            let (buffers, answer) = self.work.buffers(self.next, &memory, part)?;
            let head = self.queue().add(&buffers)?;
            let request = self.work.request(head, self.next, answer);
            self.pending.push((request, memory));
            self.next += 1;
        }
        Ok(())
    }

    /// As [`Guest::add`], one request by a table of descriptors.
    pub(crate) fn add_indirect(&mut self) -> Result<(), Flaw> {
        let (memory, part) = self.place();
        let (buffers, answer) = self.work.buffers(self.next, &memory, part)?;
        let head = self.queue().add_indirect(&buffers)?;
        let request = self.work.request(head, self.next, answer);
        self.pending.push((request, memory));
        self.next += 1;
        Ok(())
    }

    /// Waits until all requests are done, and looks at their answers.
    pub(crate) fn finish(&mut self) -> Result<(), Flaw> {
        while !self.pending.is_empty() {
            let limit = self.session.channel.left();
            let place = format!(
                "of virtqueue {}, after {} requests that were done",
                self.work.ring, self.done
            );
            let used = self.queue().wait_used(limit);
            let used = used.map_err(|error| error.waiting_in(place))?;
            let Some(at) = self.pending.iter().position(|(it, _)| it.head == used.head) else {
                return fails(format!("it uses descriptor {} a second time", used.head));
            };
            let (request, memory) = self.pending.remove(at);
            if let Some(problem) = self.work.problem(&request, used, &memory)? {
                return fails(problem);
            }
            self.done += 1;
        }
        Ok(())
    }

    /// Has so many requests done.
    pub(crate) fn work(&mut self, count: u32) -> Result<(), Flaw> {
        self.add(count)?;
        self.queue().submit()?;
        self.finish()
    }

    /// The driver forgets all, as one that is loaded again.
    pub(crate) fn begin_anew(&mut self) -> Result<(), Flaw> {
        self.pending.clear();
        for queue in &mut self.queues {
            queue.reset()?;
        }
        Ok(())
    }

    /// The front-end disconnects.
    pub(crate) fn leave(self) -> Started {
        self.started
    }
}

fn work_of(trial: &Trial) -> Result<Work, Flaw> {
    let device_type = trial.device_type()?;
    match Work::of(device_type) {
        Some(work) => Ok(work),
        None => not_tried(format!(
            "no request to a device of type {device_type} is known"
        )),
    }
}
