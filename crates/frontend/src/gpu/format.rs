// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pixel formats.

use virtio_bindings::virtio_gpu as v;

/// The formats of a 2D resource (virtio 1.2, section 5.7.6.8); named by the order of their bytes in
/// memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Format {
    /// Blue, green, red, alpha.
    B8G8R8A8 = v::virtio_gpu_formats_VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM,
    /// Blue, green, red, nothing.
    B8G8R8X8 = v::virtio_gpu_formats_VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM,
    /// Alpha, red, green, blue.
    A8R8G8B8 = v::virtio_gpu_formats_VIRTIO_GPU_FORMAT_A8R8G8B8_UNORM,
    /// Nothing, red, green, blue.
    X8R8G8B8 = v::virtio_gpu_formats_VIRTIO_GPU_FORMAT_X8R8G8B8_UNORM,
    /// Red, green, blue, alpha.
    R8G8B8A8 = v::virtio_gpu_formats_VIRTIO_GPU_FORMAT_R8G8B8A8_UNORM,
    /// Nothing, blue, green, red.
    X8B8G8R8 = v::virtio_gpu_formats_VIRTIO_GPU_FORMAT_X8B8G8R8_UNORM,
    /// Alpha, blue, green, red.
    A8B8G8R8 = v::virtio_gpu_formats_VIRTIO_GPU_FORMAT_A8B8G8R8_UNORM,
    /// Red, green, blue, nothing.
    R8G8B8X8 = v::virtio_gpu_formats_VIRTIO_GPU_FORMAT_R8G8B8X8_UNORM,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::B8G8R8A8,
        Self::B8G8R8X8,
        Self::A8R8G8B8,
        Self::X8R8G8B8,
        Self::R8G8B8A8,
        Self::X8B8G8R8,
        Self::A8B8G8R8,
        Self::R8G8B8X8,
    ];

    /// The bytes of one pixel in this format; bytes that mean nothing are 0xee.
    pub fn pixel(self, r: u8, g: u8, b: u8, a: u8) -> [u8; 4] {
        const X: u8 = 0xee;
        match self {
            Self::B8G8R8A8 => [b, g, r, a],
            Self::B8G8R8X8 => [b, g, r, X],
            Self::A8R8G8B8 => [a, r, g, b],
            Self::X8R8G8B8 => [X, r, g, b],
            Self::R8G8B8A8 => [r, g, b, a],
            Self::X8B8G8R8 => [X, b, g, r],
            Self::A8B8G8R8 => [a, b, g, r],
            Self::R8G8B8X8 => [r, g, b, X],
        }
    }
}
