//! Attention on the emulator, and on the GPU where there is one, against its definition.

mod cached;
mod definition;
mod eight;
mod single;
mod tensor;
