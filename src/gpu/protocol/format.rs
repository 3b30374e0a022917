// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pixel formats of 2D resources (virtio 1.2, 5.7.6.8).

use virtio_bindings::virtio_gpu as spec;

/// A format of a 2D resource (`enum virtio_gpu_formats`), named by its bytes in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    B8G8R8A8,
    B8G8R8X8,
    A8R8G8B8,
    X8R8G8B8,
    R8G8B8A8,
    X8B8G8R8,
    A8B8G8R8,
    R8G8B8X8,
}

impl Format {
    /// All formats.
    pub(crate) const ALL: [Self; 8] = [
        Self::B8G8R8A8,
        Self::B8G8R8X8,
        Self::A8R8G8B8,
        Self::X8R8G8B8,
        Self::R8G8B8A8,
        Self::X8B8G8R8,
        Self::A8B8G8R8,
        Self::R8G8B8X8,
    ];

    /// Its number in the specification.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::B8G8R8A8 => spec::virtio_gpu_formats_VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM,
            Self::B8G8R8X8 => spec::virtio_gpu_formats_VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM,
            Self::A8R8G8B8 => spec::virtio_gpu_formats_VIRTIO_GPU_FORMAT_A8R8G8B8_UNORM,
            Self::X8R8G8B8 => spec::virtio_gpu_formats_VIRTIO_GPU_FORMAT_X8R8G8B8_UNORM,
            Self::R8G8B8A8 => spec::virtio_gpu_formats_VIRTIO_GPU_FORMAT_R8G8B8A8_UNORM,
            Self::X8B8G8R8 => spec::virtio_gpu_formats_VIRTIO_GPU_FORMAT_X8B8G8R8_UNORM,
            Self::A8B8G8R8 => spec::virtio_gpu_formats_VIRTIO_GPU_FORMAT_A8B8G8R8_UNORM,
            Self::R8G8B8X8 => spec::virtio_gpu_formats_VIRTIO_GPU_FORMAT_R8G8B8X8_UNORM,
        }
    }

    /// The format with this number.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.number() == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_have_the_numbers_of_the_specification() {
        let numbers = [1, 2, 3, 4, 67, 68, 121, 134];
        assert_eq!(Format::ALL.map(Format::number), numbers);
        assert_eq!(Format::from_number(67), Some(Format::R8G8B8A8));
        assert_eq!(Format::from_number(0), None);
        assert_eq!(Format::from_number(5), None);
    }
}
