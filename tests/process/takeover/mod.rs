// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A front-end over the death of the processes that serve it, with a service manager that keeps what outlives them.

mod ends;
mod handover;
mod sequences;
