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

/// What is recorded runs when it is asked to, as often as that, and nothing else can be part of it.
#[test]
fn recorded_work_runs_when_it_is_asked_to() {
    let gpu = match Gpu::emulated(Schedule::Forward) {
        Ok(gpu) => gpu,
        Err(e) => return eprintln!("skipped: {e}"),
    };
    let (a, b) = (gpu.alloc(16).unwrap(), gpu.alloc(16).unwrap());
    a.upload(&[1; 16]).unwrap();
    b.fill(0).unwrap();
    let work = || {
        gpu.copy(a.ptr(), b.ptr(), 16)?;
        gpu.fill(a.ptr(), 7, 8)
    };
    let recorded = gpu.record(work).unwrap().expect("the emulator records");
    let now = |x: &mobilis_cuda::Buffer| {
        let mut bytes = [0; 16];
        x.download(&mut bytes).unwrap();
        bytes
    };
    assert_eq!((now(&a), now(&b)), ([1; 16], [0; 16]));
    recorded.replay().unwrap();
    let half = |x, y| std::array::from_fn(|i| if i < 8 { x } else { y });
    assert_eq!((now(&a), now(&b)), (half(7, 1), [1; 16]));
    recorded.replay().unwrap();
    assert_eq!(now(&b), half(7, 1));
    for wrong in [&(|| gpu.alloc(4).map(drop)) as &dyn Fn() -> _, &|| a.upload(&[0]), &|| a.download(&mut [0])] {
        let error = gpu.record(wrong).err().expect("no part of a recording").to_string();
        assert!(error.contains("recorded"), "{error}");
    }
    // The recording has ended with the error.
    a.fill(3).unwrap();
    assert_eq!(now(&a), [3; 16]);
}

#[test]
fn grids_that_no_device_takes_are_refused() {
    let gpu = match Gpu::emulated(Schedule::Forward) {
        Ok(gpu) => gpu,
        Err(e) => return eprintln!("skipped: {e}"),
    };
    let launch = |grid, threads| Launch::new("no_such_kernel", grid, threads, vec![]);
    for (launch, words) in [
        (launch([1, 65_536, 1], 32), "[1, 65536, 1] blocks"),
        (launch([1 << 31, 1, 1], 32), "less than 2^31"),
        (launch([1, 1, 1], 1025), "1 to 1024"),
        (launch([1, 1, 1], 32).shared(228 << 10), "233472 bytes of shared memory"),
        (launch([3, 1, 1], 32).cluster([2, 1, 1]), "expected divisors"),
        (launch([16, 1, 1], 32).cluster([16, 1, 1]), "8 at most"),
    ] {
        let error = gpu.run(&[launch]).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    // What was refused has poisoned nothing.
    assert!(gpu.synchronize().is_ok());
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
