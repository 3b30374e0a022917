//! Control requests with a fence: executed, and completed once the renderer has done their work.

use std::collections::VecDeque;

use vhost_user_backend::VringT;
use virtio_queue::QueueT;

use super::completion::complete;
use crate::backend::{Chain, GuestMemory, QueuePass, VirtqueueError, Vring};
use crate::gpu::protocol::EncodedResponse;
use crate::gpu::renderer::{Fence, Renderer3d};

/// Most requests that are kept, however large the queue is: their memory is in no budget.
const MAX_REQUESTS: usize = 1024;

struct Request {
    chain: Chain,
    response: EncodedResponse,
    fence: Fence,
}

/// The control requests that wait for their fence, in the order in which they are completed.
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

    /// Whether there are as many as `queue` has entries: more cannot be in flight unless the driver
    /// violates the specification by making descriptors available again before they are used, which
    /// it could do without end. Of a queue with more than [`MAX_REQUESTS`] entries, the rest waits in the
    /// queue.
    pub(super) fn is_full(&self, queue: &Vring) -> bool {
        let entries = usize::from(queue.get_ref().get_queue().size());
        self.requests.len() >= entries.min(MAX_REQUESTS)
    }

    /// Completes those whose fence is retired.
    pub(super) fn complete_retired(&mut self, ring: &mut QueuePass<'_>, renderer: &dyn Renderer3d) {
        let retired = |request: &Request| renderer.is_retired(request.fence);
        while self.requests.front().is_some_and(retired) {
            if let Some(request) = self.requests.pop_front() {
                request.complete(ring);
            }
        }
    }

    /// Completes all of them: their queue is stopped, and a driver that goes on later does not make
    /// them again. Whatever shows their work is done after it anyway.
    ///
    /// # Errors
    /// If the ring lies outside the guest's memory, or the notification cannot be sent.
    pub(super) fn complete_all(&mut self, memory: &GuestMemory) -> Result<(), VirtqueueError> {
        let Some(queue) = self.queue.take() else {
            return Ok(());
        };
        let mut ring = QueuePass::last(&queue, memory);
        for request in self.requests.drain(..) {
            request.complete(&mut ring);
        }
        ring.flush_used()
    }

    /// Drops them, with the driver that made them.
    pub(super) fn drop_all(&mut self) {
        *self = Self::default();
    }
}

impl Request {
    /// The chain was popped in the memory of that time; the response is written to the memory of now, so
    /// that nothing is written to memory that the front-end has taken back.
    fn complete(self, ring: &mut QueuePass<'_>) {
        complete(ring, self.chain, self.response);
    }
}
