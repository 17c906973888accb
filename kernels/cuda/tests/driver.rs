//! What devices say where they cannot be had, and after a failure. None of it needs a GPU.

use mobilis_cuda::{CudaError, Gpu, Launch, Ptr, Schedule};

/// Without a driver, or with one and no such device: words, and no panic.
#[test]
fn a_device_that_is_not_there_is_told_of() {
    for _ in 0..2 {
        match Gpu::open(4_000) {
            Err(e @ CudaError::Unavailable(_)) => {
                let words = e.to_string();
                assert!(words.starts_with("no CUDA device: ") && words.len() > 40, "{words}");
            }
            Err(e) => panic!("{e:?}"),
            Ok(_) => panic!("there are not so many"),
        }
    }
    let _ = Gpu::count();
}

#[test]
fn after_a_failed_launch_there_are_no_results() {
    let gpu = match Gpu::emulated(Schedule::Forward) {
        Ok(gpu) => gpu,
        Err(e) => return eprintln!("skipped: {e}"),
    };
    let buffer = gpu.alloc(64).unwrap();
    buffer.fill(1).unwrap();
    let unknown = Launch::new("no_such_kernel", [1, 1, 1], 32, vec![]);
    // A grid without blocks runs nothing, whatever it is.
    gpu.run(&[Launch { grid: [0, 1, 1], ..unknown.clone() }]).unwrap();
    assert!(gpu.run(&[unknown]).is_err());
    let error = buffer.download(&mut [0; 4]).unwrap_err().to_string();
    assert!(error.contains("no_such_kernel") && error.contains("no results after that"), "{error}");
    assert!(gpu.alloc(1).is_err() && gpu.synchronize().is_err() && buffer.fill(0).is_err());
    // Another one is as good as new.
    assert!(Gpu::emulated(Schedule::Forward).unwrap().alloc(1).is_ok());
}

#[test]
fn addresses_lie_in_memory_that_was_given_out() {
    let gpu = match Gpu::emulated(Schedule::Forward) {
        Ok(gpu) => gpu,
        Err(e) => return eprintln!("skipped: {e}"),
    };
    let (a, b) = (gpu.alloc(64).unwrap(), gpu.alloc(64).unwrap());
    assert!(gpu.write(a.ptr().at(60), &[0u8; 4]).is_ok());
    assert!(gpu.write(a.ptr().at(61), &[0u8; 4]).is_err());
    assert!(gpu.read(Ptr::NULL, &mut [0u8; 4]).is_err());
    assert!(gpu.read(Ptr(u64::MAX), &mut [0u8; 4]).is_err());
    assert!(gpu.copy(a.ptr(), b.ptr(), 64).is_ok());
    assert!(gpu.copy(a.ptr(), a.ptr().at(32), 33).is_err() && gpu.copy(a.ptr(), a.ptr().at(16), 32).is_err());
    assert!(gpu.copy(a.ptr(), a.ptr(), 64).is_ok());
    let gone = b.ptr();
    drop(b);
    assert!(gpu.write(gone, &[0u8; 4]).is_err());
    // What was refused has poisoned nothing.
    assert!(gpu.synchronize().is_ok());
}
