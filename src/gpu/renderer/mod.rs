//! What draws: the part behind the commands that holds the resources and their pixels.

use vm_memory::GuestMemoryMmap;

use super::backing::BackingError;
use super::image::{ImageError, SharedImage};
use super::region::{Rect, Region};
use super::wire::Format;

mod soft;

pub use soft::SoftRenderer;

/// Rows and columns of a cursor.
pub const CURSOR_SIDE: u32 = 64;
/// Bytes of a cursor's pixels.
pub const CURSOR_LEN: usize = 64 * 64 * 4;

/// A cursor's pixels, as the display takes them (blue, green, red, alpha).
pub type CursorPixels = Box<[u8; CURSOR_LEN]>;

/// Why a resource command is refused.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ResourceError {
    #[error("resource 0 cannot be made")]
    Zero,
    #[error("resource {0} exists already")]
    Exists(u32),
    #[error("there is no resource {0}")]
    Unknown(u32),
    #[error("there are {0} resources already, the most there can be")]
    TooMany(usize),
    #[error("resource {id}: {error}")]
    Image { id: u32, error: ImageError },
    #[error("resource {0} has a backing already")]
    HasBacking(u32),
    #[error("resource {0} has no backing")]
    NoBacking(u32),
    #[error("resource {id}: {error}")]
    Backing { id: u32, error: BackingError },
    #[error("{rect:?} does not lie within resource {id}, {width}x{height}")]
    Outside {
        id: u32,
        rect: Rect,
        width: u32,
        height: u32,
    },
    #[error("resource {id} is {width}x{height}, a cursor is 64x64")]
    NoCursor { id: u32, width: u32, height: u32 },
}

/// What 2D and 3D rendering do alike. A resource is known by the driver's id.
pub trait Renderer: Send + Sync {
    /// Makes a black 2D resource.
    ///
    /// # Errors
    /// Where the id is taken or 0, the size out of bounds, or the memory not there.
    fn create_2d(
        &mut self,
        id: u32,
        format: Format,
        width: u32,
        height: u32,
    ) -> Result<(), ResourceError>;

    /// Forgets a resource. What a message to the display still reads lives until it is sent.
    ///
    /// # Errors
    /// Where there is none with that id.
    fn unref(&mut self, id: u32) -> Result<(), ResourceError>;

    /// Columns and rows of a resource.
    ///
    /// # Errors
    /// Where there is none with that id.
    fn size(&self, id: u32) -> Result<(u32, u32), ResourceError>;

    /// Whether a backing can be attached now; asked before its list is read.
    ///
    /// # Errors
    /// Where there is no such resource, or it has a backing.
    fn wants_backing(&self, id: u32) -> Result<(), ResourceError>;

    /// Attaches the guest's pages, `pieces`, to a resource.
    ///
    /// # Errors
    /// As [`Renderer::wants_backing`], and where the pages are not the guest's.
    fn attach_backing(
        &mut self,
        id: u32,
        pieces: &[(u64, u32)],
        memory: &GuestMemoryMmap,
    ) -> Result<(), ResourceError>;

    /// Forgets the guest's pages.
    ///
    /// # Errors
    /// Where there is no such resource, or it has no backing.
    fn detach_backing(&mut self, id: u32) -> Result<(), ResourceError>;

    /// Copies `rect` from the backing, in which its first pixel lies at `offset`, and adds the
    /// pixels that changed to `changed`: also where it fails half-way.
    ///
    /// # Errors
    /// Where the rectangle lies outside the resource or the backing.
    fn transfer_to_host_2d(
        &mut self,
        id: u32,
        rect: Rect,
        offset: u64,
        memory: &GuestMemoryMmap,
        changed: &mut Region,
    ) -> Result<(), ResourceError>;

    /// The image that a scanout of the resource shows.
    ///
    /// # Errors
    /// Where there is none with that id.
    fn image(&self, id: u32) -> Result<SharedImage, ResourceError>;

    /// The pixels of a resource as a cursor.
    ///
    /// # Errors
    /// Where there is none with that id, or it is not of a cursor's size.
    fn cursor(&self, id: u32) -> Result<CursorPixels, ResourceError>;

    /// The name by which other devices of the guest know the resource, if it was given one.
    ///
    /// # Errors
    /// Where there is none with that id.
    fn uuid(&mut self, id: u32) -> Result<&mut Option<[u8; 16]>, ResourceError>;

    /// Forgets all resources.
    fn reset(&mut self);
}
