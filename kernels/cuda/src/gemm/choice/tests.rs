use super::super::{Element, Gemm, Matrix};
use super::choose;
use crate::{Info, Ptr};

/// On a device of 132 multiprocessors: into how many parts `k` is cut.
#[test]
fn long_sums_of_few_tiles_are_cut() {
    let h100 = Info {
        name: String::new(),
        capability: 90,
        multiprocessors: 132,
        shared: 227 << 10,
        memory: 0,
        emulated: true,
    };
    let parts = |[m, n, k]: [usize; 3], element: Element| {
        let a = Matrix::rows(Ptr(4096), k).of(element);
        let g = Gemm::new([m, n, k], a, a.turned(), Matrix::rows(Ptr(4096), n));
        let choice = choose(&g, &h100).unwrap();
        assert!(choice.splits == 1 || choice.workspace == m * n * 4 * choice.splits, "{choice}");
        assert!(choice.part * choice.splits >= k && choice.part * (choice.splits - 1) < k.max(1), "{choice}");
        choice.splits
    };
    for (size, expected) in [
        // Enough tiles, full waves.
        ([4096, 4096, 4096], 1..=1),
        ([8192, 8192, 8192], 1..=1),
        // One tile; a gradient by a weight; a step of 64 texts; short sums stay whole.
        ([128, 128, 65_536], 32..=64),
        ([512, 512, 65_536], 6..=12),
        ([64, 4096, 14_336], 3..=4),
        ([128, 4096, 512], 1..=1),
        // A second wave that would be nearly empty.
        ([2304, 2048, 32_768], 2..=16),
        ([2304, 2048, 1024], 1..=1),
    ] {
        let found = parts(size, Element::Bf16);
        assert!(expected.contains(&found), "{size:?}: {found} parts, expected {expected:?}");
    }
    assert_eq!(parts([4096, 4096, 7168], Element::E4M3), 1);
    // On other tensor cores and ordinary multipliers too.
    let ampere = Info { capability: 80, multiprocessors: 108, ..h100.clone() };
    for element in [Element::Bf16, Element::F32] {
        let a = Matrix::rows(Ptr(4096), 65_536).of(element);
        let g = Gemm::new([64, 64, 65_536], a, a.turned(), Matrix::rows(Ptr(4096), 64));
        assert!(choose(&g, &ampere).unwrap().splits > 16);
    }
}
