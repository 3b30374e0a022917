//! From the source's events to the reports that the guest is told.

mod correction;
mod report_queue;
mod slot_doubt;

pub(crate) use report_queue::ReportQueue;
