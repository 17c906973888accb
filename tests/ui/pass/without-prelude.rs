//! The macros need no import of what they expand to.

mobilis::axes! {
    Batch;
    Hidden = 8;
}
mobilis::elements! { pub Score: mobilis::Real; }

#[mobilis::neural_module]
pub struct Net {
    weight: mobilis::Param![Hidden],
}

#[mobilis::neural_module]
impl Net {
    pub fn forward(&self, x: mobilis::Tensor![Batch, Hidden; Score]) -> mobilis::Tensor![Batch] {
        mobilis::einsum!(x[b h] * self.weight.get()[h] => [b])
    }
}
