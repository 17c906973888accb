//! What the emulator says of each kernel of `wrong.cu`: the words, and a line of that file.

use super::devices;
use mobilis_cuda::testing::upload;
use mobilis_cuda::{Launch, Swizzle, Tile, args};

/// Kernel, threads, blocks of a cluster, and words of what is reported (in at least one schedule).
const WRONG: &[(&str, u32, u32, &str)] = &[
    ("w_race_write_read", 64, 1, "race on a __shared__ variable"),
    ("w_race_read_write", 64, 1, "race on a __shared__ variable"),
    ("w_race_in_warp", 64, 1, "race on a __shared__ variable"),
    ("w_race_with_atomic", 64, 1, "race on a __shared__ variable"),
    ("w_divergent_barrier", 64, 1, "divergent __syncthreads"),
    ("w_divergent_warp", 64, 1, "divergent warp"),
    ("w_mask_without_itself", 64, 1, "leaves lane"),
    ("w_half_a_warp", 64, 1, "divergent warp"),
    ("w_named_barrier_alone", 64, 1, "wait for ever"),
    ("w_named_barrier_counts", 64, 1, "named barrier 1 of"),
    ("w_barrier_without_init", 64, 1, "mbar_init is missing"),
    ("w_wrong_parity", 64, 1, "wait for ever"),
    ("w_too_many_arrivals", 64, 1, "more arrivals than the 1"),
    ("w_expects_more", 64, 1, "128 bytes"),
    ("w_expects_less", 64, 1, "bytes"),
    ("w_nobody_waits", 64, 1, "ends"),
    ("w_load_past_the_end", 64, 1, "out of bounds: 0 bytes past the end of a buffer of 256"),
    ("w_store_before", 64, 1, "store of 4 bytes out of bounds"),
    ("w_null", 64, 1, "null pointer"),
    ("w_past_dynamic_shared", 64, 1, "of dynamic shared memory, the launch has"),
    ("w_misaligned_load", 64, 1, "not a multiple"),
    ("w_atomic_outside", 64, 1, "atomic of 4 bytes out of bounds"),
    ("w_deep", 64, 1, "stack overflow"),
    ("w_copy_not_waited", 64, 1, "has not waited for"),
    ("w_copy_not_committed", 64, 1, "has not waited for"),
    ("w_copy_out_of_bounds", 64, 1, "cp.async of 16 bytes out of bounds"),
    ("w_copy_misaligned", 64, 1, "aligned"),
    ("w_copies_of_others", 64, 1, "race on byte"),
    ("w_tile_misaligned", 64, 1, "not aligned to 128 bytes"),
    ("w_rank", 64, 1, "in 3 dimensions with a map of 2"),
    ("w_tile_reused", 64, 1, "race on byte"),
    ("w_store_not_waited", 64, 1, "tma_wait_read<0>() is missing"),
    ("w_store_without_fence", 64, 1, "fence_async() is missing"),
    ("w_stored_tile_reused", 64, 1, "a bulk store in flight"),
    ("w_wgmma_not_waited", 128, 1, "wgmma that it has not waited for"),
    ("w_accumulators_touched", 128, 1, "touched its accumulators"),
    ("w_wgmma_without_fence", 128, 1, "wgmma without wgmma_fence()"),
    ("w_operands_without_fence", 128, 1, "fence_async() is missing"),
    ("w_operands_overwritten", 128, 1, "a wgmma in flight"),
    ("w_released_too_early", 128, 1, "a wgmma in flight"),
    ("w_half_a_warpgroup", 128, 1, "wait for ever"),
    ("w_operand_past_the_end", 128, 1, "of shared memory, which has"),
    ("w_operand_misaligned", 128, 1, "does not begin in the first row"),
    ("w_too_many_registers", 384, 1, "registers, the block has 64512"),
    ("w_registers_the_wrong_way", 384, 1, "down to 240 registers a thread, it has 168"),
    ("w_operand_moved_off", 128, 1, "operand B at"),
    ("w_barrier_not_shown", 64, 1, "mbar_init_fence() is missing"),
    ("w_neighbour_has_ended", 32, 2, "has ended"),
    ("w_neighbour_not_ready", 64, 2, "race on a __shared__ variable"),
    ("w_multicast_beyond", 64, 2, "the cluster has 2 blocks"),
];

#[test]
fn mistakes_are_named_with_their_place() {
    let mut missed = vec![];
    for (kernel, threads, cluster, words) in WRONG {
        let mut said = vec![];
        // New ones, for a device that failed gives no results any more.
        for gpu in devices() {
            let (x, y) = (upload(&gpu, &[1f32; 64]), upload(&gpu, &[0f32; 64]));
            let tile = Tile::new(x.ptr(), 4, &[8, 8], &[32], &[8, 8], Swizzle::None);
            let launch = Launch::new(kernel, [*cluster, 1, 1], *threads, args![x.ptr(), y.ptr(), tile]);
            let shared = if *threads == 128 { 16384 } else { 1024 };
            let shared = if *kernel == "w_past_dynamic_shared" { 400 } else { shared };
            let run = gpu.run(&[launch.shared(shared).cluster([*cluster, 1, 1])]);
            said.push(run.err().map_or("nothing".to_string(), |e| e.to_string()));
        }
        let right = said.is_empty() || said.iter().any(|s| s.contains(words) && s.contains(" at wrong.cu:"));
        if !right {
            missed.push(format!("{kernel}: expected {words:?}, found\n  {}", said.join("\n  ")));
        } else {
            said.iter().find(|s| s.contains(words)).iter().for_each(|s| println!("{s}"));
        }
    }
    assert!(missed.is_empty(), "{} of {} mistakes are not named:\n{}", missed.len(), WRONG.len(), missed.join("\n"));
}
