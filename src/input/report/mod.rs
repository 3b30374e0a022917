// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From the source's events to the reports that the guest is told.

mod correction;
mod kept_states;
mod report_queue;
mod slot_doubt;
mod waiting_reports;

pub(crate) use report_queue::ReportQueue;
