// SPDX-License-Identifier: Apache-2.0 OR MIT
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

struct FencedRequest {
    chain: Chain,
    response: EncodedResponse,
    fence: Fence,
}

/// The control requests that wait for their fence, in the order in which they were made.
#[derive(Default)]
pub(super) struct FencedRequests {
    requests: VecDeque<FencedRequest>,
    vring: Option<Vring>,
}

impl FencedRequests {
    /// Keeps a request of `vring` until its fence is retired.
    pub(super) fn keep(
        &mut self,
        vring: &Vring,
        chain: Chain,
        response: EncodedResponse,
        fence: Fence,
    ) {
        self.vring.get_or_insert_with(|| vring.clone());
        self.requests.push_back(FencedRequest {
            chain,
            response,
            fence,
        });
    }

    /// Full at the queue's size, with `others` that wait for something else. A correct driver cannot have more in flight, and
    /// a hostile one could add without end. Capped at [`MAX_REQUESTS`].
    pub(super) fn is_full(&self, vring: &Vring, others: usize) -> bool {
        let entries = usize::from(vring.get_ref().get_queue().size());
        self.requests.len().saturating_add(others) >= entries.min(MAX_REQUESTS)
    }

    /// Completes those whose fence is retired: those of one timeline in order, and those of several in any.
    pub(super) fn complete_retired(&mut self, pass: &mut QueuePass<'_>, renderer: &dyn Renderer3d) {
        for _ in 0..self.requests.len() {
            let Some(request) = self.requests.pop_front() else {
                break;
            };
            match renderer.is_retired(request.fence) {
                true => request.complete(pass),
                // They stay in their order.
                false => self.requests.push_back(request),
            }
        }
    }

    /// Completes all of them: their queue is stopped, and a driver that goes on later does not make
    /// them again. Whatever shows their work is done after it anyway.
    ///
    /// # Errors
    /// If the virtqueue lies outside the guest's memory, or the notification cannot be sent.
    pub(super) fn complete_all(&mut self, memory: &GuestMemory) -> Result<(), VirtqueueError> {
        let Some(vring) = self.vring.take() else {
            return Ok(());
        };
        let mut pass = QueuePass::last(&vring, memory);
        for request in self.requests.drain(..) {
            request.complete(&mut pass);
        }
        pass.flush_used()
    }

    /// Drops them, with the driver that made them.
    pub(super) fn drop_all(&mut self) {
        *self = Self::default();
    }
}

impl FencedRequest {
    /// The chain was popped in the memory of that time; the response is written to the memory of now, so
    /// that nothing is written to memory that the front-end has taken back.
    fn complete(self, pass: &mut QueuePass<'_>) {
        complete(pass, self.chain, self.response);
    }
}
