//! The commands of a stream that make, bind and destroy (virglrenderer, virgl_protocol.h).

/// `VIRGL_CCMD_*`.
const CREATE_OBJECT: u32 = 1;
const DESTROY_OBJECT: u32 = 3;
const SET_FRAMEBUFFER_STATE: u32 = 5;
const SET_VERTEX_BUFFERS: u32 = 6;
const SET_SAMPLER_VIEWS: u32 = 10;
const SET_INDEX_BUFFER: u32 = 11;
const SET_STREAMOUT_TARGETS: u32 = 25;
const SET_UNIFORM_BUFFER: u32 = 27;
const SET_SUB_CTX: u32 = 28;
const CREATE_SUB_CTX: u32 = 29;
const DESTROY_SUB_CTX: u32 = 30;
const SET_SHADER_BUFFERS: u32 = 34;
const SET_SHADER_IMAGES: u32 = 35;
const SET_ATOMIC_BUFFERS: u32 = 40;
const PIPE_RESOURCE_CREATE: u32 = 48;
const CREATE_VIDEO_CODEC: u32 = 53;
const CREATE_VIDEO_BUFFER: u32 = 55;

/// `VIRGL_OBJECT_*`.
const SHADER: u32 = 4;
const SAMPLER_VIEW: u32 = 6;
const SURFACE: u32 = 8;
const QUERY: u32 = 9;
const STREAMOUT_TARGET: u32 = 10;
const MSAA_SURFACE: u32 = 11;

/// Where something is bound. Numbers are shaders'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Slot {
    Color,
    Depth,
    Vertices,
    Indices,
    ScanoutSource(u32),
    Uniforms(u32),
    ShaderBuffer(u32),
    Image(u32),
    Atomic,
}

impl Slot {
    /// Whether there is such a kind of shader; others the library refuses.
    pub(super) fn exists(self) -> bool {
        /// `PIPE_SHADER_TYPES`, and some more.
        const SHADERS: u32 = 8;
        match self {
            Self::ScanoutSource(shader)
            | Self::Uniforms(shader)
            | Self::ShaderBuffer(shader)
            | Self::Image(shader) => shader < SHADERS,
            _ => true,
        }
    }
}

/// An object that is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) handle: u32,
    /// The resource it keeps.
    pub(super) resource: Option<u32>,
    pub(super) is_shader: bool,
    pub(super) is_query: bool,
    /// How long its description is.
    pub(super) words: usize,
}

/// Resources that are bound, from a place on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Binding<'a> {
    pub(super) slot: Slot,
    pub(super) first: u32,
    /// Whether nothing is bound beyond these.
    pub(super) is_all: bool,
    fields: &'a [u32],
    /// How many words there are for each, and which of them is the resource.
    len: usize,
    at: usize,
}

impl Binding<'_> {
    pub(super) fn resources(&self) -> impl ExactSizeIterator<Item = u32> {
        let each = self.fields.chunks_exact(self.len);
        each.map(|one| one.get(self.at).copied().unwrap_or(0))
    }
}

/// A command that changes who holds what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    Create(Object),
    Destroy(u32),
    Framebuffer {
        depth: u32,
        colors: &'a [u32],
    },
    SamplerViews {
        shader: u32,
        first: u32,
        handles: &'a [u32],
    },
    Targets(&'a [u32]),
    Bind(Binding<'a>),
    SetSub(u32),
    CreateSub(u32),
    DestroySub(u32),
    /// One that makes what is not accounted for, and that no driver has a use for here.
    Unaccounted(u32),
}

impl Command<'_> {
    /// The resources that it makes somebody hold.
    pub(super) fn resources(&self) -> Vec<u32> {
        match self {
            Self::Create(object) => object.resource.into_iter().collect(),
            Self::Bind(binding) => binding.resources().collect(),
            _ => Vec::new(),
        }
    }

    /// Whether it makes somebody hold objects.
    pub(super) fn has_handles(&self) -> bool {
        matches!(
            self,
            Self::Framebuffer { .. } | Self::SamplerViews { .. } | Self::Targets(_)
        )
    }
}

/// The commands of a stream that matter here. Those that are too short the library refuses.
pub(super) fn commands(stream: &[u32]) -> impl Iterator<Item = Command<'_>> {
    let mut rest = stream;
    std::iter::from_fn(move || {
        while let Some((header, behind)) = rest.split_first() {
            let (fields, next) = behind.split_at_checked((header >> 16) as usize)?;
            rest = next;
            if let Some(command) = command(*header, fields) {
                return Some(command);
            }
        }
        None
    })
}

fn command(header: u32, fields: &[u32]) -> Option<Command<'_>> {
    let field = |at: usize| fields.get(at).copied();
    let number = header & 0xff;
    Some(match number {
        CREATE_OBJECT => Command::Create(object(header >> 8 & 0xff, fields)?),
        DESTROY_OBJECT => Command::Destroy(field(0)?),
        SET_FRAMEBUFFER_STATE => Command::Framebuffer {
            depth: field(1)?,
            colors: fields.get(2..)?,
        },
        SET_SAMPLER_VIEWS => Command::SamplerViews {
            shader: field(0)?,
            first: field(1)?,
            handles: fields.get(2..)?,
        },
        SET_STREAMOUT_TARGETS => Command::Targets(fields.get(1..)?),
        SET_VERTEX_BUFFERS => Command::Bind(Binding {
            is_all: true,
            ..bind(Slot::Vertices, 0, fields, [3, 2])
        }),
        SET_INDEX_BUFFER => Command::Bind(bind(Slot::Indices, 0, fields.get(..1)?, [1, 0])),
        SET_UNIFORM_BUFFER => {
            let slot = Slot::Uniforms(field(0)?);
            Command::Bind(bind(slot, field(1)?, fields.get(4..5)?, [1, 0]))
        }
        SET_SHADER_BUFFERS => {
            let slot = Slot::ShaderBuffer(field(0)?);
            Command::Bind(bind(slot, field(1)?, fields.get(2..)?, [3, 2]))
        }
        SET_SHADER_IMAGES => {
            let slot = Slot::Image(field(0)?);
            Command::Bind(bind(slot, field(1)?, fields.get(2..)?, [5, 4]))
        }
        SET_ATOMIC_BUFFERS => {
            Command::Bind(bind(Slot::Atomic, field(0)?, fields.get(1..)?, [3, 2]))
        }
        SET_SUB_CTX => Command::SetSub(field(0)?),
        CREATE_SUB_CTX => Command::CreateSub(field(0)?),
        DESTROY_SUB_CTX => Command::DestroySub(field(0)?),
        PIPE_RESOURCE_CREATE | CREATE_VIDEO_CODEC | CREATE_VIDEO_BUFFER => {
            Command::Unaccounted(number)
        }
        _ => return None,
    })
}

/// The resources that are at `at` of every `len` words.
fn bind(slot: Slot, first: u32, fields: &[u32], [len, at]: [usize; 2]) -> Binding<'_> {
    Binding {
        slot,
        first,
        is_all: false,
        fields,
        len,
        at,
    }
}

fn object(kind: u32, fields: &[u32]) -> Option<Object> {
    let resource = match kind {
        SAMPLER_VIEW | SURFACE | MSAA_SURFACE | STREAMOUT_TARGET => fields.get(1),
        QUERY => fields.get(3),
        _ => None,
    };
    Some(Object {
        handle: *fields.first()?,
        resource: resource.copied(),
        is_shader: kind == SHADER,
        is_query: kind == QUERY,
        words: fields.len(),
    })
}
