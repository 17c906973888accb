//! Additive angular margin (ArcFace: Deng et al. 2019, <https://arxiv.org/abs/1801.07698>), NeMo's
//! `AngularSoftmaxLoss`.

use mobilis_runtime::prelude::*;

/// Keeps the derivative of the angle finite.
const EPS: f64 = 1e-7;

/// The cross-entropy of `scale * cos(angle)`, where the right class's angle is larger by `margin`; the mean over the
/// batch. `cosines` are what a speaker head gives where angles count. TitaNet: scale 30, margin 0.2.
///
/// `cos(a + m) = cos a cos m - sin a sin m`, so no angle is computed.
pub fn angular_margin<B: Axis, C: Axis, E: Float>(
    cosines: Tensor<(B, C), E>,
    labels: Tensor<(B,), Index>,
    scale: f64,
    margin: f64,
) -> Tensor<()> {
    let cosines: Tensor<(B, C)> = Tensor::from_raw(cosines.raw());
    let clamped = cosines.clamp(-1.0 + EPS, 1.0 - EPS);
    let sine = (Tensor::<(B, C)>::ones() - clamped * clamped).sqrt();
    let further = clamped * margin.cos() - sine * margin.sin();
    let right: Tensor<(B, C), Mask> = labels.one_hot::<C>().gt(0.5);
    let logits = right.select(further, cosines) * scale;
    logits.cross_entropy(labels)
}
