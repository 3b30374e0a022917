// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The header of a vhost-user message.

/// Bytes of request, flags and payload size: 32 bits each, in host order.
pub(super) const HEADER: usize = 12;
