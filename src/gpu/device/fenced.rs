//! Requests that are executed, and answered once the renderer has done what they began.

use std::collections::VecDeque;

use vhost_user_backend::VringT;
use virtio_queue::QueueT;

use super::super::protocol::EncodedResponse;
use super::super::renderer::{Fence, Renderer3d};
use super::queues::complete;
use crate::backend::{Chain, GuestMemory, QueuePass, VirtqueueError, Vring};

/// Most requests that are kept, however large the queue is: each takes memory that is in no budget.
const MAX_REQUESTS: usize = 1024;

struct Request {
    chain: Chain,
    response: EncodedResponse,
    fence: Fence,
}

/// Those of the control queue, in the order in which they are answered.
#[derive(Default)]
pub(super) struct FencedRequests {
    requests: VecDeque<Request>,
    queue: Option<Vring>,
}

impl FencedRequests {
    /// Keeps a request of `queue` until its fence is retired.
    pub(super) fn keep(
        &mut self,
        queue: &Vring,
        chain: Chain,
        response: EncodedResponse,
        fence: Fence,
    ) {
        self.queue.get_or_insert_with(|| queue.clone());
        self.requests.push_back(Request {
            chain,
            response,
            fence,
        });
    }

    /// Whether there are as many as `queue` has entries: more than a driver that keeps to the
    /// specification can have made. One that does not makes the same descriptors available again
    /// and again, and would have them kept here without an end. Of a queue with more than
    /// [`MAX_REQUESTS`] entries, the rest waits in the queue.
    pub(super) fn is_full(&self, queue: &Vring) -> bool {
        let entries = usize::from(queue.get_ref().get_queue().size());
        self.requests.len() >= entries.min(MAX_REQUESTS)
    }

    /// Answers those whose fence is retired.
    pub(super) fn answer(&mut self, ring: &mut QueuePass<'_>, renderer: &dyn Renderer3d) {
        let retired = |request: &Request| renderer.is_retired(request.fence);
        while self.requests.front().is_some_and(retired) {
            if let Some(request) = self.requests.pop_front() {
                request.answer(ring);
            }
        }
    }

    /// Answers all of them: their queue has stopped, and a driver that goes on later does not ask
    /// again. All that can be seen of the work they began is done in its order anyway.
    ///
    /// # Errors
    /// Where the ring lies outside the guest's memory, or the notification cannot be sent.
    pub(super) fn answer_all(&mut self, memory: &GuestMemory) -> Result<(), VirtqueueError> {
        let Some(queue) = self.queue.take() else {
            return Ok(());
        };
        let mut ring = QueuePass::last(&queue, memory);
        for request in self.requests.drain(..) {
            request.answer(&mut ring);
        }
        ring.flush_used()
    }

    /// Forgets them, with the driver that made them.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

impl Request {
    /// The chain is followed in the memory that it was taken from, and the answer written to the one
    /// there is now: nothing is written to memory that the front-end has taken back.
    fn answer(self, ring: &mut QueuePass<'_>) {
        complete(ring, self.chain, self.response);
    }
}
