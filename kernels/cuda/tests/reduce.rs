//! Reductions over any dimensions against sums in `f64`.

use mobilis_cuda::reduce::{Reduction, reduce, workspace};
use mobilis_cuda::testing::{devices, difference, download, upload, values};

/// The values that meet in each result.
fn groups(sizes: &[usize], positions: &[usize]) -> Vec<Vec<usize>> {
    let kept: usize = (0..sizes.len()).filter(|d| !positions.contains(d)).map(|d| sizes[d]).product();
    let mut groups = vec![vec![]; kept];
    for i in 0..sizes.iter().product() {
        let (mut rest, mut to, mut step) = (i, 0, 1);
        for d in (0..sizes.len()).rev() {
            if !positions.contains(&d) {
                to += rest % sizes[d] * step;
                step *= sizes[d];
            }
            rest /= sizes[d];
        }
        groups[to].push(i);
    }
    groups
}

type Case = (&'static [usize], &'static [usize]);
const CASES: [Case; 14] = [
    (&[1], &[0]),
    (&[7, 33], &[1]),
    (&[7, 33], &[0]),
    (&[3, 4, 5], &[0, 2]),
    (&[3, 4, 5], &[0, 1, 2]),
    (&[2, 1500], &[1]),
    (&[2, 70, 9], &[1]),
    (&[70, 130], &[0]),
    (&[3, 64, 70], &[1]),
    (&[2, 3, 2, 5, 2], &[0, 2, 4]),
    (&[0, 4], &[0]),
    (&[4, 0], &[0]),
    (&[20_000], &[0]),
    (&[300, 512], &[0]),
];

#[test]
fn real_numbers() {
    for (d, gpu) in devices().into_iter().enumerate() {
        let sm = gpu.info().multiprocessors;
        for (sizes, positions) in CASES {
            let len: usize = sizes.iter().product();
            if len > 10_000 && d == 1 {
                continue;
            }
            let x = values(len, 3);
            let groups = groups(sizes, positions);
            let from = upload(&gpu, &x);
            for op in [Reduction::Sum, Reduction::SumSquares, Reduction::Max, Reduction::Min, Reduction::LogSumExp] {
                let (to, space) =
                    (gpu.alloc(groups.len() * 4).unwrap(), gpu.alloc(workspace(op, sizes, positions, sm)).unwrap());
                let launches = reduce(op, (from.ptr(), to.ptr(), space.ptr()), sizes, positions, sm).unwrap();
                gpu.run(&launches).unwrap();
                let expected: Vec<f64> = groups
                    .iter()
                    .map(|g| {
                        let v = g.iter().map(|i| x[*i] as f64);
                        match op {
                            Reduction::Sum => v.sum(),
                            Reduction::SumSquares => v.map(|v| v * v).sum(),
                            Reduction::Max => v.fold(f64::NEG_INFINITY, f64::max),
                            Reduction::Min => v.fold(f64::INFINITY, f64::min),
                            _ => v.map(f64::exp).sum::<f64>().ln(),
                        }
                    })
                    .collect();
                let found = download::<f32>(&to, groups.len());
                if expected.iter().any(|e| e.is_infinite()) {
                    assert!(
                        found.iter().zip(&expected).all(|(f, e)| *f as f64 == *e),
                        "{sizes:?} {positions:?} {op:?}"
                    );
                    continue;
                }
                let off = difference(&found, &expected);
                assert!(off < 2e-6, "{sizes:?} {positions:?} {op:?}: {off}");
            }
        }
    }
}

#[test]
fn whole_numbers_and_truth_values() {
    for gpu in devices() {
        let sm = gpu.info().multiprocessors;
        for (sizes, positions) in CASES.into_iter().filter(|c| c.0.iter().product::<usize>() < 10_000) {
            let len: usize = sizes.iter().product();
            let x: Vec<i32> = values(len, 9).iter().map(|v| (v * 1e9) as i32).collect();
            let flags: Vec<u8> = values(len, 5).iter().map(|v| (*v > 1.0) as u8).collect();
            let inverse: Vec<u8> = flags.iter().map(|f| 1 - f).collect();
            let groups = groups(sizes, positions);
            let run = |op, bytes: &mobilis_cuda::Buffer, out: usize| {
                let (to, space) = (gpu.alloc(out).unwrap(), gpu.alloc(workspace(op, sizes, positions, sm)).unwrap());
                gpu.run(&reduce(op, (bytes.ptr(), to.ptr(), space.ptr()), sizes, positions, sm).unwrap()).unwrap();
                to
            };
            let from = upload(&gpu, &x);
            for op in [Reduction::SumInt, Reduction::MaxInt, Reduction::MinInt] {
                let fold = |g: &Vec<usize>| match op {
                    Reduction::SumInt => g.iter().fold(0, |a: i32, i| a.wrapping_add(x[*i])),
                    Reduction::MaxInt => g.iter().fold(i32::MIN, |a, i| a.max(x[*i])),
                    _ => g.iter().fold(i32::MAX, |a, i| a.min(x[*i])),
                };
                let expected: Vec<i32> = groups.iter().map(fold).collect();
                assert_eq!(
                    download::<i32>(&run(op, &from, groups.len() * 4), groups.len()),
                    expected,
                    "{sizes:?} {op:?}"
                );
            }
            let any: Vec<u8> = groups.iter().map(|g| g.iter().any(|i| flags[*i] != 0) as u8).collect();
            let all: Vec<u8> = groups.iter().map(|g| g.iter().all(|i| inverse[*i] != 0) as u8).collect();
            assert_eq!(download::<u8>(&run(Reduction::Any, &upload(&gpu, &flags), groups.len()), groups.len()), any);
            assert_eq!(download::<u8>(&run(Reduction::All, &upload(&gpu, &inverse), groups.len()), groups.len()), all);
        }
    }
}

#[test]
fn what_is_not_a_number_and_infinities() {
    for gpu in devices() {
        let n = f32::NAN;
        let (i, m) = (f32::INFINITY, f32::NEG_INFINITY);
        let x = [[1.0, n, 3.0], [n, m, m], [m, m, m], [i, 1.0, 2.0], [1.0, 2.0, m]].concat();
        let from = upload(&gpu, &x);
        for (op, expected) in [
            (Reduction::Max, [n, n, m, i, 2.0]),
            (Reduction::Min, [n, n, m, 1.0, m]),
            (Reduction::LogSumExp, [n, n, m, i, 2.313_261_7]),
        ] {
            let to = gpu.alloc(5 * 4).unwrap();
            gpu.run(&reduce(op, (from.ptr(), to.ptr(), mobilis_cuda::Ptr::NULL), &[5, 3], &[1], 4).unwrap()).unwrap();
            let found = download::<f32>(&to, 5);
            for (f, e) in found.iter().zip(expected) {
                assert!(
                    f.to_bits() == e.to_bits() || (f.is_nan() && e.is_nan()) || (f - e).abs() < 1e-6,
                    "{op:?}: {found:?}"
                );
            }
        }
    }
}
