//! All kernels on a GPU, in one table, in less than eight minutes:
//!
//! ```sh
//! cargo bench -p mobilis-cuda --features bench                  # the whole table
//! cargo bench -p mobilis-cuda --features bench -- gemm decode   # what has one of these words in its name
//! cargo bench -p mobilis-cuda --features bench -- --emulated    # small sizes, without figures
//! ```
//!
//! The binary (`target/release/deps/kernels-*`) needs libc and NVIDIA's driver only, and can be carried to a
//! machine with neither Rust nor a network (built with `MOBILIS_NVCC`, it has machine code inside; else NVRTC is needed
//! there too). Times are the device's, between events, of recorded launches: warm,
//! the median of eleven, over inputs that rotate and are together larger than the second-level cache, of random
//! numbers. cuBLASLt runs in the same process on the same operands, the fastest of its eight proposals (in eight bits with
//! sums as tensor cores keep them).
//!
//! Products, attention and most of what moves rows are compared with what they should be, in places spread over the whole
//! result ([`check`]), before they are measured: what is wrong has no figure. A process of its own measures ([`watch`]), so that
//! a kernel that fails or never ends costs its own line alone.
//!
//! Kernels are here, and the products of a whole model; decoding of transducers and training steps are programs of the runtime,
//! which its users measure.
//!
//! A family adds its cases in a file of its own, as rows of a table: a name, the work, and a function from the
//! device to launches.

mod attention;
mod check;
mod gemm;
mod measure;
mod model;
mod rows;
mod speech;
mod watch;

use measure::{Bench, Case, Line};
use mobilis_cuda::driver::vendor::Vendor;
use mobilis_cuda::{CudaError, Gpu, Schedule};
use watch::Said;

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
    let cases = cases();
    if let Some(numbers) = words.iter().find_map(|w| w.strip_prefix(watch::WORKER)) {
        let numbers = numbers.split(',').filter_map(|n| n.parse().ok());
        return work(&cases, numbers.filter(|n| *n < cases.len()), emulated);
    }
    let wanted: Vec<&String> = words.iter().filter(|w| !w.starts_with("--")).collect();
    let chosen = |case: &Case| wanted.is_empty() || wanted.iter().any(|w| case.name.contains(w.as_str()));
    let names: Vec<(usize, &str)> =
        cases.iter().enumerate().filter(|(_, c)| chosen(c)).map(|(i, c)| (i, c.name.as_str())).collect();
    let failed = watch::watch(names, emulated);
    if failed > 0 {
        println!("{failed} cases did not run");
        std::process::exit(1);
    }
}

/// Measures cases one after the other, and says so to the process that watches.
fn work(cases: &[Case], numbers: impl Iterator<Item = usize>, emulated: bool) {
    let say = |said: Said| println!("{said}");
    let gpu = if emulated { Gpu::emulated(Schedule::Forward) } else { Gpu::open(0) };
    let gpu = match gpu {
        Ok(gpu) => gpu,
        Err(e) => return say(Said::Nothing(format!("There is no GPU here, so nothing is measured: {e}."))),
    };
    let vendor = Vendor::new(&gpu);
    let reason = vendor.as_ref().err().map(ToString::to_string);
    let mut bench = match Bench::new(&gpu, vendor.as_ref().ok(), emulated) {
        Ok(bench) => bench,
        Err(e) => return say(Said::Broken(format!("The device does not work: {e}."))),
    };
    let info = gpu.info();
    let (name, capability, count) = (&info.name, info.capability, info.multiprocessors);
    say(Said::Head(format!("{name}, compute capability {capability}, {count} multiprocessors")));
    say(Said::Head(reason.map_or("peer: cuBLASLt, the fastest of its proposals".into(), |r| format!("no peer: {r}"))));
    say(Said::Head(format!("measured ceilings: {}", bench.ceilings)));
    say(Said::Head(Line::head()));
    for n in numbers {
        say(Said::Begins(n));
        match bench.run(&cases[n]) {
            Ok(line) => say(Said::Ran(n, line.ratio, line.share, line.to_string())),
            Err(e) => {
                say(Said::Failed(n, e.to_string()));
                // After a launch that failed the device computes nothing: another process goes on.
                if matches!(e, CudaError::Launch { .. }) {
                    return;
                }
            }
        }
    }
}
