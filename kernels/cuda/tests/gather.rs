//! Picking and adding by indices against plain loops.

use mobilis_cuda::gather::{Picks, embedding};
use mobilis_cuda::rows::Number;
use mobilis_cuda::status;
use mobilis_cuda::testing::{devices, difference, download, upload, values};

fn ids(count: usize, n: usize, seed: u64) -> Vec<i32> {
    // Small ones more often, so that many meet.
    values(count, seed).iter().map(|v| ((v * v) * n as f32 / 4.0) as i32).map(|i| i.min(n as i32 - 1)).collect()
}

#[test]
fn picks_equal_plain_loops() {
    for gpu in devices() {
        for (outer, n, inner, picks) in
            [(1, 5, 8, 7), (3, 4, 5, 6), (2, 9, 1, 3), (1, 300, 12, 400), (2, 3, 0, 4), (1, 3, 4, 0)]
        {
            let words = upload(&gpu, &[0i32; 4]);
            let p = Picks { outer, n, inner, picks, table: false, status: words.ptr() };
            let x = values(outer * n * inner, 3);
            let bytes: Vec<u8> = x.iter().map(|v| (v * 50.0) as i8 as u8).collect();
            let (one, each) = (ids(picks, n, 4), ids(outer * picks * inner, n, 5));
            let at = |f: &dyn Fn(usize, usize, usize) -> usize| -> Vec<usize> {
                (0..outer * picks * inner).map(|i| f(i / inner / picks, i / inner % picks, i % inner)).collect()
            };
            let taken = at(&|o, j, i| (o * n + one[j] as usize) * inner + i);
            let gathered = at(&|o, j, i| (o * n + each[(o * picks + j) * inner + i] as usize) * inner + i);
            let (xs, bs) = (upload(&gpu, &x), upload(&gpu, &bytes));
            let (ones, eaches) = (upload(&gpu, &one), upload(&gpu, &each));
            let y = gpu.alloc(taken.len() * 4).unwrap();
            gpu.run(&p.take(xs.ptr(), ones.ptr(), y.ptr(), 4).unwrap()).unwrap();
            assert_eq!(download::<f32>(&y, taken.len()), taken.iter().map(|i| x[*i]).collect::<Vec<_>>());
            gpu.run(&p.take(bs.ptr(), ones.ptr(), y.ptr(), 1).unwrap()).unwrap();
            assert_eq!(download::<u8>(&y, taken.len()), taken.iter().map(|i| bytes[*i]).collect::<Vec<_>>());
            gpu.run(&p.gather(xs.ptr(), eaches.ptr(), y.ptr(), 4).unwrap()).unwrap();
            assert_eq!(download::<f32>(&y, taken.len()), gathered.iter().map(|i| x[*i]).collect::<Vec<_>>());
            gpu.run(&p.gather(bs.ptr(), eaches.ptr(), y.ptr(), 1).unwrap()).unwrap();
            assert_eq!(download::<u8>(&y, taken.len()), gathered.iter().map(|i| bytes[*i]).collect::<Vec<_>>());

            let s = values(taken.len(), 6);
            let from = upload(&gpu, &s);
            let workspace = gpu.alloc(p.workspace()).unwrap();
            for (places, index, whole) in [(&taken, &ones, true), (&gathered, &eaches, false)] {
                let mut expected: Vec<f64> = x.iter().map(|v| *v as f64).collect();
                places.iter().zip(&s).for_each(|(to, s)| expected[*to] += *s as f64);
                let y = upload(&gpu, &x);
                let launches = if whole {
                    p.take_add(index.ptr(), from.ptr(), y.ptr(), workspace.ptr())
                } else {
                    p.scatter_add(index.ptr(), from.ptr(), y.ptr(), workspace.ptr())
                };
                gpu.run(&launches.unwrap()).unwrap();
                let off = difference(&download(&y, x.len()), &expected);
                assert!(off < 3e-6, "{p:?} {whole}: {off}");
            }
            assert_eq!(status::message(download::<i32>(&words, 4).try_into().unwrap()), None);
        }
    }
}

#[test]
fn one_index_in_many_chunks() {
    for gpu in devices() {
        // Runs of 1, 31, 32, 33, 100 equal indices and some between.
        let mut index = vec![];
        for (id, count) in [(7, 1), (1, 31), (0, 32), (3, 33), (2, 100), (5, 3), (6, 64)] {
            index.extend(std::iter::repeat_n(id, count));
        }
        index.rotate_left(50);
        let (picks, inner) = (index.len(), 300);
        let s = values(picks * inner, 6);
        let p = Picks { outer: 1, n: 9, inner, picks, table: true, status: mobilis_cuda::Ptr::NULL };
        let (ids, from, y) = (upload(&gpu, &index), upload(&gpu, &s), upload(&gpu, &vec![0f32; 9 * inner]));
        let workspace = gpu.alloc(p.workspace()).unwrap();
        gpu.run(&p.take_add(ids.ptr(), from.ptr(), y.ptr(), workspace.ptr()).unwrap()).unwrap();
        let mut expected = vec![0.0; 9 * inner];
        for (j, id) in index.iter().enumerate() {
            (0..inner).for_each(|i| expected[*id as usize * inner + i] += s[j * inner + i] as f64);
        }
        assert!(difference(&download(&y, 9 * inner), &expected) < 2e-6);
    }
}

#[test]
fn tables_in_16_bits_and_wrong_indices() {
    for gpu in devices() {
        let words = upload(&gpu, &[0i32; 4]);
        let table = values(5 * 24, 3);
        let bf: Vec<u16> = table.iter().map(|v| half::bf16::from_f32(*v).to_bits()).collect();
        let hf: Vec<u16> = table.iter().map(|v| half::f16::from_f32(*v).to_bits()).collect();
        let index = [3, 0, 4, 4, 9];
        let (ids, y) = (upload(&gpu, &index), gpu.alloc(5 * 24 * 4).unwrap());
        for (number, bits) in [(Number::Bf16, &bf), (Number::F16, &hf)] {
            let from = upload(&gpu, bits);
            let launches = embedding((from.ptr(), ids.ptr(), y.ptr()), (5, 24), 5, number, words.ptr()).unwrap();
            gpu.run(&launches).unwrap();
            let found = download::<f32>(&y, 5 * 24);
            for (j, id) in index[..4].iter().enumerate() {
                for i in 0..24 {
                    let bits = bits[*id as usize * 24 + i];
                    let e = if number == Number::Bf16 {
                        half::bf16::from_bits(bits).to_f32()
                    } else {
                        half::f16::from_bits(bits).to_f32()
                    };
                    assert_eq!(found[j * 24 + i], e);
                }
            }
        }
        let message = status::message(download::<i32>(&words, 4).try_into().unwrap());
        assert_eq!(message.as_deref(), Some("index 9 is outside the table of 5 rows (0 to 4)"));
    }
}
