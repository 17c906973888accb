//! All kernels on a GPU, in one table, in less than eight minutes:
//!
//! ```sh
//! cargo bench -p mobilis-cuda --features bench                  # the whole table
//! cargo bench -p mobilis-cuda --features bench -- gemm decode   # what has one of these words in its name
//! cargo bench -p mobilis-cuda --features bench -- --emulated    # small sizes, without figures
//! ```
//!
//! The binary (`target/release/deps/kernels-*`) needs libc and NVIDIA's driver only, and can be carried to a
//! machine with neither Rust nor a network. Times are the device's, between events, of recorded launches: warm,
//! the median of eleven, over inputs that rotate and are together larger than the second-level cache, of random
//! numbers. cuBLASLt runs in the same process on the same operands, the fastest of its eight proposals.
//!
//! Kernels are here, and the products of a whole model; decoding of transducers and training steps are programs of the runtime,
//! which its users measure.
//!
//! A family adds its cases in a file of its own, as rows of a table: a name, the work, and a function from the
//! device to launches.

mod attention;
mod gemm;
mod measure;
mod model;
mod rows;
mod speech;

use measure::{Bench, Case, Line};
use mobilis_cuda::driver::vendor::Vendor;
use mobilis_cuda::{CudaError, Gpu, Schedule};
use std::time::{Duration, Instant};

/// What all of it may take.
const BUDGET: Duration = Duration::from_secs(450);

fn cases() -> Vec<Case> {
    let mut all = rows::cases();
    all.extend(gemm::cases());
    all.extend(attention::cases());
    all.extend(model::cases());
    all.extend(speech::cases());
    all
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let emulated = words.iter().any(|w| w == "--emulated");
    let wanted: Vec<&String> = words.iter().filter(|w| !w.starts_with("--")).collect();
    let chosen = |case: &Case| wanted.is_empty() || wanted.iter().any(|w| case.name.contains(w.as_str()));
    let cases: Vec<Case> = cases().into_iter().filter(chosen).collect();
    let gpu = if emulated { Gpu::emulated(Schedule::Forward) } else { Gpu::open(0) };
    let gpu = match gpu {
        Ok(gpu) => gpu,
        Err(e) => {
            println!("There is no GPU here, so nothing is measured: {e}.");
            println!("Run this on a machine with one; {} cases wait for it:", cases.len());
            cases.iter().for_each(|c| println!("  {}", c.name));
            return;
        }
    };
    let vendor = Vendor::new(&gpu);
    let reason = vendor.as_ref().err().map(ToString::to_string);
    let mut bench = match Bench::new(&gpu, vendor.as_ref().ok(), emulated) {
        Ok(bench) => bench,
        Err(e) => return println!("the device does not work: {e}"),
    };
    let info = gpu.info();
    println!("{}, compute capability {}, {} multiprocessors", info.name, info.capability, info.multiprocessors);
    match &reason {
        Some(reason) => println!("no peer: {reason}"),
        None => println!("peer: cuBLASLt, the fastest of its proposals"),
    }
    println!("measured ceilings: {}", bench.ceilings);
    println!("{}", Line::head());
    let start = Instant::now();
    let (mut ratios, mut shares, mut left, mut failed) = (vec![], vec![], vec![], 0);
    for case in &cases {
        if start.elapsed() > BUDGET {
            left.push(case.name.as_str());
            continue;
        }
        match bench.run(case) {
            Ok(line) => {
                ratios.extend(line.ratio);
                shares.extend(line.share);
                println!("{line}");
            }
            Err(e) => {
                println!("{:44} not run: {e}", case.name);
                failed += 1;
                // After a launch that failed the device computes nothing.
                if matches!(e, CudaError::Launch { .. }) {
                    break;
                }
            }
        }
    }
    let mean = |values: &[f64]| (values.iter().map(|v| v.ln()).sum::<f64>() / values.len().max(1) as f64).exp();
    if !ratios.is_empty() {
        println!("geometric mean of x vendor over {} cases: {:.3}", ratios.len(), mean(&ratios));
    }
    if !shares.is_empty() {
        println!("geometric mean of the ceiling over {} cases: {:.1} %", shares.len(), 100.0 * mean(&shares));
    }
    if !left.is_empty() {
        println!("out of time for: {}", left.join(", "));
    }
    if failed > 0 {
        println!("{failed} cases did not run");
        std::process::exit(1);
    }
}
