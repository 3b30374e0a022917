// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commands of the cursor queue (virtio 1.2, 5.7.6.10).

use super::CommandError;
use crate::gpu::protocol::{Response, UpdateCursor};
use crate::gpu::renderer::Renderer;
use crate::gpu::scanout::{Position, Scanouts, Shape};

/// UPDATE_CURSOR.
pub(super) fn update_cursor(
    renderer: &mut dyn Renderer,
    scanouts: &mut Scanouts,
    update: &UpdateCursor,
) -> Result<Response, CommandError> {
    if update.resource == 0 {
        return Ok(move_cursor(scanouts, update));
    }
    let shape = Shape {
        hot_x: update.hot_x,
        hot_y: update.hot_y,
        pixels: renderer.cursor(update.resource)?,
    };
    scanouts.set_cursor_shape(update.scanout, position(update), shape);
    Ok(Response::OkNoData)
}

/// MOVE_CURSOR.
pub(super) fn move_cursor(scanouts: &mut Scanouts, update: &UpdateCursor) -> Response {
    scanouts.move_cursor(update.scanout, position(update));
    Response::OkNoData
}

fn position(update: &UpdateCursor) -> Position {
    Position {
        x: update.x,
        y: update.y,
        visible: update.resource != 0,
    }
}
