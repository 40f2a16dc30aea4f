//! Plain values in the kernel's maps.

use bytemuck::Pod;

/// A value that maps of the kernel take as its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[repr(transparent)]
pub struct Plain<T>(pub T);

// SAFETY: `Pod` says the same of `T`: no padding, and any bytes are a value.
unsafe impl<T: Pod> aya::Pod for Plain<T> {}
