//! What the displays are to show, and what of it they have not been sent yet.
//!
//! Nothing in here grows while a display does not read: it remembers what is to be sent, not the
//! messages. Two regions are kept for each scanout, in its own coordinates: `changed`, what
//! commands wrote since it was last sent, and `due`, the part of that which the driver flushed.
//!
//! A scanout that is passed on as a dmabuf has no pixels to send. What the driver flushes of it
//! waits until it is drawn, and then until the front-end has taken the update before it.

use std::sync::Arc;

use super::protocol::MAX_SCANOUTS;
use super::region::{Rect, Region};
use super::renderer::Fence;
use super::resource::Dmabuf;
use super::resource::SharedImage;

mod cursor;
#[cfg(feature = "fuzzing")]
mod truth;
mod update;

use cursor::Cursor;
pub use cursor::{Position, Shape};
#[cfg(feature = "fuzzing")]
pub use truth::Truth;
pub use update::Update;

/// What a display takes, beside pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DmabufSupport {
    /// Nothing.
    None,
    /// Buffers whose pixels lie row by row.
    LinearOnly,
    /// Buffers of which it is told how their pixels lie. This holds until a display has said what it
    /// takes, for until then it is sent nothing.
    #[default]
    Modifiers,
}

impl DmabufSupport {
    fn takes(self, dmabuf: &Dmabuf) -> bool {
        match self {
            Self::None => false,
            Self::LinearOnly => dmabuf.is_linear(),
            Self::Modifiers => true,
        }
    }
}

/// What a scanout shows.
#[derive(Clone, Debug)]
pub struct ScanoutSource {
    /// The resource.
    pub resource: u32,
    /// Its image, for a display that takes pixels.
    pub image: SharedImage,
    /// The part of the image.
    pub rect: Rect,
    /// Its buffer, where it can be passed on and the scanout shows all of it.
    pub dmabuf: Option<Arc<Dmabuf>>,
}

#[cfg(test)]
impl ScanoutSource {
    /// Of resource 1, which cannot be passed on.
    pub fn of_pixels(image: &SharedImage, rect: Rect) -> Self {
        Self {
            resource: 1,
            image: image.clone(),
            rect,
            dmabuf: None,
        }
    }
}

/// What a display was told last of a scanout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Told {
    /// Nothing, or that it is disabled.
    #[default]
    Nothing,
    /// Its size.
    Size(u32, u32),
    /// Its buffer.
    Dmabuf,
}

#[derive(Debug, Default)]
struct Scanout {
    view: Option<ScanoutSource>,
    told: Told,
    /// Whether nothing of this view was flushed yet: the display has something else.
    fresh: bool,
    changed: Region,
    due: Region,
    /// Whether the display has this view's buffer.
    passed_on: bool,
    /// Of a buffer: what was flushed, and the part of that whose drawing is waited for.
    flushed: Option<Rect>,
    drawing: Option<Rect>,
    /// Whether the image is to be brought up to date because it takes the place of a buffer.
    unread: bool,
}

impl Scanout {
    fn size(&self) -> (u32, u32) {
        self.view
            .as_ref()
            .map_or((0, 0), |v| (v.rect.width, v.rect.height))
    }

    fn everything(&self) -> Rect {
        let (width, height) = self.size();
        Rect::sized(width, height)
    }

    /// Shows `view`, of which the display has nothing, or nothing.
    fn set(&mut self, view: Option<ScanoutSource>) {
        *self = Self {
            fresh: view.is_some(),
            view,
            told: self.told,
            ..Self::default()
        };
    }

    /// Has everything sent.
    fn send_all(&mut self) {
        self.changed.clear();
        self.due.clear();
        self.due.add(self.everything());
    }

    /// The buffer that a display that takes `takes` is passed.
    fn dmabuf(&self, takes: DmabufSupport) -> Option<&Arc<Dmabuf>> {
        let dmabuf = self.view.as_ref()?.dmabuf.as_ref()?;
        takes.takes(dmabuf).then_some(dmabuf)
    }

    fn next(&mut self, id: u32, takes: DmabufSupport, is_updating: bool) -> Option<Update> {
        if let Some(dmabuf) = self.dmabuf(takes) {
            // With its first pixels: the display shows what it has until then.
            if is_updating || self.due.is_empty() {
                return None;
            }
            if !self.passed_on {
                let dmabuf = dmabuf.clone();
                self.passed_on = true;
                self.told = Told::Dmabuf;
                return Some(Update::Dmabuf {
                    id,
                    modifier: takes == DmabufSupport::Modifiers && !dmabuf.has_no_modifier(),
                    dmabuf: Some(dmabuf),
                });
            }
            let rect = self.due.bounds();
            self.due.clear();
            return Some(Update::DmabufDamage { id, rect });
        }
        if self.told == Told::Dmabuf {
            self.told = Told::Nothing;
            return Some(Update::Dmabuf {
                id,
                dmabuf: None,
                modifier: false,
            });
        }
        let (width, height) = self.size();
        let wanted = match self.view {
            Some(_) => Told::Size(width, height),
            None => Told::Nothing,
        };
        if self.told != wanted {
            self.told = wanted;
            return Some(Update::Scanout { id, width, height });
        }
        if self.unread {
            return None;
        }
        let view = self.view.as_ref()?;
        let rect = self.due.pop()?;
        Some(Update::Pixels {
            id,
            rect,
            image: view.image.clone(),
            source: rect.absolute_in(&view.rect),
        })
    }
}

/// All scanouts and cursors of a device.
#[derive(Debug, Default)]
pub struct Scanouts {
    scanouts: [Scanout; MAX_SCANOUTS],
    cursors: [Cursor; MAX_SCANOUTS],
    takes: DmabufSupport,
    /// The point in the renderer's work at which the buffers are drawn.
    fence: Option<Fence>,
    /// Where the search for something to send goes on, so that each scanout has its turn.
    turn: usize,
}

impl Scanouts {
    /// Whether there is a scanout `id`.
    pub fn has(id: u32) -> bool {
        usize::try_from(id).is_ok_and(|id| id < MAX_SCANOUTS)
    }

    fn scanout(&mut self, id: u32) -> Option<&mut Scanout> {
        self.scanouts.get_mut(usize::try_from(id).ok()?)
    }

    fn cursor(&mut self, id: u32) -> Option<&mut Cursor> {
        self.cursors.get_mut(usize::try_from(id).ok()?)
    }

    /// Whether scanout `id` shows the part `rect` of `image` already.
    pub fn shows(&self, id: u32, image: &SharedImage, rect: &Rect) -> bool {
        let scanout = usize::try_from(id).ok().and_then(|i| self.scanouts.get(i));
        scanout
            .and_then(|scanout| scanout.view.as_ref())
            .is_some_and(|view| view.image.is(image) && view.rect == *rect)
    }

    /// Has scanout `id` show `view`. The display gets all of it with the first flush, unless that
    /// is what it shows already.
    pub fn show(&mut self, id: u32, view: ScanoutSource) {
        if !self.shows(id, &view.image, &view.rect)
            && let Some(scanout) = self.scanout(id)
        {
            scanout.set(Some(view));
        }
    }

    /// Disables scanout `id`.
    pub fn disable(&mut self, id: u32) {
        if let Some(scanout) = self.scanout(id) {
            scanout.set(None);
        }
    }

    /// Disables the scanouts that show `image`.
    pub fn forget_image(&mut self, image: &SharedImage) {
        for scanout in &mut self.scanouts {
            if scanout.view.as_ref().is_some_and(|v| v.image.is(image)) {
                scanout.set(None);
            }
        }
    }

    /// Notes that `region` of `image` changed.
    pub fn changed(&mut self, image: &SharedImage, region: &Region) {
        for (scanout, view) in showing(&mut self.scanouts, image) {
            for rect in region.rects() {
                if let Some(part) = rect.intersection(&view) {
                    scanout.changed.add(part.relative_to(&view));
                }
            }
        }
    }

    /// The parts of `image` that a flush of `rect` sends if they changed: those within it that a
    /// scanout shows by pixels, or all that it shows if it has not been sent anything of it.
    pub fn wanted(&mut self, image: &SharedImage, rect: &Rect) -> Region {
        let mut wanted = Region::default();
        let takes = self.takes;
        for (scanout, view) in showing(&mut self.scanouts, image) {
            if scanout.dmabuf(takes).is_none()
                && let Some(part) = rect.intersection(&view)
            {
                wanted.add(if scanout.fresh { view } else { part });
            }
        }
        wanted
    }

    /// Has the displays brought up to date within `rect` of `image`: each scanout that shows it is
    /// sent what changed there, or everything if it has not been sent anything of its view.
    pub fn flush(&mut self, image: &SharedImage, rect: &Rect) {
        let takes = self.takes;
        for (scanout, view) in showing(&mut self.scanouts, image) {
            let Some(part) = rect.intersection(&view) else {
                continue;
            };
            let part = part.relative_to(&view);
            let is_first = std::mem::take(&mut scanout.fresh);
            if scanout.dmabuf(takes).is_some() {
                let part = if is_first { scanout.everything() } else { part };
                scanout.flushed = Some(around(scanout.flushed, part));
            } else if is_first {
                scanout.send_all();
            } else {
                scanout.changed.take_within(&part, &mut scanout.due);
            }
        }
    }

    /// Whether something of a buffer was flushed whose drawing nobody waits for yet.
    pub fn wants_fence(&self) -> bool {
        self.fence.is_none() && self.scanouts.iter().any(|s| s.flushed.is_some())
    }

    /// Has all that was flushed of buffers sent when [`Scanouts::drawn`] is called next: at `fence`.
    pub fn draw(&mut self, fence: Option<Fence>) {
        self.fence = fence;
        for scanout in &mut self.scanouts {
            if let Some(rect) = scanout.flushed.take() {
                scanout.drawing = Some(around(scanout.drawing, rect));
            }
        }
    }

    /// The fence that [`Scanouts::drawn`] waits for.
    pub fn fence(&self) -> Option<Fence> {
        self.fence
    }

    /// What was waited for is drawn.
    pub fn drawn(&mut self) {
        self.fence = None;
        for scanout in &mut self.scanouts {
            if let Some(rect) = scanout.drawing.take() {
                scanout.due.add(rect);
            }
        }
    }

    /// The display takes `takes` from now on. What is shown in another way then is sent again: the
    /// pixels once [`Scanouts::unread`] was heeded.
    pub fn set_takes(&mut self, takes: DmabufSupport) {
        let old = std::mem::replace(&mut self.takes, takes);
        for scanout in &mut self.scanouts {
            let (was, is) = (
                scanout.dmabuf(old).is_some(),
                scanout.dmabuf(takes).is_some(),
            );
            if was == is {
                continue;
            }
            scanout.changed.clear();
            scanout.due.clear();
            (scanout.flushed, scanout.drawing) = (None, None);
            scanout.passed_on = false;
            scanout.unread = !is && !scanout.fresh;
            if is && !scanout.fresh {
                scanout.flushed = Some(scanout.everything());
            }
        }
    }

    /// A resource, and the part of it, that is to be read because its pixels take the place of its
    /// buffer.
    pub fn unread(&self) -> Option<(u32, Rect)> {
        let scanout = self.scanouts.iter().find(|scanout| scanout.unread)?;
        let view = scanout.view.as_ref()?;
        Some((view.resource, view.rect))
    }

    /// The part `rect` of `resource` was read, or cannot be: then the next flush tries again.
    pub fn was_read(&mut self, resource: u32, rect: &Rect, is_read: bool) {
        for scanout in self.scanouts.iter_mut().filter(|scanout| scanout.unread) {
            let view = scanout.view.as_ref();
            if view.is_some_and(|v| v.resource == resource && v.rect == *rect) {
                scanout.unread = false;
                scanout.fresh = !is_read;
                if is_read {
                    scanout.send_all();
                }
            }
        }
    }

    /// Moves, hides or shows the cursor of scanout `id`.
    pub fn move_cursor(&mut self, id: u32, position: Position) {
        if let Some(cursor) = self.cursor(id) {
            cursor.position = position;
            cursor.moved = true;
        }
    }

    /// Gives the cursor of scanout `id` a new shape, and shows it.
    pub fn shape_cursor(&mut self, id: u32, position: Position, shape: Shape) {
        if let Some(cursor) = self.cursor(id) {
            *cursor = Cursor {
                position,
                shape: Some(shape),
                told: cursor.told,
                moved: true,
                shaped: true,
            };
        }
    }

    /// Begins with a display that knows nothing: all that was flushed is sent to it.
    pub fn new_display(&mut self) {
        self.takes = DmabufSupport::default();
        for scanout in &mut self.scanouts {
            scanout.told = Told::Nothing;
            scanout.passed_on = false;
            // An image that is still to be read has a buffer to be passed on again.
            scanout.unread = false;
            if scanout.view.is_some() && !scanout.fresh {
                scanout.send_all();
            }
        }
        for cursor in &mut self.cursors {
            cursor.told = false;
            cursor.shaped = cursor.shape.is_some();
            cursor.moved = cursor.shaped;
        }
    }

    /// Disables all scanouts and forgets the cursors; the display is told.
    pub fn reset(&mut self) {
        self.fence = None;
        for scanout in &mut self.scanouts {
            scanout.set(None);
        }
        for cursor in &mut self.cursors {
            *cursor = Cursor {
                moved: cursor.told && cursor.position.visible,
                ..Cursor::default()
            };
        }
    }

    /// What the display is to be sent next: nothing of a buffer while it `is_updating`, which is
    /// until it answered the last [`Update::DmabufDamage`]. Cursors first: they are small and the
    /// user's hand waits for them.
    pub fn take_update(&mut self, is_updating: bool) -> Option<Update> {
        for (id, cursor) in (0..).zip(&mut self.cursors) {
            if let Some(update) = cursor.next(id) {
                return Some(update);
            }
        }
        for step in 0..MAX_SCANOUTS {
            let index = (self.turn + step) % MAX_SCANOUTS;
            let scanout = self.scanouts.get_mut(index)?;
            if let Some(update) = scanout.next(index as u32, self.takes, is_updating) {
                // A buffer's first update goes with it.
                let is_begun = matches!(
                    update,
                    Update::Dmabuf {
                        dmabuf: Some(_),
                        ..
                    }
                );
                self.turn = index + usize::from(!is_begun);
                return Some(update);
            }
        }
        None
    }

    /// The scanouts that show something: their sizes, and whether as a buffer.
    pub fn active_scanouts(&self) -> impl Iterator<Item = ((u32, u32), bool)> {
        let shown = self.scanouts.iter().filter(|s| s.view.is_some());
        shown.map(|s| (s.size(), s.dmabuf(self.takes).is_some()))
    }
}

fn around(old: Option<Rect>, rect: Rect) -> Rect {
    old.map_or(rect, |old| old.around(&rect))
}

/// The scanouts that show `image`, and which part of it each shows.
fn showing<'a>(
    scanouts: &'a mut [Scanout],
    image: &'a SharedImage,
) -> impl Iterator<Item = (&'a mut Scanout, Rect)> {
    scanouts.iter_mut().filter_map(move |scanout| {
        let view = scanout.view.as_ref().filter(|v| v.image.is(image))?;
        let rect = view.rect;
        Some((scanout, rect))
    })
}

#[cfg(test)]
mod tests;
