//! The id of a display.

/// Names a display among those of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DisplayId(u16);

impl DisplayId {
    /// The VMM's, which comes with `VHOST_USER_GPU_SET_SOCKET`.
    pub(crate) const VMM: Self = Self(0);

    /// Another one, counted from 1.
    #[cfg(test)]
    pub(crate) const fn other(number: u16) -> Self {
        Self(number)
    }
}
