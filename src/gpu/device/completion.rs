// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Completes requests: writes the response into the chain and returns the chain to the driver.

use std::fmt::Display;
use std::io::Write as _;

use vm_memory::GuestMemoryMmap;

use super::error_log::ErrorLog;
use crate::backend::{Chain, QueuePass};
use crate::gpu::protocol::{EncodedResponse, ErrorCode, Header, Response};

/// Completes a request with its response.
pub(super) fn complete(pass: &mut QueuePass<'_>, chain: Chain, response: EncodedResponse) {
    let head = chain.head_index();
    let len = write_response(chain, pass.memory(), response);
    pass.add_used(head, len);
}

/// Completes a request of `queue` whose buffers cannot be read.
pub(super) fn complete_unreadable(
    pass: &mut QueuePass<'_>,
    chain: Chain,
    queue: &str,
    error: impl Display,
    log: &mut ErrorLog,
) {
    log.device(format_args!("{queue}: unreadable request: {error}"));
    let response = Response::Error(ErrorCode::Unspec);
    complete(pass, chain, response.encode(&Header::default()));
}

/// Writes a response into a request's buffers, as far as it [fits](EncodedResponse::fit); the number of
/// bytes written.
fn write_response(chain: Chain, memory: &GuestMemoryMmap, mut response: EncodedResponse) -> u32 {
    let Ok(mut writer) = chain.writer(memory) else {
        return 0;
    };
    match writer.write_all(response.fit(writer.available_bytes())) {
        Ok(()) => u32::try_from(writer.bytes_written()).unwrap_or(0),
        Err(_) => 0,
    }
}
