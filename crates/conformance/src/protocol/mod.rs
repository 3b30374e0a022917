// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The vhost-user protocol, from the features to running virtqueues, and what a front-end may do wrong.

mod config;
mod connections;
mod features;
mod malformed;
mod memory;
mod orders;
mod packed;
mod replies;
mod rings;

use crate::point::Point;

pub(crate) fn points() -> impl Iterator<Item = &'static Point> {
    [
        features::POINTS,
        replies::POINTS,
        config::POINTS,
        memory::POINTS,
        rings::POINTS,
        packed::POINTS,
        orders::POINTS,
        connections::POINTS,
        malformed::POINTS,
    ]
    .into_iter()
    .flatten()
}
