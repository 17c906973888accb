//! QuartzNet 15×5 on burn's tensors, batch norms as one factor and one summand.

use burn::tensor::activation::relu;
use burn::tensor::module::conv1d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData};
use protocol::{Case, case, uniform, weight};
use std::cell::RefCell;
use std::collections::HashMap;

/// Weights by name, made when first asked for.
#[derive(Default)]
struct Weights(RefCell<HashMap<String, Tensor<3>>>);

impl Weights {
    fn get(&self, name: &str, sizes: [usize; 3]) -> Tensor<3> {
        let make = || {
            // A vector stands as `[1, n, 1]` here and as `[n]` everywhere else.
            let real: Vec<usize> = if sizes[0] == 1 && sizes[2] == 1 { vec![sizes[1]] } else { sizes.to_vec() };
            Tensor::from_data(TensorData::new(weight(name, &real), sizes), &Device::flex())
        };
        self.0.borrow_mut().entry(name.into()).or_insert_with(make).clone()
    }

    fn norm(&self, x: Tensor<3>, name: &str, n: usize) -> Tensor<3> {
        let part = |p: &str| self.get(&format!("{name}.{p}"), [1, n, 1]);
        let factor = part("weight") / (part("running_var") + 1e-5).sqrt();
        let summand = part("bias") - part("running_mean") * factor.clone();
        x * factor + summand
    }

    fn pointwise(&self, x: Tensor<3>, name: &str, i: usize, o: usize) -> Tensor<3> {
        let options = ConvOptions::new([1], [0], [1], 1);
        conv1d(x, self.get(&format!("{name}.weight"), [o, i, 1]), None, options)
    }

    fn sub(&self, x: Tensor<3>, name: &str, [i, o, k, s, d]: [usize; 5]) -> Tensor<3> {
        let options = ConvOptions::new([s], [d * (k - 1) / 2], [d], i);
        let x = conv1d(x, self.get(&format!("{name}.depthwise.weight"), [i, 1, k]), None, options);
        self.norm(self.pointwise(x, &format!("{name}.pointwise"), i, o), &format!("{name}.norm"), o)
    }

    fn encode(&self, x: Tensor<3>) -> Tensor<3> {
        let mut h = relu(self.sub(x, "first", [64, 256, 33, 2, 1]));
        let mut blocks = vec![];
        for (group, width, k, count) in
            [("a", 256, 33, 3), ("b", 256, 39, 3), ("c", 512, 51, 2), ("d", 512, 63, 3), ("e", 512, 75, 3)]
        {
            if group == "c" {
                blocks.push(("c_first".to_string(), 256, 512, k));
            }
            blocks.extend((0..count).map(|r| (format!("{group}.{r}"), width, width, k)));
        }
        for (name, i, o, k) in blocks {
            let mut y = self.sub(h.clone(), &format!("{name}.first"), [i, o, k, 1, 1]);
            for r in 0..4 {
                y = self.sub(relu(y), &format!("{name}.rest.{r}"), [o, o, k, 1, 1]);
            }
            let side = self.pointwise(h, &format!("{name}.residual"), i, o);
            h = relu(y + self.norm(side, &format!("{name}.residual_norm"), o));
        }
        let h = relu(self.sub(h, "wide", [512, 512, 87, 1, 2]));
        relu(self.norm(self.pointwise(h, "out", 512, 1024), "out_norm", 1024))
    }
}

pub fn encoder() -> Box<dyn Case> {
    let x = TensorData::new(uniform("features", 64 * 1000, 1.0), [1, 64, 1000]);
    let (x, w) = (Tensor::<3>::from_data(x, &Device::flex()), Weights::default());
    let first = w.encode(x.clone());
    let run = move |y: &mut Tensor<3>| *y = w.encode(x.clone());
    case(first, run, |y| y.clone().into_data().to_vec().expect("real numbers"))
}
