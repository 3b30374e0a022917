//! What draws: the part behind the commands that holds the resources and their pixels.

use std::os::fd::BorrowedFd;

use crate::backend::MemoryGuard;

use super::backing::{Backing, BackingError};
use super::dmabuf::Dmabuf;
use super::image::{ImageError, SharedImage};
use super::protocol::{CapsetInfo, Create3d, Format, Transfer2d, Transfer3d};
use super::region::{Rect, Region};

mod rows;
mod software;
mod table;
#[cfg(test)]
mod testing;
#[cfg(feature = "virgl")]
pub mod virgl;

pub use software::SoftwareRenderer;
#[cfg(feature = "virgl")]
pub use virgl::VirglRenderer;

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
    #[error("resource {id} is out of bounds or more than a GPU has: {new:?}")]
    OutOfBounds { id: u32, new: Create3d },
    #[error("resource {id}, {new:?}, is no picture that a display could show")]
    NoPicture { id: u32, new: Create3d },
    #[error("{transfer:?} does not lie within its resource")]
    Transfer { transfer: Transfer3d },
    #[error("resource {0}: the renderer refuses the command")]
    Refused(u32),
    #[error(
        "resource {id}: the program has {excess} bytes more than the VM's host memory budget and what OpenGL needs"
    )]
    Excess { id: u32, excess: u64 },
}

/// Why a command on a rendering context is refused.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ContextError {
    #[error("context 0 cannot be made")]
    Zero,
    #[error("context {0} exists already")]
    Exists(u32),
    #[error("there is no context {0}")]
    Unknown(u32),
    #[error("there are {0} contexts already, the most there can be")]
    TooMany(usize),
    #[error("context {0}: the renderer refuses the command")]
    Refused(u32),
    #[error(
        "{0} bytes for what a context makes are more than what is left of the VM's host memory budget"
    )]
    Budget(u64),
    #[error(
        "the program has {0} bytes more than the VM's host memory budget and what OpenGL needs"
    )]
    Excess(u64),
    #[error("context {context}: virgl's command {command} makes memory that nobody accounts for")]
    Unaccounted { context: u32, command: u32 },
    #[error(transparent)]
    Resource(#[from] ResourceError),
}

/// A point in the work of a renderer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence(pub u32);

/// Work that is done in one go, before the others have their turn: bytes that are copied, and for each
/// piece of the guest's memory that they come from [`PIECE_WORK`].
pub const WORK: u64 = 32 << 20;
/// What a piece of the guest's memory counts for: to get there takes as long as to copy so many bytes.
pub const PIECE_WORK: u64 = 256;

/// What was done of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// How many of its rows.
    pub rows: u32,
    /// How much work that was.
    pub work: u64,
}

/// Which way a transfer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the guest's pages into the resource.
    ToHost,
    /// From the resource into the guest's pages.
    FromHost,
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

    /// Columns and rows of a resource in which `rect` lies.
    ///
    /// # Errors
    /// Where there is none with that id, or the rectangle lies outside it.
    fn check_within(&self, id: u32, rect: Rect) -> Result<(u32, u32), ResourceError> {
        let (width, height) = self.size(id)?;
        if rect.lies_within(width, height) {
            return Ok((width, height));
        }
        Err(ResourceError::Outside {
            id,
            rect,
            width,
            height,
        })
    }

    /// An empty backing for a resource, whose pieces are added before it is attached.
    ///
    /// # Errors
    /// Where there is no such resource, or it has a backing.
    fn new_backing(&self, id: u32) -> Result<Backing, ResourceError>;

    /// Attaches the guest's pages to a resource.
    ///
    /// # Errors
    /// As [`Renderer::new_backing`], and where the pages are not the guest's.
    fn attach_backing(
        &mut self,
        id: u32,
        backing: Backing,
        memory: &MemoryGuard,
    ) -> Result<(), ResourceError>;

    /// Forgets the guest's pages.
    ///
    /// # Errors
    /// Where there is no such resource, or it has no backing.
    fn detach_backing(&mut self, id: u32) -> Result<(), ResourceError>;

    /// Copies rows of `transfer` from the backing: those from `first` on, as many as can be copied
    /// without the others having to wait for it ([`WORK`]), and at least one. Adds the pixels that
    /// changed to `changed`: also where it fails half-way. Tells how many rows were copied, and the
    /// work.
    ///
    /// # Errors
    /// Where the whole rectangle lies outside the resource or the backing.
    fn transfer_to_host_2d(
        &mut self,
        transfer: &Transfer2d,
        first: u32,
        memory: &MemoryGuard,
        changed: &mut Region,
    ) -> Result<Copied, ResourceError>;

    /// The image that a scanout of the resource shows, made where there was none yet.
    ///
    /// # Errors
    /// Where there is no resource with that id, or it is nothing that could be shown.
    fn image(&mut self, id: u32) -> Result<SharedImage, ResourceError>;

    /// The image that scanouts of the resource show, if any ever did.
    ///
    /// # Errors
    /// Where there is no resource with that id.
    fn scanout_image(&self, id: u32) -> Result<Option<SharedImage>, ResourceError>;

    /// Brings the resource's image up to date within `wanted`, which lies within it, and adds the
    /// pixels that changed to `changed`: also where it fails half-way.
    ///
    /// # Errors
    /// Where the pixels cannot be had.
    fn read_back(
        &mut self,
        _id: u32,
        _wanted: &Region,
        _changed: &mut Region,
    ) -> Result<(), ResourceError> {
        Ok(())
    }

    /// Whether [`Renderer::export`] may succeed.
    fn exports(&self) -> bool {
        false
    }

    /// The resource as a buffer that others can use, which has what is drawn from now on, too;
    /// `None` where there is none to be had of it.
    fn export(&mut self, _id: u32) -> Option<Dmabuf> {
        None
    }

    /// The pixels of a resource as a cursor.
    ///
    /// # Errors
    /// Where there is none with that id, or it is not of a cursor's size.
    fn cursor(&mut self, id: u32) -> Result<CursorPixels, ResourceError>;

    /// The name by which other devices of the guest know the resource, if it was given one.
    ///
    /// # Errors
    /// Where there is none with that id.
    fn uuid(&mut self, id: u32) -> Result<&mut Option<[u8; 16]>, ResourceError>;

    /// Forgets all that a driver made.
    fn reset(&mut self);

    /// The guest's memory was mapped anew.
    fn memory_changed(&mut self, _memory: &MemoryGuard) {}

    /// Bytes of the budget that never come back, for what is behind the renderer has lost them.
    #[cfg(feature = "fuzzing")]
    fn lost(&self) -> u64 {
        0
    }

    /// What draws, in words, where there is a choice.
    fn name(&self) -> Option<&str> {
        None
    }

    /// The same renderer's 3D commands, where it has them.
    fn as_3d(&mut self) -> Option<&mut dyn Renderer3d> {
        None
    }
}

/// What only 3D rendering does. A context, too, is known by the driver's id.
pub trait Renderer3d {
    /// The sets of capabilities, by their index.
    fn capsets(&self) -> &[CapsetInfo];

    /// A set of capabilities in one of its versions; `None` where there is no such set or version.
    fn capset(&mut self, id: u32, version: u32) -> Option<Vec<u8>>;

    /// Makes a context.
    ///
    /// # Errors
    /// Where the id is taken or 0, or there are too many.
    fn create_context(&mut self, id: u32, name: &[u8]) -> Result<(), ContextError>;

    /// Destroys a context.
    ///
    /// # Errors
    /// Where there is none with that id.
    fn destroy_context(&mut self, id: u32) -> Result<(), ContextError>;

    /// Lets a context use a resource.
    ///
    /// # Errors
    /// Where there is no such context or resource.
    fn attach_resource(&mut self, context: u32, id: u32) -> Result<(), ContextError>;

    /// No longer lets a context use a resource.
    ///
    /// # Errors
    /// Where there is no such context or resource.
    fn detach_resource(&mut self, context: u32, id: u32) -> Result<(), ContextError>;

    /// Makes a resource.
    ///
    /// # Errors
    /// Where the id is taken or 0, its sizes are out of bounds, or the memory is not there.
    fn create_3d(&mut self, new: &Create3d) -> Result<(), ResourceError>;

    /// Copies between a resource and its backing.
    ///
    /// # Errors
    /// Where the transfer lies outside either, or there is no such context or resource.
    fn transfer_3d(
        &mut self,
        context: u32,
        transfer: &Transfer3d,
        direction: Direction,
    ) -> Result<(), ContextError>;

    /// Executes a command stream in a context. `stream` is of no more use then.
    ///
    /// # Errors
    /// Where there is no such context, or something in the stream is wrong: what came before is done.
    fn submit(&mut self, context: u32, stream: &mut [u32]) -> Result<(), ContextError>;

    /// A fence after all that was begun so far; `None` where that is done already.
    fn fence(&mut self) -> Option<Fence>;

    /// Finds out what [`Renderer3d::is_retired`] tells.
    fn poll_fences(&mut self);

    /// Whether all that was begun before `fence` is done.
    fn is_retired(&self, fence: Fence) -> bool;

    /// Is readable when [`Renderer3d::poll_fences`] is to be called.
    fn fence_event(&self) -> BorrowedFd<'_>;
}
