// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The VM's heads (virtio-gpu's scanouts) as viewers see them: the guest's pixels, or a text that says why there are
//! none.

mod cursor;
mod framebuffer;
mod picture_budget;
mod placeholder;
mod state;

use std::cell::RefCell;
use std::rc::Rc;

use conventions::DesktopName;

use crate::geometry::Size;
use crate::vnc::damage::DamageMap;

pub(crate) use cursor::{Cursor, CursorShape, SENT_CURSOR_LEN};
pub(crate) use framebuffer::{Framebuffer, PIXEL_LEN, SharedFramebuffer};
pub(crate) use state::HeadState;

use picture_budget::{PictureBudget, PictureShare};

/// Size of the first picture, when nothing is known of the guest's.
const FIRST_SIZE: Size = Size::new(1024, 768);

/// One head.
pub(crate) struct Head {
    /// What viewers call it.
    screen: String,
    state: HeadState,
    picture: SharedFramebuffer,
    /// What all heads may have, and what this one's picture has of it if it is the guest's.
    budget: PictureBudget,
    share: Option<PictureShare>,
    /// The guest's next picture, which is shown once the GPU has sent pixels of it: a viewer that begins to look is not
    /// given half a picture. One with an update under way gets black for the rest of it, and then the new picture.
    next: Option<(SharedFramebuffer, PictureShare)>,
    cursor: Cursor,
    /// What of this is a former GPU's, and kept until the next one says what it shows.
    kept: Kept,
    /// What a message changed that a GPU did not send to its end. Viewers are told with the next whole one.
    torn: Option<DamageMap>,
    changes: Changes,
}

/// What a head keeps of a GPU that is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kept {
    scanout: bool,
    cursor: bool,
}

/// What changed on a head since [`Head::forget_changes`].
#[derive(Debug)]
pub(crate) struct Changes {
    /// Another picture replaced the former one, perhaps of another size: all of it changed.
    pub(crate) picture: bool,
    /// These pixels changed.
    pub(crate) damage: DamageMap,
    /// What viewers call it.
    pub(crate) name: bool,
    /// The cursor's shape, or whether it is visible.
    pub(crate) cursor_shape: bool,
    /// The cursor's position.
    pub(crate) cursor_moved: bool,
    /// What the cursor covered before.
    pub(crate) cursor_left: DamageMap,
}

impl Changes {
    /// None of a picture of `size`.
    fn none(size: Size) -> Self {
        Self {
            picture: false,
            damage: DamageMap::new(size),
            name: false,
            cursor_shape: false,
            cursor_moved: false,
            cursor_left: DamageMap::new(size),
        }
    }

    /// Whether nothing changed.
    pub(crate) fn is_empty(&self) -> bool {
        !self.picture
            && !self.name
            && self.damage.is_empty()
            && !self.cursor_shape
            && !self.cursor_moved
    }
}

impl Head {
    /// A head that viewers call `screen`. Its GPU was not reached yet.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn new(screen: String) -> Self {
        Self::within(PictureBudget::default(), screen)
    }

    /// The heads of a VM, which viewers call `screens`: there is a limit on the memory of all their pictures together.
    pub(crate) fn all(screens: impl Iterator<Item = String>) -> Vec<Self> {
        let budget = PictureBudget::default();
        screens
            .map(|screen| Self::within(budget.clone(), screen))
            .collect()
    }

    fn within(budget: PictureBudget, screen: String) -> Self {
        let mut head = Self {
            screen,
            state: HeadState::Unreachable,
            picture: Framebuffer::black(FIRST_SIZE),
            budget,
            share: None,
            next: None,
            cursor: Cursor::default(),
            kept: Kept::default(),
            torn: None,
            changes: Changes::none(FIRST_SIZE),
        };
        head.show_text();
        head
    }

    /// What it shows.
    pub(crate) fn state(&self) -> HeadState {
        self.state
    }

    /// What viewers call it now: its name, and what it shows.
    pub(crate) fn name(&self) -> String {
        let state = self.state.screen_state();
        let screen = &self.screen;
        DesktopName { screen, state }.to_string()
    }

    /// What viewers see now, without the cursor.
    pub(crate) fn picture(&self) -> &SharedFramebuffer {
        &self.picture
    }

    /// Its size.
    pub(crate) fn size(&self) -> Size {
        self.picture.borrow().size()
    }

    /// The guest's pointer on it.
    pub(crate) fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// What changed.
    pub(crate) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// What changed, which is forgotten.
    #[cfg(test)]
    pub(crate) fn take_changes(&mut self) -> Changes {
        let none = Changes::none(self.size());
        std::mem::replace(&mut self.changes, none)
    }

    /// Forgets what changed: all viewers were told.
    pub(crate) fn forget_changes(&mut self) {
        let Changes {
            picture,
            damage,
            name,
            cursor_shape,
            cursor_moved,
            cursor_left,
        } = &mut self.changes;
        for told in [picture, name, cursor_shape, cursor_moved] {
            *told = false;
        }
        damage.clear();
        cursor_left.clear();
    }

    /// Sets the size of the guest's picture, which is shown with its first pixels; 0 by 0 for a head that is off.
    pub(crate) fn set_scanout(&mut self, size: Size) {
        if std::mem::take(&mut self.kept).cursor {
            // A GPU sends its cursors before its scanouts.
            self.set_cursor(|cursor| *cursor = Cursor::default());
        }
        self.next = None;
        if size.is_empty() {
            self.lose_pixels(HeadState::Off);
        } else if self.state != HeadState::On || self.size() != size {
            match self.share_for(size) {
                Some(share) => self.next = Some((Framebuffer::black(size), share)),
                None => self.lose_pixels(HeadState::TooLarge(size)),
            }
        }
    }

    /// The part of the budget for the next picture; none if it is too large.
    fn share_for(&mut self, size: Size) -> Option<PictureShare> {
        if !Framebuffer::fits(size) {
            return None;
        }
        let share = self.budget.take(size);
        if share.is_none() && self.share.is_some() {
            // There is no room for both.
            self.lose_pixels(HeadState::Waiting);
            return self.budget.take(size);
        }
        share
    }

    /// The GPU is gone: keeps what it showed until the next one says what it shows.
    pub(crate) fn keep_pixels(&mut self) {
        match self.state {
            HeadState::On | HeadState::Off | HeadState::TooLarge(_) => {
                self.next = None;
                self.kept = Kept {
                    scanout: true,
                    cursor: true,
                };
            }
            HeadState::Unreachable | HeadState::Waiting => self.lose_pixels(HeadState::Unreachable),
        }
    }

    /// A GPU that is gone had written the pixels `damage` to `picture` of a message that has no end.
    pub(crate) fn add_torn(&mut self, picture: &SharedFramebuffer, damage: &DamageMap) {
        if Rc::ptr_eq(picture, &self.picture) {
            let size = damage.size();
            let torn = self.torn.get_or_insert_with(|| DamageMap::new(size));
            torn.add_all(damage);
        }
    }

    /// Whether it shows what a GPU showed that is gone.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept.scanout
    }

    /// Shows why there are no pixels of the guest.
    pub(crate) fn lose_pixels(&mut self, state: HeadState) {
        self.kept = Kept::default();
        self.next = None;
        if self.state == state {
            return;
        }
        self.set_state(state);
        self.share = None;
        self.show_text();
        self.set_cursor(|cursor| *cursor = Cursor::default());
    }

    fn set_state(&mut self, state: HeadState) {
        self.changes.name |= self.state != state;
        self.state = state;
    }

    fn show_text(&mut self) {
        let reason = self.state.to_string();
        // As large as before: the windows of viewers stay as they are.
        let picture = placeholder::picture(self.size(), &[&self.screen, &reason]);
        self.set_picture(Rc::new(RefCell::new(picture)));
    }

    fn set_picture(&mut self, picture: SharedFramebuffer) {
        // Updates under way read the former one to their end.
        self.picture = picture;
        self.torn = None;
        self.changes.picture = true;
        // The pieces are others. All of them are to be sent, so those that the cursor covered too.
        self.changes.damage = DamageMap::new(self.size());
        self.changes.cursor_left = DamageMap::new(self.size());
    }

    /// The guest's picture, to write pixels to.
    pub(crate) fn guest_picture(&self) -> Option<SharedFramebuffer> {
        let shown = (self.state == HeadState::On).then_some(&self.picture);
        let next = self.next.as_ref().map(|(picture, _)| picture);
        next.or(shown).cloned()
    }

    /// Says that pixels were written to the guest's picture, and which pieces are different now.
    pub(crate) fn add_damage(&mut self, damage: &DamageMap) {
        if let Some((picture, share)) = self.next.take() {
            self.set_state(HeadState::On);
            self.set_picture(picture);
            self.share = Some(share);
        } else {
            self.changes.damage.add_all(damage);
            if let Some(torn) = self.torn.take() {
                self.changes.damage.add_all(&torn);
            }
        }
    }

    /// Changes the cursor's shape and shows it at a position, which wraps below 0 as [`Self::move_cursor`] says.
    pub(crate) fn set_cursor_shape(&mut self, shape: CursorShape, x: u32, y: u32) {
        self.set_cursor(|cursor| {
            *cursor = Cursor {
                shape: Some(Rc::new(shape)),
                visible: true,
                x: x as i32,
                y: y as i32,
            }
        });
    }

    /// Moves the cursor's upper left corner, and shows or hides it. Linux lets a cursor that reaches over the left or
    /// upper edge wrap below 0.
    pub(crate) fn move_cursor(&mut self, visible: bool, x: u32, y: u32) {
        self.set_cursor(|cursor| {
            cursor.visible = visible;
            cursor.x = x as i32;
            cursor.y = y as i32;
        });
    }

    fn set_cursor(&mut self, change: impl FnOnce(&mut Cursor)) {
        self.kept.cursor = false;
        let before = self.cursor.clone();
        change(&mut self.cursor);
        let (covered, covers) = (before.covers(), self.cursor.covers());
        let same_shape = before.visible_shape() == self.cursor.visible_shape();
        if same_shape && covered == covers {
            return;
        }
        self.changes.cursor_left.add(&covered);
        self.changes.cursor_moved |= !covered.is_empty() || !covers.is_empty();
        self.changes.cursor_shape |= !same_shape;
    }
}

#[cfg(test)]
mod tests;
