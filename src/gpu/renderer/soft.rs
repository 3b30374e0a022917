//! 2D in the host's memory: one copy out of the guest's pages, none after it.

use std::collections::HashMap;

use crate::backend::MemoryGuard;

use super::super::backing::{Backing, BackingError};
use super::super::image::{Budget, Charge, Image, ImageError, PIXEL_LEN, SharedImage};
use super::super::region::{Rect, Region};
use super::super::wire::Format;
use super::rows::{Joined, to_display_order};
use super::{CURSOR_LEN, CURSOR_SIDE, CursorPixels, Renderer, ResourceError};

/// Most resources a VM has at a time.
const MAX_RESOURCES: usize = 16384;
/// What a resource is charged besides its pixels: its entry in the table, rounded up.
const RESOURCE_COST: u64 = 512;

struct Resource {
    format: Format,
    width: u32,
    height: u32,
    image: SharedImage,
    backing: Option<Backing>,
    uuid: Option<[u8; 16]>,
    _charge: Charge,
}

/// The renderer without a GPU.
pub struct SoftRenderer {
    resources: HashMap<u32, Resource>,
    budget: Budget,
    /// One row on its way from the guest, kept for the next.
    row: Vec<u8>,
}

impl SoftRenderer {
    /// A renderer whose resources take their memory from `budget`.
    pub fn new(budget: Budget) -> Self {
        Self {
            resources: HashMap::new(),
            budget,
            row: Vec::new(),
        }
    }

    fn get(&self, id: u32) -> Result<&Resource, ResourceError> {
        self.resources.get(&id).ok_or(ResourceError::Unknown(id))
    }

    fn get_mut(&mut self, id: u32) -> Result<&mut Resource, ResourceError> {
        self.resources
            .get_mut(&id)
            .ok_or(ResourceError::Unknown(id))
    }
}

impl Renderer for SoftRenderer {
    fn create_2d(
        &mut self,
        id: u32,
        format: Format,
        width: u32,
        height: u32,
    ) -> Result<(), ResourceError> {
        if id == 0 {
            return Err(ResourceError::Zero);
        }
        if self.resources.contains_key(&id) {
            return Err(ResourceError::Exists(id));
        }
        if self.resources.len() >= MAX_RESOURCES {
            return Err(ResourceError::TooMany(MAX_RESOURCES));
        }
        let charge = self.budget.charge(RESOURCE_COST);
        let charge = charge.ok_or(ImageError::Budget(RESOURCE_COST));
        let (charge, image) = charge
            .and_then(|charge| Ok((charge, Image::new(width, height, &self.budget)?)))
            .map_err(|error| ResourceError::Image { id, error })?;
        let resource = Resource {
            format,
            width,
            height,
            image: SharedImage::new(image),
            backing: None,
            uuid: None,
            _charge: charge,
        };
        self.resources.insert(id, resource);
        Ok(())
    }

    fn unref(&mut self, id: u32) -> Result<(), ResourceError> {
        match self.resources.remove(&id) {
            Some(_) => Ok(()),
            None => Err(ResourceError::Unknown(id)),
        }
    }

    fn size(&self, id: u32) -> Result<(u32, u32), ResourceError> {
        let resource = self.get(id)?;
        Ok((resource.width, resource.height))
    }

    fn wants_backing(&self, id: u32) -> Result<(), ResourceError> {
        match self.get(id)?.backing {
            Some(_) => Err(ResourceError::HasBacking(id)),
            None => Ok(()),
        }
    }

    fn attach_backing(
        &mut self,
        id: u32,
        pieces: Vec<(u64, u32)>,
        memory: &MemoryGuard,
    ) -> Result<(), ResourceError> {
        self.wants_backing(id)?;
        let backing = Backing::new(&pieces, memory, &self.budget)
            .map_err(|error| ResourceError::Backing { id, error })?;
        self.get_mut(id)?.backing = Some(backing);
        Ok(())
    }

    fn detach_backing(&mut self, id: u32) -> Result<(), ResourceError> {
        match self.get_mut(id)?.backing.take() {
            Some(_) => Ok(()),
            None => Err(ResourceError::NoBacking(id)),
        }
    }

    fn transfer_to_host_2d(
        &mut self,
        id: u32,
        rect: Rect,
        offset: u64,
        memory: &MemoryGuard,
        changed: &mut Region,
    ) -> Result<(), ResourceError> {
        let resource = self.resources.get(&id).ok_or(ResourceError::Unknown(id))?;
        let (width, height) = (resource.width, resource.height);
        if !rect.lies_within(width, height) {
            return Err(ResourceError::Outside {
                id,
                rect,
                width,
                height,
            });
        }
        let backing = resource
            .backing
            .as_ref()
            .ok_or(ResourceError::NoBacking(id))?;
        if rect.is_empty() {
            return Ok(());
        }
        let stride = u64::from(width) * PIXEL_LEN as u64;
        let row_len = rect.width as usize * PIXEL_LEN;
        let needed = offset
            .saturating_add(u64::from(rect.height - 1) * stride)
            .saturating_add(row_len as u64);
        let failed = |error| ResourceError::Backing { id, error };
        if needed > backing.len() {
            let has = backing.len();
            return Err(failed(BackingError::Short { has, needed }));
        }
        let mut image = resource.image.lock();
        let mut joined = Joined::new(changed);
        self.row.resize(row_len, 0);
        let all = rect.x..rect.x.saturating_add(rect.width);
        // Whether the row before changed from end to end, as this one may have.
        let mut all_changed = true;
        for line in 0..rect.height {
            let from = offset.saturating_add(u64::from(line) * stride);
            let y = rect.y.saturating_add(line);
            let read = |at: u64, into: &mut [u8]| {
                let read = backing.read_at(memory, from.saturating_add(at), into);
                to_display_order(resource.format, into);
                read.map_err(failed)
            };
            let differs = |column: u32| {
                let mut pixel = [0; PIXEL_LEN];
                read(u64::from(column) * PIXEL_LEN as u64, &mut pixel)?;
                let x = rect.x.saturating_add(column);
                Ok(image.bytes(x, y, PIXEL_LEN) != pixel)
            };
            if all_changed && differs(0)? && differs(rect.width - 1)? {
                // All of it is sent whatever lies between, so it needs no look at, and no way round.
                joined.row(y, all.clone());
                read(0, image.bytes_mut(rect.x, y, row_len))?;
                continue;
            }
            read(0, &mut self.row)?;
            let changed = image.merge_row(rect.x, y, &self.row);
            all_changed = changed.as_ref() == Some(&all);
            if let Some(columns) = changed {
                joined.row(y, columns);
            }
        }
        Ok(())
    }

    fn image(&mut self, id: u32) -> Result<SharedImage, ResourceError> {
        Ok(self.get(id)?.image.clone())
    }

    fn shown(&self, id: u32) -> Result<Option<SharedImage>, ResourceError> {
        Ok(Some(self.get(id)?.image.clone()))
    }

    fn cursor(&mut self, id: u32) -> Result<CursorPixels, ResourceError> {
        let resource = self.get(id)?;
        let (width, height) = (resource.width, resource.height);
        let mut pixels = Box::new([0; CURSOR_LEN]);
        let image = resource.image.lock();
        let bytes = image.bytes(0, 0, CURSOR_LEN);
        if (width, height) != (CURSOR_SIDE, CURSOR_SIDE) || bytes.len() != CURSOR_LEN {
            return Err(ResourceError::NoCursor { id, width, height });
        }
        pixels.copy_from_slice(bytes);
        Ok(pixels)
    }

    fn uuid(&mut self, id: u32) -> Result<&mut Option<[u8; 16]>, ResourceError> {
        Ok(&mut self.get_mut(id)?.uuid)
    }

    fn reset(&mut self) {
        self.resources = HashMap::new();
        self.row = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

    use super::*;

    const WIDTH: u32 = 8;
    const HEIGHT: u32 = 64;
    const LEN: u32 = WIDTH * HEIGHT * 4;

    fn memory() -> MemoryGuard {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
        let memory = GuestMemoryAtomic::new(memory).memory();
        for i in 0..LEN {
            let byte = (i % 255) as u8 + 1;
            memory.write_obj(byte, GuestAddress(i.into())).unwrap();
        }
        memory
    }

    fn renderer(format: Format, memory: &MemoryGuard) -> SoftRenderer {
        let mut renderer = SoftRenderer::new(Budget::new(1 << 20));
        renderer.create_2d(1, format, WIDTH, HEIGHT).unwrap();
        renderer.attach_backing(1, vec![(0, LEN)], memory).unwrap();
        renderer
    }

    fn pixel(renderer: &SoftRenderer, x: u32, y: u32) -> Vec<u8> {
        let image = renderer.shown(1).unwrap().unwrap();
        image.lock().bytes(x, y, 4).to_vec()
    }

    fn guest(x: u32, y: u32) -> [u8; 4] {
        let at = (y * WIDTH + x) * 4;
        [0, 1, 2, 3].map(|i| ((at + i) % 255) as u8 + 1)
    }

    #[test]
    fn exactly_the_rectangle_is_copied() {
        let memory = memory();
        let mut renderer = renderer(Format::B8G8R8X8, &memory);
        let rect = Rect {
            x: 2,
            y: 3,
            width: 3,
            height: 2,
        };
        let offset = u64::from((3 * WIDTH + 2) * 4);
        let mut changed = Region::default();
        renderer
            .transfer_to_host_2d(1, rect, offset, &memory, &mut changed)
            .unwrap();
        assert_eq!(changed.rects(), [rect]);
        for y in 0..HEIGHT {
            for x in 0..WIDTH {
                let inside = (2..5).contains(&x) && (3..5).contains(&y);
                let expected = if inside { guest(x, y) } else { [0; 4] };
                assert_eq!(pixel(&renderer, x, y), expected, "{x},{y}");
            }
        }
    }

    #[test]
    fn the_offset_is_that_of_the_first_pixel() {
        let memory = memory();
        let mut renderer = renderer(Format::B8G8R8A8, &memory);
        let rect = Rect {
            x: 5,
            y: 7,
            width: 1,
            height: 2,
        };
        renderer
            .transfer_to_host_2d(1, rect, 4, &memory, &mut Region::default())
            .unwrap();
        assert_eq!(pixel(&renderer, 5, 7), guest(1, 0));
        assert_eq!(pixel(&renderer, 5, 8), guest(1, 1));
    }

    #[test]
    fn all_formats_arrive_in_the_displays_order() {
        let memory = memory();
        // Where blue, green and red lie in the guest's pixel.
        let order = |format| match format {
            Format::B8G8R8A8 | Format::B8G8R8X8 => [0, 1, 2],
            Format::A8R8G8B8 | Format::X8R8G8B8 => [3, 2, 1],
            Format::R8G8B8A8 | Format::R8G8B8X8 => [2, 1, 0],
            Format::A8B8G8R8 | Format::X8B8G8R8 => [1, 2, 3],
        };
        for format in Format::ALL {
            let mut renderer = renderer(format, &memory);
            let all = Rect::sized(WIDTH, HEIGHT);
            renderer
                .transfer_to_host_2d(1, all, 0, &memory, &mut Region::default())
                .unwrap();
            let expected = order(format).map(|i: usize| guest(3, 2)[i]);
            assert_eq!(pixel(&renderer, 3, 2)[..3], expected, "{format:?}");
        }
    }

    #[test]
    fn only_what_differs_counts_as_changed() {
        let memory = memory();
        let mut renderer = renderer(Format::B8G8R8X8, &memory);
        let all = Rect::sized(WIDTH, HEIGHT);
        let mut transfer = |memory| {
            let mut changed = Region::default();
            renderer
                .transfer_to_host_2d(1, all, 0, memory, &mut changed)
                .unwrap();
            changed.rects().to_vec()
        };
        assert_eq!(transfer(&memory), [all]);
        assert_eq!(transfer(&memory), []);
        for (x, y) in [(1_u32, 2_u32), (4, 5), (7, 60)] {
            let at = GuestAddress(u64::from((y * WIDTH + x) * 4));
            memory.write_obj(0_u8, at).unwrap();
        }
        let near = Rect {
            x: 1,
            y: 2,
            width: 4,
            height: 4,
        };
        let far = Rect {
            x: 7,
            y: 60,
            width: 1,
            height: 1,
        };
        assert_eq!(transfer(&memory), [near, far]);
    }

    #[test]
    fn rows_arrive_whatever_those_before_them_were() {
        let memory = memory();
        let mut renderer = renderer(Format::R8G8B8X8, &memory);
        let all = Rect::sized(WIDTH, HEIGHT);
        let (right, first) = (WIDTH - 1, GuestAddress(0));
        // By row: the columns that change, in turn at both ends, within, on one side, nowhere.
        let columns = |y: u32, turn: u32| match (y * 7 + turn) % 5 {
            0 => vec![0, right],
            1 => (0..WIDTH).collect(),
            2 => vec![3],
            3 => vec![right],
            _ => vec![],
        };
        for turn in 0..20_u32 {
            let mut bytes = vec![0; LEN as usize];
            memory.read_slice(&mut bytes, first).unwrap();
            for y in 0..HEIGHT {
                for x in columns(y, turn) {
                    bytes[((y * WIDTH + x) * 4) as usize] ^= 0x55;
                }
            }
            memory.write_slice(&bytes, first).unwrap();
            let mut changed = Region::default();
            renderer
                .transfer_to_host_2d(1, all, 0, &memory, &mut changed)
                .unwrap();
            for (n, guest) in (0..).zip(bytes.chunks(4)) {
                let (x, y) = (n % WIDTH, n / WIDTH);
                let expected = [guest[2], guest[1], guest[0], guest[3]];
                assert_eq!(pixel(&renderer, x, y), expected, "{x},{y} in turn {turn}");
                if columns(y, turn).contains(&x) {
                    let (width, height) = (1, 1);
                    let one = Rect {
                        x,
                        y,
                        width,
                        height,
                    };
                    let told = changed.rects().iter();
                    assert!(told.map(|r| r.intersection(&one)).any(|r| r == Some(one)));
                }
            }
        }
    }

    #[test]
    fn a_transfer_that_fails_half_way_tells_what_it_changed() {
        let whole = memory();
        let mut renderer = SoftRenderer::new(Budget::new(1 << 20));
        renderer
            .create_2d(1, Format::B8G8R8X8, WIDTH, HEIGHT)
            .unwrap();
        let pieces = [(0, WIDTH * 4), (0x8000, LEN)];
        renderer.attach_backing(1, pieces.to_vec(), &whole).unwrap();
        let less = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x8000)]).unwrap();
        let less = GuestMemoryAtomic::new(less).memory();
        less.write_slice(&[9; 32], GuestAddress(0)).unwrap();
        let mut changed = Region::default();
        let all = Rect::sized(WIDTH, HEIGHT);
        let result = renderer.transfer_to_host_2d(1, all, 0, &less, &mut changed);
        assert!(matches!(result, Err(ResourceError::Backing { .. })));
        assert_eq!(changed.rects(), [Rect::sized(WIDTH, 1)]);
    }

    #[test]
    fn the_number_of_resources_is_bounded() {
        let mut renderer = SoftRenderer::new(Budget::new(1 << 30));
        let count = MAX_RESOURCES as u32;
        for id in 1..=count {
            renderer.create_2d(id, Format::B8G8R8X8, 1, 1).unwrap();
        }
        assert!(matches!(
            renderer.create_2d(count + 1, Format::B8G8R8X8, 1, 1),
            Err(ResourceError::TooMany(_))
        ));
        renderer.unref(7).unwrap();
        renderer.create_2d(7, Format::B8G8R8X8, 1, 1).unwrap();
    }

    #[test]
    fn all_memory_comes_back() {
        let memory = memory();
        let mut renderer = renderer(Format::B8G8R8X8, &memory);
        let budget = renderer.budget.clone();
        assert!(budget.used() > u64::from(LEN));
        renderer.unref(1).unwrap();
        assert_eq!(budget.used(), 0);
        renderer.create_2d(1, Format::B8G8R8X8, 128, 128).unwrap();
        let shown = renderer.image(1).unwrap();
        renderer.reset();
        assert_eq!(budget.used(), 128 * 128 * 4);
        drop(shown);
        assert_eq!(budget.used(), 0);
    }
}
