// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Devices: what shows that a backend serves its own at all.

mod block;
mod fs;
mod gpu;
mod gpu_screen;
mod input;
mod input_events;
mod net;
mod rng;

use crate::point::Point;

pub(crate) fn points() -> impl Iterator<Item = &'static Point> {
    [
        gpu::POINTS,
        gpu_screen::POINTS,
        input::POINTS,
        input_events::POINTS,
        rng::POINTS,
        block::POINTS,
        fs::POINTS,
        net::POINTS,
    ]
    .into_iter()
    .flatten()
}
