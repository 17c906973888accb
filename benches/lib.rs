//! Throughput of what models spend their time in, and its share of the machine's limit: one file a
//! family.
//!
//! ```sh
//! cargo bench --manifest-path benches/Cargo.toml                      # all
//! cargo bench --manifest-path benches/Cargo.toml --bench gemm -- 512  # those of one family, by name
//! ```
//!
//! Throughput is in elements per second: floating-point operations, a multiply-add counted as two,
//! as the graph itself counts them; for a training step or a language model, tokens. Below
//! criterion's figures each program prints the share of the machine's limit that its fastest run
//! reached, by the ceilings that this process measured. Programs run on as many threads as the
//! machine has, or as `MOBILIS_THREADS` says. Comparisons with other frameworks are in `peers/`.

use criterion::{BenchmarkGroup, Throughput, measurement::WallTime};
use mobilis::Model;
use mobilis::module::Module;
use mobilis::program::host::HostRef;
use mobilis::program::profile::Profile;
use mobilis::program::{Arguments, Feed, Program, Results};
use mobilis_kernels::cpu::limits::Limits;
use std::time::Instant;

/// Values between -1 and 1 that no kernel can take a shortcut for.
pub fn wave(i: usize) -> f32 {
    (i as f32 * 0.7).sin()
}

/// What a run's throughput counts.
pub enum Count {
    /// Floating-point operations.
    Flops,
    /// So many tokens.
    Tokens(usize),
}

/// Measures a function of a module and arrays.
pub fn measure<I: Arguments, O: Results, M: Module>(
    group: &mut BenchmarkGroup<WallTime>,
    name: &str,
    module: M,
    f: impl FnOnce(&M, I) -> O,
    arrays: &impl Feed<I>,
    count: Count,
) {
    let model = Model::init(module, 1).expect("a model without run-time axes in its parameters");
    measure_program(group, name, &model.compile(f).expect("a program"), arrays, count);
}

/// Measures a program. Its results are looked at where they are: nothing is copied out.
pub fn measure_program<I: Arguments, O: Results>(
    group: &mut BenchmarkGroup<WallTime>,
    name: &str,
    program: &Program<I, O>,
    arrays: &impl Feed<I>,
    count: Count,
) {
    let profile = program.profile(arrays, 3).expect("a run");
    let elements = match count {
        Count::Flops => profile.modules[0].row.flops as u64,
        Count::Tokens(n) => n as u64,
    };
    let mut inputs: Vec<HostRef> = vec![];
    arrays.feed(&mut inputs);
    group.throughput(Throughput::Elements(elements));
    let mut best = f64::INFINITY;
    group.bench_function(name, |b| {
        b.iter(|| {
            let start = Instant::now();
            program.executable().run(&inputs, |_, _, _| ()).expect("a run");
            best = best.min(start.elapsed().as_secs_f64());
        });
    });
    report(&profile, best);
}

/// Prints what share of its limits the fastest run of a program reached.
pub fn report(profile: &Profile, seconds: f64) {
    if !seconds.is_finite() {
        return;
    }
    let (limits, threads): (&Limits, usize) = (profile.limits, profile.threads);
    let row = &profile.modules[0].row;
    let peak = limits.peak().of(threads, limits.threads);
    println!(
        "{:24}limit: {:.0} % of what {threads} threads can do ({:.1} GFLOP/s of {:.0}, {:.1} GB/s of operands)",
        "",
        row.least / seconds * 100.0,
        row.flops / seconds / 1e9,
        peak / 1e9,
        row.bytes / seconds / 1e9,
    );
}
