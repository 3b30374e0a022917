// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a viewer negotiated, what it asked for, and what it is owed.

use rfb::server_message::{self, DesktopSizeReason, DesktopSizeStatus, LedState};
use rfb::{ClientMessage, Encoder, Encoding, EncodingSet, Fence, PixelFormat, Screen};

use crate::geometry::{Rect, Size};
use crate::vnc::damage::DamageMap;
use crate::vnc::head::{Cursor, Framebuffer, Head};
use crate::vnc::wire::{from_wire, to_u16};

use super::Action;
use super::control::ControlMessages;
use super::desktop_size::{DesktopSize, SizeRect};
use super::flow::Flow;
use super::output::Output;
use super::update::{Contents, Update, merging};

/// Bytes that may wait when an update begins: what changes until then is merged into it.
const LOW: usize = 64 << 10;
/// Bytes that may wait when more slices are encoded.
const HIGH: usize = 256 << 10;
/// Pixels of small slices that are encoded and sent together.
const BATCH: u64 = 16 << 10;

/// A viewer after its handshake.
pub(super) struct Session {
    size: DesktopSize,
    encodings: EncodingSet,
    encoder: Encoder,
    /// The viewer's new pixel format, from the next update on.
    next_format: Option<PixelFormat>,
    /// Pixels that the viewer does not have.
    damage: DamageMap,
    /// Around the pixels that the viewer asked for again. They join the damage when an update begins: once, however often
    /// it asks.
    renew: Option<Rect>,
    /// Where the viewer asked for an update.
    requested: Option<Rect>,
    /// Where the viewer gets updates without asking.
    continuous: Option<Rect>,
    owed: Owed,
    leds: LedState,
    control: ControlMessages,
    flow: Flow,
    update: Option<Update>,
}

/// Rectangles without pixels that the viewer is to get.
#[derive(Default)]
struct Owed {
    cursor: bool,
    leds: bool,
    extended_keys: bool,
    extended_buttons: bool,
    name: bool,
}

impl Session {
    /// A session of a viewer that was told this size.
    pub(super) fn new(size: Size, leds: LedState) -> Self {
        Self {
            size: DesktopSize::new(size),
            encodings: EncodingSet::default(),
            encoder: Encoder::new(),
            next_format: None,
            damage: DamageMap::full(size),
            renew: None,
            requested: None,
            continuous: None,
            owed: Owed::default(),
            leds,
            control: ControlMessages::default(),
            flow: Flow::default(),
            update: None,
        }
    }

    /// Whether to read no more messages until some are answered.
    pub(super) fn is_busy(&self) -> bool {
        self.control.are_full()
    }

    /// Whether pointer events may have more buttons.
    pub(super) fn takes_extended_buttons(&self) -> bool {
        self.encodings.contains(Encoding::EXTENDED_MOUSE_BUTTONS)
    }

    /// Takes a message of the viewer. Returns what it asks of the VM.
    pub(super) fn take(&mut self, message: ClientMessage, head: &Head) -> Option<Action> {
        // What was held before: a fence holds its answer until the message after it.
        let held = self.control.take_held();
        let action = self.obey(message, head);
        self.control.release(held);
        action
    }

    fn obey(&mut self, message: ClientMessage, head: &Head) -> Option<Action> {
        match message {
            ClientMessage::SetPixelFormat(format) => self.next_format = Some(format),
            ClientMessage::SetEncodings(encodings) => self.set_encodings(encodings, head),
            ClientMessage::FramebufferUpdateRequest { incremental, rect } => {
                let rect = from_wire(rect);
                if !incremental {
                    self.renew = Some(rect.around(&self.renew.unwrap_or_default()));
                    self.size.announce();
                }
                let before = self.requested.unwrap_or_default();
                self.requested = Some(rect.around(&before));
            }
            ClientMessage::EnableContinuousUpdates { enable, rect } => {
                self.flow.reset();
                if !enable {
                    self.control.end_continuous_updates();
                }
                self.continuous = enable.then(|| from_wire(rect));
            }
            ClientMessage::Fence(fence) if fence.flags & Fence::REQUEST != 0 => {
                self.control.answer(fence);
            }
            ClientMessage::Fence(fence) => self.flow.confirm(&fence),
            ClientMessage::KeyEvent { down, keysym } => {
                return Some(Action::Key {
                    down,
                    keysym,
                    keycode: None,
                });
            }
            ClientMessage::QemuExtendedKeyEvent {
                down,
                keysym,
                keycode,
            } => {
                return Some(Action::Key {
                    down,
                    keysym,
                    keycode: Some(keycode),
                });
            }
            ClientMessage::PointerEvent { buttons, x, y } => {
                return Some(Action::Pointer {
                    buttons,
                    x,
                    y,
                    // A viewer that keeps its size sees a part of it, not a smaller picture.
                    size: head.size(),
                });
            }
            ClientMessage::SetDesktopSize {
                width,
                height,
                screens,
            } => {
                let size = Size::new(width.into(), height.into());
                return self.set_desktop_size(size, &screens);
            }
        }
        None
    }

    fn set_encodings(&mut self, encodings: EncodingSet, head: &Head) {
        let before = std::mem::replace(&mut self.encodings, encodings);
        let is_new = |encoding| encodings.contains(encoding) && !before.contains(encoding);
        let cursor = [Encoding::CURSOR, Encoding::CURSOR_WITH_ALPHA];
        // Before the guest shows one, the viewer's own pointer is better than none.
        let has_shape = head.cursor().visible_shape().is_some();
        self.owed.cursor |= has_shape && cursor.into_iter().any(is_new);
        if cursor.into_iter().any(|encoding| before.contains(encoding)) != self.shows_cursor() {
            self.damage.add(&cursor_area(head));
        }
        let leds = [Encoding::QEMU_LED_STATE, Encoding::VMWARE_LED_STATE];
        self.owed.leds |= leds.into_iter().any(is_new);
        self.owed.extended_keys |= is_new(Encoding::QEMU_EXTENDED_KEY_EVENT);
        self.owed.extended_buttons |= is_new(Encoding::EXTENDED_MOUSE_BUTTONS);
        if is_new(Encoding::CONTINUOUS_UPDATES) {
            // So the viewer learns that they are known here.
            self.control.end_continuous_updates();
        }
        if is_new(Encoding::FENCE) {
            self.control.request(Fence::new(Fence::REQUEST, &[]));
        }
        self.size.set_encodings(&encodings);
        self.encoder.set_compress_level(encodings.compress_level());
    }

    fn set_desktop_size(&mut self, size: Size, screens: &[Screen]) -> Option<Action> {
        // A head is one screen that fills the picture.
        let valid = match screens {
            [screen] => from_wire(screen.rect) == size.into(),
            _ => false,
        };
        if !valid || size.is_empty() || !Framebuffer::fits(size) {
            self.size.answer(DesktopSizeStatus::InvalidLayout);
        } else if self.size.takes_answers() {
            return Some(Action::Resize(size));
        }
        None
    }

    /// Says how the viewer's request for another size ended.
    pub(super) fn answer_resize(&mut self, status: DesktopSizeStatus) {
        self.size.answer(status);
    }

    /// The head has another size, for this reason.
    pub(super) fn resized(&mut self, size: Size, reason: DesktopSizeReason) {
        self.size.resized(size, reason);
    }

    /// Takes what changed on the head.
    pub(super) fn note_changes(&mut self, head: &Head) {
        let changes = head.changes();
        if changes.picture {
            if let Some(update) = &mut self.update {
                update.forget_pixels();
            }
            self.damage.add(&self.size.known().into());
        }
        self.owed.name |= changes.name;
        self.damage.add_all(&changes.damage);
        if self.shows_cursor() {
            self.owed.cursor |= changes.cursor_shape;
        } else if changes.cursor_shape || changes.cursor_moved {
            self.damage.add_all(&changes.cursor_left);
            self.damage.add(&cursor_area(head));
        }
    }

    /// Takes the state of the keyboard's LEDs.
    pub(super) fn set_leds(&mut self, leds: LedState) {
        self.owed.leds |= self.leds != leds;
        self.leds = leds;
    }

    /// Whether the viewer draws the cursor by itself.
    fn shows_cursor(&self) -> bool {
        self.encodings.contains(Encoding::CURSOR)
            || self.encodings.contains(Encoding::CURSOR_WITH_ALPHA)
    }

    /// Encodes the next piece of what the viewer is to get, unless enough waits in `output`. Returns whether there was
    /// something.
    pub(super) fn encode(&mut self, head: &Head, output: &mut Output) -> bool {
        let before = output.unsent();
        if self.update.is_none() {
            self.write_control(output);
            if output.unsent() <= LOW {
                self.update = self.begin_update(head, output);
            }
        }
        if output.unsent() <= HIGH {
            self.encode_slices(output);
        }
        output.unsent() > before
    }

    /// Writes what comes between updates.
    fn write_control(&mut self, output: &mut Output) {
        if let Some(format) = self.next_format.take() {
            self.encoder.set_format(format);
            self.control.set_format(format);
        }
        if !self.control.is_empty() {
            output.write(|out| self.control.write(out));
        }
    }

    /// Encodes slices of the update under way, up to some pixels.
    fn encode_slices(&mut self, output: &mut Output) {
        let Some(update) = &mut self.update else {
            return;
        };
        let mut pixels = 0;
        while !update.is_done() && pixels < BATCH {
            pixels += update.encode_slice(&mut self.encoder, output);
        }
        if update.is_done() {
            self.update = None;
            if self.continuous.is_some() && self.encodings.contains(Encoding::FENCE) {
                self.control.request(self.flow.next_fence());
            }
            // Now, so that it is sent by the same system call.
            self.write_control(output);
        }
    }

    /// Begins an update if there is something to tell, and the viewer wants to know.
    fn begin_update(&mut self, head: &Head, output: &mut Output) -> Option<Update> {
        let wanted = match (self.requested, self.continuous) {
            (None, None) => return None,
            // It did not ask, so it must keep up.
            (None, Some(_)) if !self.flow.has_room() => return None,
            (requested, continuous) => {
                let continuous = continuous.unwrap_or_default();
                requested.unwrap_or_default().around(&continuous)
            }
        };
        let known = self.size.known();
        if let Some(rect) = self.size.next_rect(head.size()) {
            write_size(rect, output);
            // It answers the request, alone. A viewer may ask for another format once it has an update, and takes the
            // pixels of a second one for pixels of that format.
            self.requested = None;
            if self.size.known() != known {
                self.damage = DamageMap::full(self.size.known());
            }
            return None;
        }
        if let Some(rect) = self.renew.take() {
            self.damage.add(&rect);
        }
        let encoding = self.encodings.preferred();
        let rects = self.damage.take_rects(&wanted, merging(encoding));
        let mut others = Vec::new();
        let count = self.write_owed(head, &mut others);
        if rects.is_empty() && count == 0 {
            return None;
        }
        self.requested = None;
        if !rects.is_empty() {
            self.size.pixels_follow();
        }
        let contents = Contents {
            rects,
            picture: head.picture(),
            known: self.size.known(),
            encoding,
            painted: (!self.shows_cursor()).then(|| head.cursor().clone()),
        };
        let update = Update::begin(contents, count, &self.encoder, output);
        output.write(|out| out.append(&mut others));
        Some(update)
    }

    /// Writes the rectangles without pixels that the viewer is owed. Returns how many.
    fn write_owed(&mut self, head: &Head, out: &mut Vec<u8>) -> u16 {
        let owed = std::mem::take(&mut self.owed);
        let mut count = 0;
        if owed.extended_keys {
            server_message::write_qemu_extended_key_event(out);
            count += 1;
        }
        if owed.extended_buttons {
            server_message::write_extended_mouse_buttons(out);
            count += 1;
        }
        if owed.name && self.encodings.contains(Encoding::DESKTOP_NAME) {
            server_message::write_desktop_name(&head.name(), out);
            count += 1;
        }
        if owed.leds && self.encodings.contains(Encoding::QEMU_LED_STATE) {
            server_message::write_qemu_led_state(self.leds, out);
            count += 1;
        } else if owed.leds && self.encodings.contains(Encoding::VMWARE_LED_STATE) {
            server_message::write_vmware_led_state(self.leds, out);
            count += 1;
        }
        if owed.cursor {
            let cursor = rfb_cursor(head.cursor());
            if self.encodings.contains(Encoding::CURSOR_WITH_ALPHA) {
                server_message::write_cursor_with_alpha(&cursor, out);
                count += 1;
            } else if self.encodings.contains(Encoding::CURSOR) {
                server_message::write_cursor(&cursor, self.encoder.format(), out);
                count += 1;
            }
        }
        count
    }
}

/// Writes an update about the size alone, as viewers expect it.
fn write_size(rect: SizeRect, output: &mut Output) {
    output.write(|out| {
        server_message::write_update_header(1, out);
        match rect {
            SizeRect::Plain(size) => {
                let (width, height) = (to_u16(size.width), to_u16(size.height));
                server_message::write_desktop_size(width, height, out);
            }
            SizeRect::Extended {
                size,
                reason,
                status,
            } => {
                let (width, height) = (to_u16(size.width), to_u16(size.height));
                let screen = Screen {
                    id: 0,
                    rect: rfb::Rect::of_size(width, height),
                    flags: 0,
                };
                let size = (width, height);
                server_message::write_extended_desktop_size(reason, status, size, &[screen], out);
            }
        }
    });
}

/// What the cursor covers of the picture.
fn cursor_area(head: &Head) -> Rect {
    let covers = head.cursor().covers();
    covers.intersection(&head.size().into()).unwrap_or_default()
}

/// The cursor as RFB has it; one without pixels if it is hidden.
fn rfb_cursor(cursor: &Cursor) -> rfb::Cursor {
    let Some(shape) = cursor.visible_shape() else {
        return rfb::Cursor::default();
    };
    let (hot_x, hot_y) = shape.hot_spot();
    let pixels = shape.pixels().chunks_exact(4);
    let pixels = pixels.filter_map(|pixel| pixel.try_into().ok().map(u32::from_le_bytes));
    rfb::Cursor::new(
        (to_u16(hot_x), to_u16(hot_y)),
        to_u16(shape.size().width),
        to_u16(shape.size().height),
        pixels.collect(),
    )
    .unwrap_or_default()
}

#[cfg(test)]
mod tests;
