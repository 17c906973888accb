//! Copies on the emulator, and on the GPU where there is one.

use mobilis_cuda::copy::{Edge, Moved, Strided, copy, fill, moved, pad, write_rows};
use mobilis_cuda::testing::{devices, download, upload};
use mobilis_cuda::{Gpu, Plain, Ptr};

fn strides(sizes: &[usize]) -> Vec<i64> {
    (0..sizes.len()).map(|d| sizes[d + 1..].iter().product::<usize>() as i64).collect()
}

/// Copies from strides to contiguous values and compares with a loop.
fn check<T: Plain + Default + PartialEq + std::fmt::Debug>(
    gpu: &Gpu,
    source: &[T],
    offset: usize,
    sizes: &[usize],
    from: &[i64],
) {
    let count: usize = sizes.iter().product();
    let (x, y) = (upload(gpu, source), gpu.alloc(count * size_of::<T>()).unwrap());
    let from = Strided { at: x.ptr().at(offset * size_of::<T>()), strides: from.to_vec() };
    let to = Strided { at: y.ptr(), strides: strides(sizes) };
    gpu.run(&copy(&from, &to, sizes, size_of::<T>()).unwrap()).unwrap();
    let expected: Vec<T> = (0..count)
        .map(|i| {
            let mut rest = i;
            let mut at = offset as i64;
            for d in (0..sizes.len()).rev() {
                at += (rest % sizes[d]) as i64 * from.strides[d];
                rest /= sizes[d];
            }
            source[at as usize]
        })
        .collect();
    assert_eq!(download::<T>(&y, count), expected, "{sizes:?} {:?}", from.strides);
}

#[test]
fn every_layout_becomes_contiguous() {
    let words: Vec<u32> = (0..6000).collect();
    let bytes: Vec<u8> = (0..6000).map(|i| (i % 251) as u8).collect();
    for gpu in devices() {
        for (offset, sizes, from) in [
            (0, vec![], vec![]),
            (3, vec![1], vec![1]),
            (0, vec![1000], vec![1]),
            (1, vec![37], vec![3]),
            (5, vec![4, 0, 3], vec![3, 3, 1]),
            (0, vec![40, 33], vec![1, 40]),
            (2, vec![3, 33, 40], vec![1500, 1, 34]),
            (7, vec![5, 6], vec![0, 1]),
            (999, vec![10, 100], vec![-100, -1]),
            (0, vec![2, 3, 4, 5, 6], vec![360, 4, 12, 60, 0]),
            (0, vec![8, 16], vec![32, 1]),
            (0, vec![2, 2, 2, 2, 2, 2, 2, 2], vec![1, 2, 4, 8, 16, 32, 64, 128]),
        ] {
            check(&gpu, &words, offset, &sizes, &from);
            check(&gpu, &bytes, offset, &sizes, &from);
        }
    }
}

#[test]
fn what_has_too_many_dimensions_is_refused() {
    let at = |n: usize| Strided { at: Ptr::NULL, strides: vec![3; n] };
    assert!(copy(&at(9), &at(9), &[2; 9], 4).is_err());
    assert!(copy(&at(2), &at(3), &[2; 3], 4).is_err());
    assert!(copy(&at(1), &at(1), &[2], 3).is_err());
}

#[test]
fn large_copies_are_several_launches() {
    let s = |strides: &[i64]| Strided { at: Ptr(1 << 40), strides: strides.to_vec() };
    let launches = copy(&s(&[1, 3]), &s(&[1 << 16, 1]), &[1 << 16, 1 << 16], 4).unwrap();
    assert_eq!(launches.len(), 4);
    assert_eq!(copy(&s(&[2]), &s(&[1]), &[3 << 30], 1).unwrap().len(), 3);
}

#[test]
fn blocks_move_to_places_known_on_the_device() {
    for gpu in devices() {
        let s = Moved { outer: 3, n: 7, length: 2, inner: 5, bytes: 4 };
        let x: Vec<i32> = (0..105).collect();
        for (start, fits) in [(0, true), (5, true), (6, false), (-1, false)] {
            let (from, at, found) = (upload(&gpu, &x), upload(&gpu, &[start]), upload(&gpu, &[0i32; 3]));
            let y = upload(&gpu, &[7i32; 30]);
            gpu.run(&moved(from.ptr(), y.ptr(), at.ptr(), found.ptr(), s, false).unwrap()).unwrap();
            let cut = download::<i32>(&y, 30);
            gpu.run(&moved(y.ptr(), from.ptr(), at.ptr(), found.ptr(), s, true).unwrap()).unwrap();
            assert_eq!(download::<i32>(&from, 105), x);
            if fits {
                assert!((0..30).all(|i| cut[i] == x[i / 10 * 35 + start as usize * 5 + i % 10]));
                assert_eq!(download::<i32>(&found, 1), [0]);
            } else {
                assert_eq!(cut, [7; 30]);
                assert_eq!(download::<i32>(&found, 2), [1, start]);
            }
        }
    }
}

#[test]
fn rows_of_caches_are_written() {
    for gpu in devices() {
        let block: Vec<i32> = (0..2 * 3 * 2).map(|i| 100 + i).collect();
        let run = |start: [i32; 2], count: [i32; 2], slots: usize, wrap: bool| {
            let y = upload(&gpu, &vec![0i32; 2 * slots * 2]);
            let (b, s, c, f) =
                (upload(&gpu, &block), upload(&gpu, &start), upload(&gpu, &count), upload(&gpu, &[0i32; 3]));
            let places = (s.ptr(), c.ptr(), f.ptr());
            gpu.run(&write_rows((b.ptr(), y.ptr()), places, (2, 3, slots, 2), wrap).unwrap()).unwrap();
            (download::<i32>(&y, 2 * slots * 2), download::<i32>(&f, 3))
        };
        let (y, f) = run([1, 0], [2, 0], 4, false);
        assert_eq!((&y[..8], &y[8..]), (&[0, 0, 100, 101, 102, 103, 0, 0][..], &[0; 8][..]));
        assert_eq!(f[0], 0);
        // Round the ring, and more entries than slots.
        let (y, _) = run([3, 1], [2, 3], 4, true);
        assert_eq!(y, [102, 103, 0, 0, 0, 0, 100, 101, 0, 0, 106, 107, 108, 109, 110, 111]);
        let (y, _) = run([0, 0], [3, 0], 2, true);
        assert_eq!(y, [104, 105, 102, 103, 0, 0, 0, 0]);
        for (start, count, slots) in [([3, 0], [2, 0], 4), ([-1, 0], [1, 0], 4), ([0, 0], [4, 0], 4)] {
            assert_eq!(run(start, count, slots, false).1, [1, start[0], count[0]]);
        }
    }
}

#[test]
fn edges_are_padded() {
    for gpu in devices() {
        let x = [1i32, 2, 3, 4, 5, 6];
        for (edge, expected) in [
            (Edge::Reflect, [3, 2, 1, 2, 3, 2, 6, 5, 4, 5, 6, 5]),
            (Edge::Replicate, [1, 1, 1, 2, 3, 3, 4, 4, 4, 5, 6, 6]),
            (Edge::Circular, [2, 3, 1, 2, 3, 1, 5, 6, 4, 5, 6, 4]),
        ] {
            let (from, y) = (upload(&gpu, &x), gpu.alloc(48).unwrap());
            gpu.run(&pad((from.ptr(), y.ptr()), (2, 3, 6, 1), 2, edge, 4).unwrap()).unwrap();
            assert_eq!(download::<i32>(&y, 12), expected);
        }
        let y = gpu.alloc(4 * 300).unwrap();
        gpu.run(&fill(y.ptr(), 7, 300).unwrap()).unwrap();
        assert_eq!(download::<u32>(&y, 300), [7; 300]);
    }
}
