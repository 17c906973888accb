//! Random values: the generator's published words, and what `mobilis_kernels::philox` makes of them.

use mobilis_cuda::random::{Distribution, random};
use mobilis_cuda::testing::{devices, download, upload};
use mobilis_kernels::philox;

#[test]
fn values_are_those_of_the_cpu() {
    for gpu in devices() {
        let key = upload(&gpu, &[7i32, -3]);
        let stream = philox::Stream { seed: 7, step: -3i32 as u32, stream: 5 };
        for len in [0, 1, 4, 1027] {
            let draw = |f: &dyn Fn([u32; 4]) -> [f64; 4]| {
                let mut out = vec![0.0; len];
                stream.fill(0, len, f, |i, v| out[i] = v);
                out
            };
            let y = gpu.alloc(len.max(1) * 4).unwrap();
            for (distribution, expected) in [
                (Distribution::Uniform, draw(&philox::uniform)),
                (Distribution::Normal, draw(&philox::normal)),
                (Distribution::Gumbel, draw(&philox::gumbel)),
            ] {
                gpu.run(&random(distribution, key.ptr(), y.ptr(), len, 5).unwrap()).unwrap();
                let expected: Vec<f32> = expected.iter().map(|v| *v as f32).collect();
                assert_eq!(download::<f32>(&y, len), expected, "{distribution:?}");
            }
            for p in [0.0, 0.3, 0.5, 1.0] {
                gpu.run(&random(Distribution::Bernoulli(p), key.ptr(), y.ptr(), len, 5).unwrap()).unwrap();
                let expected: Vec<u8> = draw(&|w| philox::bernoulli(w, p)).iter().map(|v| *v as u8).collect();
                assert_eq!(download::<u8>(&y, len), expected, "{p}");
            }
        }
    }
}
