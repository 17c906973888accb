//! Running a bound program allocates nothing: a counting allocator watches a run.

extern crate mobilis_runtime as mobilis;

use mobilis::prelude::*;
use mobilis::program::host::{HostRef, HostSlice};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;
static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(p, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

axes! {
    pub Batch;
    pub Hidden = 96;
    pub Wide = 70;
}

#[neural_module]
struct Net {
    scale: Param![Hidden],
    wide: Param![Wide, Hidden],
    total: Buffer![Hidden],
}

#[test]
fn a_run_allocates_nothing() -> Result<(), Box<dyn std::error::Error>> {
    let model = Model::init(Net::default(), 1)?;
    let graph = model.trace(mobilis::graph::trace::Mode::Train, |m: &Net, x: Tensor![Batch, Hidden]| {
        let y = (x * m.scale.get() + 1.0).tanh();
        m.total.set(m.total.get() * 0.9 + y.mean(Batch));
        let centred = y - rearrange!(y[b h] => [h b]).sum(Hidden).mean_all();
        let (best, places) = y.dropout(0.1).top_k(Hidden, Const::<5>);
        let moved = y.gather(Hidden, places, Const::<5>).concat(Const::<5>, best.cumsum(Const::<5>), Const::<5>);
        let framed =
            moved.flip(<Sum<Const<5>, Const<5>>>::AXIS).unfold(<Sum<Const<5>, Const<5>>>::AXIS, Windows::<4, 2>);
        let wide = einsum!(y[b h] * m.wide.get()[w h] => [b w]);
        let mixed = einsum!(wide[b w] * y[b h] => [h w]);
        (centred, y.softmax(Hidden), framed, y.logsumexp(Hidden), mixed.mean_all())
    })?;
    let values = vec![0.5f32; 33 * 96];
    let inputs = [HostRef { sizes: &[33, 96], values: HostSlice::F32(&values) }];
    for format in [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Q8_0, WeightFormat::Q4_0, WeightFormat::Int8] {
        let program = model.executable(graph.clone()).with_weights(format.into())?;
        let mut last = 0.0;
        let mut run = || {
            program.run(&inputs, |_, _, out| {
                if let mobilis::devices::cpu::Out::F32(s) = out {
                    last = s[0];
                }
            })
        };
        run()?;
        run()?;
        let before = COUNT.load(Ordering::Relaxed);
        run()?;
        let allocated = COUNT.load(Ordering::Relaxed) - before;
        assert!(last.is_finite());
        assert_eq!(allocated, 0, "a run with {format} allocated {allocated} times");
    }
    Ok(())
}
