// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Decodes the commands that create, bind and destroy (virglrenderer, virgl_protocol.h).

use crate::gpu::renderer::virgl::command_stream::{self, RawCommand};

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

/// A place where something is bound. The number is the shader stage (`enum pipe_shader_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Slot {
    ColorBuffer,
    DepthBuffer,
    VertexBuffer,
    IndexBuffer,
    SamplerView(u32),
    UniformBuffer(u32),
    ShaderBuffer(u32),
    ShaderImage(u32),
    AtomicBuffer,
}

impl Slot {
    /// Whether the shader stage exists; the library refuses others.
    pub(super) fn exists(self) -> bool {
        /// `PIPE_SHADER_TYPES`, and some more.
        const STAGES: u32 = 8;
        match self {
            Self::SamplerView(stage)
            | Self::UniformBuffer(stage)
            | Self::ShaderBuffer(stage)
            | Self::ShaderImage(stage) => stage < STAGES,
            _ => true,
        }
    }
}

/// A new object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) handle: u32,
    /// The resource it references.
    pub(super) resource: Option<u32>,
    pub(super) is_shader: bool,
    pub(super) is_query: bool,
    /// Length of its description in words.
    pub(super) words: usize,
}

/// Resources to bind to consecutive places of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BindResources<'a> {
    pub(super) slot: Slot,
    /// The first place.
    pub(super) first: u32,
    /// Whether the places behind these become empty.
    pub(super) is_all: bool,
    fields: &'a [u32],
    /// Words for each resource.
    words: usize,
    /// Which of these words is the resource's id.
    id_word: usize,
}

impl BindResources<'_> {
    /// The ids of the resources.
    pub(super) fn ids(&self) -> impl ExactSizeIterator<Item = u32> {
        let each = self.fields.chunks_exact(self.words);
        each.map(|words| words.get(self.id_word).copied().unwrap_or(0))
    }
}

/// A command that changes which resources are referenced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    CreateObject(Object),
    DestroyObject(u32),
    SetFramebuffer {
        depth: u32,
        colors: &'a [u32],
    },
    SetSamplerViews {
        stage: u32,
        first: u32,
        handles: &'a [u32],
    },
    SetStreamoutTargets(&'a [u32]),
    Bind(BindResources<'a>),
    SetSubContext(u32),
    CreateSubContext(u32),
    DestroySubContext(u32),
    /// A command that allocates memory which nothing accounts for, and that no driver needs here.
    Unaccounted(u32),
}

impl Command<'_> {
    /// The resources that it references.
    pub(super) fn resources(&self) -> Vec<u32> {
        match self {
            Self::CreateObject(object) => object.resource.into_iter().collect(),
            Self::Bind(bind) => bind.ids().collect(),
            _ => Vec::new(),
        }
    }

    /// Whether it references objects.
    pub(super) fn has_handles(&self) -> bool {
        matches!(
            self,
            Self::SetFramebuffer { .. }
                | Self::SetSamplerViews { .. }
                | Self::SetStreamoutTargets(_)
        )
    }
}

/// The commands of a stream that matter here. The library refuses those that are too short.
pub(super) fn commands(stream: &[u32]) -> impl Iterator<Item = Command<'_>> {
    command_stream::commands(stream).filter_map(decode)
}

fn decode(raw: RawCommand<'_>) -> Option<Command<'_>> {
    let RawCommand {
        command,
        object_type,
        fields,
    } = raw;
    let field = |at: usize| fields.get(at).copied();
    Some(match command {
        CREATE_OBJECT => Command::CreateObject(object(object_type, fields)?),
        DESTROY_OBJECT => Command::DestroyObject(field(0)?),
        SET_FRAMEBUFFER_STATE => Command::SetFramebuffer {
            depth: field(1)?,
            colors: fields.get(2..)?,
        },
        SET_SAMPLER_VIEWS => Command::SetSamplerViews {
            stage: field(0)?,
            first: field(1)?,
            handles: fields.get(2..)?,
        },
        SET_STREAMOUT_TARGETS => Command::SetStreamoutTargets(fields.get(1..)?),
        SET_VERTEX_BUFFERS => Command::Bind(BindResources {
            is_all: true,
            ..bind(Slot::VertexBuffer, 0, fields, [3, 2])
        }),
        SET_INDEX_BUFFER => {
            let resource = fields.get(..1)?;
            Command::Bind(bind(Slot::IndexBuffer, 0, resource, [1, 0]))
        }
        SET_UNIFORM_BUFFER => {
            let slot = Slot::UniformBuffer(field(0)?);
            Command::Bind(bind(slot, field(1)?, fields.get(4..5)?, [1, 0]))
        }
        SET_SHADER_BUFFERS => {
            let slot = Slot::ShaderBuffer(field(0)?);
            Command::Bind(bind(slot, field(1)?, fields.get(2..)?, [3, 2]))
        }
        SET_SHADER_IMAGES => {
            let slot = Slot::ShaderImage(field(0)?);
            Command::Bind(bind(slot, field(1)?, fields.get(2..)?, [5, 4]))
        }
        SET_ATOMIC_BUFFERS => {
            let buffers = fields.get(1..)?;
            Command::Bind(bind(Slot::AtomicBuffer, field(0)?, buffers, [3, 2]))
        }
        SET_SUB_CTX => Command::SetSubContext(field(0)?),
        CREATE_SUB_CTX => Command::CreateSubContext(field(0)?),
        DESTROY_SUB_CTX => Command::DestroySubContext(field(0)?),
        PIPE_RESOURCE_CREATE | CREATE_VIDEO_CODEC | CREATE_VIDEO_BUFFER => {
            Command::Unaccounted(command)
        }
        _ => return None,
    })
}

/// Resources with `words` words each in `fields`, one of which is the resource's id.
fn bind(slot: Slot, first: u32, fields: &[u32], [words, id_word]: [usize; 2]) -> BindResources<'_> {
    BindResources {
        slot,
        first,
        is_all: false,
        fields,
        words,
        id_word,
    }
}

fn object(object_type: u32, fields: &[u32]) -> Option<Object> {
    let resource = match object_type {
        SAMPLER_VIEW | SURFACE | MSAA_SURFACE | STREAMOUT_TARGET => fields.get(1),
        QUERY => fields.get(3),
        _ => None,
    };
    Some(Object {
        handle: *fields.first()?,
        resource: resource.copied(),
        is_shader: object_type == SHADER,
        is_query: object_type == QUERY,
        words: fields.len(),
    })
}
