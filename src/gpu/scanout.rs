//! What the displays are to show, and what of it they have not been sent yet.
//!
//! Nothing in here grows while a display does not read: it remembers what is to be sent, not the
//! messages. Two regions are kept for each scanout, in its own coordinates: `changed`, what
//! commands wrote since it was last sent, and `due`, the part of that which the driver flushed.

use super::image::SharedImage;
use super::region::{Rect, Region};
use super::renderer::CursorPixels;
use super::wire::MAX_SCANOUTS;

/// What a display is to be sent next.
#[derive(Debug)]
pub enum Update {
    /// The size of a scanout in pixels; 0 by 0 for one that is disabled.
    Scanout {
        /// The scanout.
        id: u32,
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// New pixels.
    Pixels {
        /// The scanout.
        id: u32,
        /// Where in the scanout.
        rect: Rect,
        /// Where they are read from.
        image: SharedImage,
        /// Where in the image.
        source: Rect,
    },
    /// A new cursor, and where it is.
    Cursor {
        /// The scanout.
        id: u32,
        /// Where on it.
        position: Position,
        /// The cursor.
        shape: Shape,
    },
    /// The cursor was moved or hidden.
    CursorPosition {
        /// The scanout.
        id: u32,
        /// Where on it.
        position: Position,
    },
}

/// Where a cursor is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Column of its hot spot.
    pub x: u32,
    /// Row of its hot spot.
    pub y: u32,
    /// Whether it can be seen.
    pub visible: bool,
}

/// How a cursor looks.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Column of the hot spot in it.
    pub hot_x: u32,
    /// Row of the hot spot in it.
    pub hot_y: u32,
    /// 64 by 64 pixels.
    pub pixels: CursorPixels,
}

/// What a scanout shows.
#[derive(Clone, Debug)]
struct View {
    image: SharedImage,
    /// The part of the image.
    rect: Rect,
}

#[derive(Debug, Default)]
struct Scanout {
    view: Option<View>,
    /// The size that the display was told last; `None` where it was told nothing.
    told: Option<(u32, u32)>,
    /// Whether nothing of this view was flushed yet: the display has something else.
    fresh: bool,
    changed: Region,
    due: Region,
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

    fn next(&mut self, id: u32) -> Option<Update> {
        let (width, height) = self.size();
        let told = self.told.unwrap_or_default();
        if told != (width, height) {
            self.told = Some((width, height));
            return Some(Update::Scanout { id, width, height });
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

#[derive(Debug, Default)]
struct Cursor {
    position: Position,
    shape: Option<Shape>,
    /// Whether the display was told where it is.
    told: bool,
    moved: bool,
    shaped: bool,
}

impl Cursor {
    fn next(&mut self, id: u32) -> Option<Update> {
        let position = self.position;
        self.told |= self.shaped || self.moved;
        if std::mem::take(&mut self.shaped)
            && let Some(shape) = self.shape.clone()
        {
            // The message shows the cursor; one that is hidden is hidden again right after.
            self.moved = !position.visible;
            return Some(Update::Cursor {
                id,
                position,
                shape,
            });
        }
        std::mem::take(&mut self.moved).then_some(Update::CursorPosition { id, position })
    }
}

/// All scanouts and cursors of a device.
#[derive(Debug, Default)]
pub struct Screen {
    scanouts: [Scanout; MAX_SCANOUTS],
    cursors: [Cursor; MAX_SCANOUTS],
    /// Where the search for something to send goes on, so that each scanout has its turn.
    turn: usize,
}

impl Screen {
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

    /// Has scanout `id` show the part `rect` of `image`. The display gets all of it with the first
    /// flush, unless that is what it shows already.
    pub fn show(&mut self, id: u32, image: SharedImage, rect: Rect) {
        if let Some(scanout) = self.scanout(id) {
            let shown = scanout.view.as_ref();
            if shown.is_some_and(|view| view.image.is(&image) && view.rect == rect) {
                return;
            }
            scanout.view = Some(View { image, rect });
            scanout.fresh = true;
            scanout.changed.clear();
            scanout.due.clear();
        }
    }

    /// Disables scanout `id`.
    pub fn disable(&mut self, id: u32) {
        if let Some(scanout) = self.scanout(id) {
            *scanout = Scanout {
                told: scanout.told,
                ..Scanout::default()
            };
        }
    }

    /// Disables the scanouts that show `image`.
    pub fn forget_image(&mut self, image: &SharedImage) {
        for scanout in &mut self.scanouts {
            if scanout.view.as_ref().is_some_and(|v| v.image.is(image)) {
                *scanout = Scanout {
                    told: scanout.told,
                    ..Scanout::default()
                };
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
    /// scanout shows, or all that a scanout shows if it has not been sent anything of it.
    pub fn wanted(&mut self, image: &SharedImage, rect: &Rect) -> Region {
        let mut wanted = Region::default();
        for (scanout, view) in showing(&mut self.scanouts, image) {
            if let Some(part) = rect.intersection(&view) {
                wanted.add(if scanout.fresh { view } else { part });
            }
        }
        wanted
    }

    /// Has the displays brought up to date within `rect` of `image`: each scanout that shows it is
    /// sent what changed there, or everything if it has not been sent anything of its view.
    pub fn flush(&mut self, image: &SharedImage, rect: &Rect) {
        for (scanout, view) in showing(&mut self.scanouts, image) {
            let Some(part) = rect.intersection(&view) else {
                continue;
            };
            if std::mem::take(&mut scanout.fresh) {
                scanout.changed.clear();
                scanout.due.clear();
                scanout.due.add(scanout.everything());
            } else {
                let part = part.relative_to(&view);
                scanout.changed.take_within(&part, &mut scanout.due);
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
        for scanout in &mut self.scanouts {
            scanout.told = None;
            if scanout.view.is_some() && !scanout.fresh {
                scanout.changed.clear();
                scanout.due.clear();
                scanout.due.add(scanout.everything());
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
        for scanout in &mut self.scanouts {
            *scanout = Scanout {
                told: scanout.told,
                ..Scanout::default()
            };
        }
        for cursor in &mut self.cursors {
            *cursor = Cursor {
                moved: cursor.told && cursor.position.visible,
                ..Cursor::default()
            };
        }
    }

    /// What the display is to be sent next. Cursors first: they are small and the user's hand
    /// waits for them.
    pub fn take_update(&mut self) -> Option<Update> {
        for (id, cursor) in (0..).zip(&mut self.cursors) {
            if let Some(update) = cursor.next(id) {
                return Some(update);
            }
        }
        for step in 0..MAX_SCANOUTS {
            let index = (self.turn + step) % MAX_SCANOUTS;
            let scanout = self.scanouts.get_mut(index)?;
            if let Some(update) = scanout.next(index as u32) {
                self.turn = index + 1;
                return Some(update);
            }
        }
        None
    }

    /// The sizes of the scanouts that show something.
    pub fn sizes(&self) -> impl Iterator<Item = (u32, u32)> {
        self.scanouts
            .iter()
            .filter(|s| s.view.is_some())
            .map(Scanout::size)
    }
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
mod tests {
    use super::super::image::{Budget, Image};
    use super::*;

    fn image() -> SharedImage {
        SharedImage::new(Image::new(100, 100, &Budget::new(1 << 20)).unwrap())
    }

    fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
        Rect {
            x,
            y,
            width,
            height,
        }
    }

    /// What is sent, as scanout, place in it and place in the image; sizes as `None`.
    fn sent(screen: &mut Screen) -> Vec<(u32, Rect, Option<Rect>)> {
        std::iter::from_fn(|| screen.take_update())
            .map(|update| match update {
                Update::Scanout { id, width, height } => (id, Rect::sized(width, height), None),
                Update::Pixels {
                    id, rect, source, ..
                } => (id, rect, Some(source)),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn change(screen: &mut Screen, image: &SharedImage, rect: Rect) {
        let mut region = Region::default();
        region.add(rect);
        screen.changed(image, &region);
    }

    #[test]
    fn two_scanouts_show_parts_in_their_own_coordinates() {
        let mut screen = Screen::default();
        let image = image();
        screen.show(0, image.clone(), rect(0, 0, 50, 100));
        screen.show(1, image.clone(), rect(50, 0, 50, 100));
        screen.flush(&image, &Rect::sized(100, 100));
        let whole = Rect::sized(50, 100);
        assert_eq!(
            sent(&mut screen),
            [
                (0, whole, None),
                (1, whole, None),
                (0, whole, Some(rect(0, 0, 50, 100))),
                (1, whole, Some(rect(50, 0, 50, 100))),
            ]
        );
        change(&mut screen, &image, rect(40, 10, 20, 5));
        assert_eq!(sent(&mut screen), []);
        screen.flush(&image, &rect(0, 0, 100, 12));
        assert_eq!(
            sent(&mut screen),
            [
                (0, rect(40, 10, 10, 2), Some(rect(40, 10, 10, 2))),
                (1, rect(0, 10, 10, 2), Some(rect(50, 10, 10, 2))),
            ]
        );
        screen.flush(&image, &rect(55, 0, 45, 100));
        assert_eq!(
            sent(&mut screen),
            [(1, rect(5, 12, 5, 3), Some(rect(55, 12, 5, 3)))]
        );
    }

    #[test]
    fn a_new_view_is_sent_whole_with_its_first_flush() {
        let mut screen = Screen::default();
        let (first, second) = (image(), image());
        let all = Rect::sized(100, 100);
        screen.show(0, first.clone(), all);
        screen.flush(&first, &all);
        sent(&mut screen);
        screen.show(0, second.clone(), all);
        change(&mut screen, &second, rect(1, 1, 1, 1));
        assert_eq!(sent(&mut screen), []);
        screen.flush(&second, &rect(1, 1, 1, 1));
        assert_eq!(sent(&mut screen), [(0, all, Some(all))]);
    }

    #[test]
    fn what_was_flushed_is_sent_although_the_view_is_set_again() {
        let mut screen = Screen::default();
        let image = image();
        let all = Rect::sized(100, 100);
        screen.show(0, image.clone(), all);
        screen.flush(&image, &all);
        sent(&mut screen);
        change(&mut screen, &image, rect(0, 0, 10, 10));
        change(&mut screen, &image, rect(50, 50, 1, 1));
        screen.flush(&image, &rect(0, 0, 10, 10));
        screen.show(0, image.clone(), all);
        let flushed = rect(0, 0, 10, 10);
        assert_eq!(sent(&mut screen), [(0, flushed, Some(flushed))]);
        screen.flush(&image, &all);
        let rest = rect(50, 50, 1, 1);
        assert_eq!(sent(&mut screen), [(0, rest, Some(rest))]);
    }

    #[test]
    fn unflushed_changes_wait() {
        let mut screen = Screen::default();
        let image = image();
        let all = Rect::sized(100, 100);
        screen.show(0, image.clone(), all);
        screen.flush(&image, &all);
        sent(&mut screen);
        change(&mut screen, &image, rect(0, 0, 10, 10));
        screen.flush(&image, &rect(50, 50, 10, 10));
        assert_eq!(sent(&mut screen), []);
        screen.flush(&image, &all);
        assert_eq!(
            sent(&mut screen),
            [(0, rect(0, 0, 10, 10), Some(rect(0, 0, 10, 10)))]
        );
    }

    #[test]
    fn a_new_display_gets_everything_flushed_before() {
        let mut screen = Screen::default();
        let image = image();
        let all = Rect::sized(100, 100);
        screen.show(2, image.clone(), all);
        screen.show(3, image.clone(), all);
        screen.flush(&image, &all);
        screen.show(3, image.clone(), rect(0, 0, 10, 10));
        sent(&mut screen);
        screen.new_display();
        let mut again = sent(&mut screen);
        again.sort_by_key(|(id, _, pixels)| (*id, pixels.is_some()));
        assert_eq!(
            again,
            [
                (2, all, None),
                (2, all, Some(all)),
                (3, Rect::sized(10, 10), None),
            ]
        );
    }

    #[test]
    fn an_image_that_goes_disables_its_scanouts() {
        let mut screen = Screen::default();
        let (first, second) = (image(), image());
        let all = Rect::sized(100, 100);
        screen.show(0, first.clone(), all);
        screen.show(1, second.clone(), all);
        sent(&mut screen);
        screen.forget_image(&first);
        assert_eq!(sent(&mut screen), [(0, Rect::default(), None)]);
        assert!(screen.sizes().eq([(100, 100)]));
        screen.reset();
        assert_eq!(sent(&mut screen), [(1, Rect::default(), None)]);
        assert_eq!(screen.sizes().count(), 0);
    }

    #[test]
    fn the_display_is_not_told_of_what_it_never_saw() {
        let mut screen = Screen::default();
        screen.disable(4);
        screen.reset();
        assert_eq!(sent(&mut screen), []);
        assert!(Screen::has(15));
        assert!(!Screen::has(16));
    }

    fn cursor_updates(screen: &mut Screen) -> Vec<(bool, Position)> {
        std::iter::from_fn(|| screen.take_update())
            .map(|update| match update {
                Update::Cursor { position, .. } => (true, position),
                Update::CursorPosition { position, .. } => (false, position),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn cursor_moves_become_one() {
        let mut screen = Screen::default();
        let at = |x, visible| Position { x, y: 1, visible };
        let shape = Shape {
            hot_x: 0,
            hot_y: 0,
            pixels: Box::new([0; 64 * 64 * 4]),
        };
        for x in 0..100 {
            screen.move_cursor(0, at(x, true));
        }
        assert_eq!(cursor_updates(&mut screen), [(false, at(99, true))]);
        screen.shape_cursor(0, at(1, true), shape);
        screen.move_cursor(0, at(2, true));
        assert_eq!(cursor_updates(&mut screen), [(true, at(2, true))]);
        screen.move_cursor(0, at(3, false));
        assert_eq!(cursor_updates(&mut screen), [(false, at(3, false))]);
        screen.new_display();
        let hidden = [(true, at(3, false)), (false, at(3, false))];
        assert_eq!(cursor_updates(&mut screen), hidden);
        screen.reset();
        assert_eq!(cursor_updates(&mut screen), []);
    }
}
