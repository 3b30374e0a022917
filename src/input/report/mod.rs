//! From the source's events to the reports that the guest is told.

mod correction;
mod read_slot;
mod report_queue;

pub(crate) use report_queue::ReportQueue;
