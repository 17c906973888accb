//! CPU kernels in `f32`: contiguous rows unless strides are parameters.
