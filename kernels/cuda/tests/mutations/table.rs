//! The planted bugs: each replaces a piece of a file's text.

/// One bug.
pub struct Mutation {
    /// The file, below the folder of kernels.
    pub file: &'static str,
    /// The binary of tests that must notice, and which of its tests.
    pub tests: (&'static str, &'static str),
    /// What it is.
    pub what: &'static str,
    /// What is replaced (where it stands for the `nth` time, counted from 0), and by what.
    pub from: &'static str,
    pub to: &'static str,
    pub nth: usize,
    /// Whether it is planted in every run of the tests.
    pub always: bool,
}

const fn m(
    file: &'static str,
    tests: (&'static str, &'static str),
    what: &'static str,
    from: &'static str,
    to: &'static str,
    nth: usize,
) -> Mutation {
    Mutation { file, tests, what, from, to, nth, always: false }
}

const fn always(mut m: Mutation) -> Mutation {
    m.always = true;
    m
}

const SYNC: &str = "__syncthreads();";
const GEMM: (&str, &str) = ("gemm", "products_in_all");
const MANY: (&str, &str) = ("experts", "rows_meet");
const GROUPED: (&str, &str) = ("experts", "tensor_cores");
const ATTENTION: (&str, &str) = ("attention", "random_shapes");
const CACHED: (&str, &str) = ("attention", "caches_of");
const TENSOR: (&str, &str) = ("attention", "tensor::every");
const HOPPER: (&str, &str) = ("attention", "hopper_of");
const PACKED: (&str, &str) = ("attention", "sequences_packed");
const BACKWARD: &str = "attention_backward_sm90.cu";
const FORWARD: (&str, &str) = ("conv", "forward_equals");
const LINE: (&str, &str) = FORWARD;
const WEIGHT: (&str, &str) = ("conv", "the_weight_gradient");
const SAMPLE: (&str, &str) = ("sample", "");
const COPY: (&str, &str) = ("copy", "every_layout");
const POOL: (&str, &str) = ("pool", "the_largest");
const LSTM: (&str, &str) = ("recurrent", "lstm");
const GRU: (&str, &str) = ("recurrent", "gru");
const SSM: (&str, &str) = ("ssm", "a_scan");
const STFT: (&str, &str) = ("stft", "transforms");
const PIPE: &str = "include/hopper.cuh";
const AMPERE: &str = "include/ampere.cuh";
const HOPPERS: (&str, &str) = ("gemm", "tensor_cores_of_hopper");
const AMPERES: (&str, &str) = ("gemm", "tensor_cores_of_ampere");
const EIGHT: (&str, &str) = ("gemm", "values_of_eight_bits");
const RIGHT: &str = "tests/emulator/right.cu";
const TILES: (&str, &str) = ("emulator", "tiles_of");
const COPIES: (&str, &str) = ("emulator", "copies_fill");
const CLUSTERS: (&str, &str) = ("emulator", "clusters_share");
const WARPS: (&str, &str) = ("emulator", "warps_multiply");
const GROUPS: (&str, &str) = ("emulator", "warpgroups");

/// All of them.
pub const MUTATIONS: &[Mutation] = &[
    // Missing barriers.
    m("gemm.cu", GEMM, "no barrier before the first slab is read", SYNC, "", 0),
    m("gemm.cu", GEMM, "no barrier between slabs", SYNC, "", 1),
    m("gemm.cu", GEMM, "no barrier before sums take the tile's place", SYNC, "", 2),
    m("gemm.cu", GEMM, "no barrier before sums are read", SYNC, "", 3),
    m("gemm.cu", MANY, "no barrier before starts are summed", SYNC, "", 4),
    m("gemm.cu", MANY, "no barrier after starts were summed", SYNC, "", 5),
    m("gemm.cu", MANY, "no barrier before the expert is known", SYNC, "", 6),
    m("gemv.cu", ("gemm", ""), "no barrier before warps' sums are joined", SYNC, "", 0),
    m("gemv.cu", GEMM, "no barrier before the next row's sums", SYNC, "", 1),
    m("gemv.cu", GEMM, "no barrier before sums are joined", SYNC, "", 2),
    m("attention.cu", ATTENTION, "no barrier before a chunk is overwritten", SYNC, "", 0),
    m("attention.cu", ATTENTION, "no barrier before a chunk is read", SYNC, "", 1),
    m("attention.cu", ATTENTION, "no barrier before values are overwritten", SYNC, "", 2),
    m("attention.cu", ATTENTION, "no barrier before values are read", SYNC, "", 3),
    m("include/tiled.cuh", FORWARD, "no barrier before the first slab is read", SYNC, "", 0),
    m("include/tiled.cuh", FORWARD, "no barrier between slabs", SYNC, "", 1),
    m("conv.cu", LINE, "no barrier before a line is read", SYNC, "", 0),
    m("conv.cu", LINE, "no barrier before sums take the line's place", SYNC, "", 1),
    m("conv.cu", LINE, "no barrier before sums are read", SYNC, "", 2),
    m("conv.cu", WEIGHT, "no barrier before warps' sums are joined", SYNC, "", 3),
    always(m("copy.cu", COPY, "no barrier between writing and reading a tile", SYNC, "", 0)),
    m("sample.cu", SAMPLE, "no barrier before bins are filled", SYNC, "", 0),
    m("sample.cu", SAMPLE, "no barrier before bins are counted", SYNC, "", 1),
    m("sample.cu", SAMPLE, "no barrier before what was found is read", SYNC, "", 2),
    m("sample.cu", SAMPLE, "no barrier before bins are emptied", SYNC, "", 3),
    m("sample.cu", SAMPLE, "no barrier before warps sum", SYNC, "", 4),
    m("sample.cu", SAMPLE, "no barrier before warps' sums are read", SYNC, "", 5),
    m("sample.cu", SAMPLE, "one place too many of those that are alike", "i > end_at", "i > end_at + 1", 0),
    m("sample.cu", SAMPLE, "the k-th largest left out", "<= last; };", "< last; };", 0),
    m("pool.cu", POOL, "lanes add without waiting for each other's window", "__syncwarp();", "", 0),
    m("recurrent.cu", LSTM, "no barrier before a slab is overwritten", SYNC, "", 0),
    m("recurrent.cu", LSTM, "no barrier before a slab is read", SYNC, "", 1),
    m("recurrent.cu", LSTM, "no barrier before rows are known", SYNC, "", 2),
    m(
        "recurrent.cu",
        GRU,
        "no barrier before lines are summed",
        "lines[line][lane] = sum;\n  __syncthreads();",
        "lines[line][lane] = sum;",
        0,
    ),
    m("recurrent_small.cu", LSTM, "no barrier before halves are joined", SYNC, "", 0),
    m("recurrent_small.cu", LSTM, "no barrier after halves are stored", SYNC, "", 1),
    m("recurrent_small.cu", LSTM, "no barrier before a step's product", SYNC, "", 2),
    m("recurrent_small.cu", LSTM, "no barrier after a step's product", SYNC, "", 3),
    m("ssm.cu", SSM, "no barrier before gradients are summed over a block", SYNC, "", 0),
    m("ssm.cu", SSM, "one half of the parts instead of two", "part[t & 1]", "part[0]", 0),
    always(m("ssm.cu", SSM, "no barrier in a tree of sums", SYNC, "", 2)),
    m("stft.cu", STFT, "no barrier before the first pass", SYNC, "", 0),
    m("stft.cu", STFT, "no barrier between passes", SYNC, "", 1),
    always(m("stft.cu", STFT, "no barrier before lines are summed", SYNC, "", 2)),
    m("attention_decode.cu", CACHED, "no barrier before scores are overwritten", SYNC, "", 0),
    m("attention_decode.cu", CACHED, "no barrier before scores are read", SYNC, "", 1),
    m("attention_decode.cu", CACHED, "no wait for the warp's weights", "__syncwarp();", "", 0),
    m("attention_decode.cu", CACHED, "no barrier before weights are used", SYNC, "", 2),
    m("attention_decode.cu", CACHED, "no barrier before sums take the queries' place", SYNC, "", 3),
    m("attention_decode.cu", CACHED, "no barrier before sums are joined", SYNC, "", 4),
    m("attention_sm80.cu", TENSOR, "keys not waited for", "cp_async_wait<0>();", "", 0),
    m("attention_sm80.cu", TENSOR, "others' keys not waited for", SYNC, "", 0),
    m("attention_sm80.cu", TENSOR, "values not waited for", "cp_async_wait<0>();", "cp_async_wait<1>();", 1),
    m("attention_sm80.cu", TENSOR, "others' values not waited for", SYNC, "", 1),
    m("attention_sm80.cu", TENSOR, "the backward pass's tiles not waited for", "cp_async_wait<0>();", "", 3),
    m("attention_sm80.cu", TENSOR, "others' tiles of the backward pass not waited for", SYNC, "", 2),
    m(
        "attention_sm80.cu",
        TENSOR,
        "a tile overwritten while others read it",
        "__syncthreads();\n      get(ot + 1, 0);",
        "get(ot + 1, 0);",
        0,
    ),
    m(
        "attention_sm80.cu",
        TENSOR,
        "the next tile into the buffer in use",
        "get(ot + 1, buffer ^ 1)",
        "get(ot + 1, buffer)",
        0,
    ),
    m("attention_sm80.cu", TENSOR, "rows outside are copied", "from, in ? 16 : 0", "from, 16", 0),
    m(
        "attention_sm80.cu",
        TENSOR,
        "a quarter of a row's maximum",
        "top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));",
        "",
        0,
    ),
    m(
        "attention_sm90.cu",
        HOPPER,
        "keys released before they are multiplied",
        "      wgmma_wait<0>();\n      wgmma_hold(z);\n      if (one) mbar_arrive(&k_empty[step & 1]);",
        "      if (one) mbar_arrive(&k_empty[step & 1]);\n      wgmma_wait<0>();\n      wgmma_hold(z);",
        0,
    ),
    m(
        "attention_sm90.cu",
        HOPPER,
        "values released before they are multiplied",
        "        wgmma_wait<0>();\n        wgmma_hold(o);\n        if (one) mbar_arrive(&v_empty[step & 1]);",
        "        if (one) mbar_arrive(&v_empty[step & 1]);\n        wgmma_wait<0>();\n        wgmma_hold(o);",
        0,
    ),
    m("attention_sm90.cu", HOPPER, "keys not waited for", "mbar_wait(&k_full[step & 1], step >> 1 & 1);", "", 0),
    m("attention_sm90.cu", HOPPER, "the next keys not waited for", "mbar_wait(&k_full[now & 1], now >> 1 & 1);", "", 0),
    m("attention_sm90.cu", HOPPER, "values not waited for", "mbar_wait(&v_full[step & 1], step >> 1 & 1);", "", 1),
    m("attention_sm90.cu", HOPPER, "zeros under values", "mbar_wait(&v_full[step & 1], step >> 1 & 1);", "", 0),
    m("attention_sm90.cu", HOPPER, "values behind a length", "w.keys < w.end * N && (", "false && (", 0),
    m("attention_sm90.cu", HOPPER, "one value behind a length", "(w.end - 1) * N);", "(w.end - 1) * N + 1);", 0),
    m("attention_sm90.cu", HOPPER, "the last value of a length", "(w.end - 1) * N);", "(w.end - 1) * N - 1);", 0),
    m("attention_sm90.cu", HOPPER, "no fence behind zeros", "fence_async();", "", 0),
    m("attention_sm90.cu", HOPPER, "no barrier behind zeros", "named_sync(1 + C, C * 128);", "", 0),
    m("attention_sm90.cu", PACKED, "the next sequence's values", "(a.lengths || packed.starts_k)", "(a.lengths)", 0),
    m(BACKWARD, HOPPER, "keys behind a length", "first + 64 > exist", "false", 0),
    m(BACKWARD, HOPPER, "one key behind a length", "(exist - first) * 8", "(exist + 1 - first) * 8", 0),
    m(BACKWARD, HOPPER, "no fence behind zeros", "fence_async();", "", 0),
    m(BACKWARD, HOPPER, "no barrier behind zeros", "named_sync(1, 256);", "", 0),
    m(BACKWARD, PACKED, "the next sequence's queries", "(DKV ? 2 : 1) * BLOCKS", "BLOCKS", 0),
    m(BACKWARD, HOPPER, "a slot overwritten", "mbar_wait(&empty[s], (j >> 1 & 1) ^ 1);", ";", 0),
    m(BACKWARD, HOPPER, "other rows not waited for", "mbar_wait(&full[s], j >> 1 & 1);", "", 0),
    m("attention_sm90.cu", HOPPER, "queries not waited for", "mbar_wait(&q_full, tile & 1);", "", 0),
    m("attention_sm90.cu", HOPPER, "queries overwritten", "mbar_wait(&q_empty, (tile & 1) ^ 1);", "", 0),
    m("attention_sm90.cu", HOPPER, "a slot of keys overwritten", "mbar_wait(&k_empty[s], parity);", "", 0),
    m("attention_sm90.cu", HOPPER, "the producer's parity", "(step >> 1 & 1) ^ 1;", "step >> 1 & 1;", 0),
    m(
        "attention_sm90.cu",
        HOPPER,
        "the bytes of one tile for two",
        "mbar_expect(&k_full[s], K_SLOT);",
        "mbar_expect(&k_full[s], K_SLOT / 2);",
        0,
    ),
    m(
        "attention_sm90.cu",
        HOPPER,
        "too many bytes",
        "mbar_expect(&q_full, C * BLOCKS * Q);",
        "mbar_expect(&q_full, C * BLOCKS * Q + 128);",
        0,
    ),
    m(
        "attention_sm90.cu",
        HOPPER,
        "one arrival too few is counted",
        "mbar_init(&k_empty[s], C);",
        "mbar_init(&k_empty[s], C - 1);",
        0,
    ),
    m(
        "attention_sm90.cu",
        HOPPER,
        "the turn is not given on",
        "named_arrive(1 + next, 256);",
        "named_arrive(1 + own, 256);",
        0,
    ),
    m(
        "attention_sm90.cu",
        HOPPER,
        "scores used before they are there",
        "wgmma_wait<1>();\n        wgmma_hold(z);",
        "wgmma_hold(z);",
        0,
    ),
    m(
        "attention_sm90.cu",
        HOPPER,
        "no fence before the values' product",
        "wgmma_hold(o);\n    wgmma_fence();",
        "wgmma_hold(o);",
        0,
    ),
    m("attention_sm90.cu", HOPPER, "K of the scores does not go on", "x * 32) / 16, k_desc", "0) / 16, k_desc", 0),
    m(
        "attention_sm90.cu",
        HOPPER,
        "the values' slot forgotten",
        "v_desc + (uint64_t)(s * V_SLOT",
        "v_desc + (uint64_t)(0 * V_SLOT",
        0,
    ),
    // The same in products of matrices.
    m(PIPE, HOPPERS, "new barriers not shown", "mbar_init_fence();", "", 0),
    m(PIPE, HOPPERS, "registers given back by nobody", "reg_dec<40>();", "", 0),
    m("attention_sm90.cu", HOPPER, "new barriers not shown", "mbar_init_fence();", "", 0),
    m(PIPE, HOPPERS, "a slot overwritten", "mbar_wait(&empty[slot], parity ^ 1);", "", 0),
    m(
        PIPE,
        HOPPERS,
        "half of the bytes expected",
        "mbar_expect(&full[slot], SLOT);",
        "mbar_expect(&full[slot], SLOT / 2);",
        0,
    ),
    m(PIPE, HOPPERS, "a tile not waited for", "mbar_wait_cluster(&full[slot], parity);", "", 0),
    m(PIPE, HOPPERS, "no fence before products", "wgmma_fence();", "", 0),
    m(PIPE, HOPPERS, "a slot given back while it is multiplied", "wgmma_wait<1>();", "", 0),
    m(PIPE, HOPPERS, "sums used before they are there", "wgmma_wait<0>();", "", 0),
    m(PIPE, HOPPERS, "only the own block is told", "mbar_arrive_at(empty, r)", "mbar_arrive(empty)", 0),
    m(PIPE, HOPPERS, "a stage overwritten before it is stored", "if (t == 0) tma_wait_read<0>();", "", 0),
    m(PIPE, HOPPERS, "no fence before a stage is stored", "fence_async();", "", 0),
    m(
        PIPE,
        HOPPERS,
        "no barrier before a stage is stored",
        "fence_async();\n      named_sync(1 + group, 128);",
        "fence_async();",
        0,
    ),
    m(
        PIPE,
        HOPPERS,
        "K of B does not go on",
        "wgmma_desc<128>(b + s * 32, 16, 1024)",
        "wgmma_desc<128>(b, 16, 1024)",
        0,
    ),
    m(
        AMPERE,
        AMPERES,
        "the stage in use not waited for",
        "cp_async_wait<STAGES - 2>();",
        "cp_async_wait<STAGES - 1>();",
        0,
    ),
    m(AMPERE, AMPERES, "others' copies not waited for", SYNC, "", 0),
    m("norm.cu", ("norm", ""), "no barrier before parts are read", SYNC, "", 1),
    // Tiles and bounds.
    m("gemm.cu", GEMM, "reads past the last row", "i >= ni || l >= nl", "i > ni || l >= nl", 0),
    m("include/tiles.cuh", GEMM, "writes past the last column", "i >= 0 && j < n) to", "i >= 0 && j <= n) to", 0),
    m(
        "include/tiles.cuh",
        GEMM,
        "rows and columns of tiles confused",
        "i = (first + in % high) * wm;",
        "i = (first + in / high) * wm;",
        0,
    ),
    m(
        "experts.cu",
        GROUPED,
        "what fills tiles is taken for a choice",
        "order[from + r] : -1",
        "order[from + r] : 0",
        0,
    ),
    m(
        "experts.cu",
        GROUPED,
        "half of the experts before it",
        "for (int d = 16; d; d >>= 1)",
        "for (int d = 8; d; d >>= 1)",
        0,
    ),
    m("gemm_grouped_sm80.cu", GROUPED, "rows go to another tile's places", "rows += tile * 128;", "", 0),
    m("gemm_grouped_sm80.cu", GROUPED, "sums begin where choices do", "tiles[expert] * 128LL", "starts[expert]", 0),
    m(
        "include/chain.cuh",
        ("chain", "many_arrays"),
        "an array's first block is taken for the one before's",
        "<= blockIdx.x",
        "< blockIdx.x",
        0,
    ),
    m(
        "include/epilogue.cuh",
        ("gemm", "sums_and_results"),
        "sums rounded as results are",
        "rounded(v, types >> 16 & 15)",
        "rounded(v, types >> 20 & 15)",
        0,
    ),
    m(PIPE, EIGHT, "factors of other columns", "tile.j0 + (threadIdx.x & 3) * 2", "tile.j0 + (threadIdx.x & 3)", 0),
    m(PIPE, EIGHT, "the first block's factors for all", "columns + block * s.sb_block + j * 8", "columns + j * 8", 0),
    m(PIPE, GROUPED, "the first expert's matrix for all", "of_b += tile.batch", "of_b", 0),
    m(PIPE, GROUPED, "an expert that nobody chose", "if (GROUPED == BY_DEPTH && steps == 0)", "if (false)", 0),
    m("gemm.cu", MANY, "one tile of an expert is left out", "starts[e] + 63) / 64", "starts[e]) / 64", 0),
    m(
        "attention.cu",
        ATTENTION,
        "half of a row's maximum",
        "for (int d = 1; d < 8; d *= 2) v = fmaxf",
        "for (int d = 1; d < 4; d *= 2) v = fmaxf",
        0,
    ),
    m(
        "attention.cu",
        ATTENTION,
        "the second half's columns swapped",
        "(n & 3) + (n >> 2) * 32",
        "(n & 3) * 8 + (n >> 2)",
        0,
    ),
    m("include/tiled.cuh", FORWARD, "the last slab is left out", "k + DEPTH < k1", "k + 2 * DEPTH < k1", 0),
    m(
        "include/tiled.cuh",
        FORWARD,
        "a slab written where another is read",
        "pa.put(left[now ^ 1])",
        "pa.put(left[now])",
        0,
    ),
    always(m(
        "copy.cu",
        COPY,
        "writes past the last row of a tile",
        "r0 + k < rows && c0 + threadIdx.x < columns",
        "c0 + threadIdx.x < columns",
        0,
    )),
    m("pool.cu", POOL, "reads before the plane", "(unsigned)w >= (unsigned)iw", "w >= iw", 0),
    m(
        "window.cu",
        ("pool", "windows_are"),
        "one window too many",
        "if (at >= total) return;",
        "if (at > total) return;",
        0,
    ),
    m("recurrent.cu", LSTM, "weights past the last unit", "unit < hidden && k < hidden ?", "k < hidden ?", 0),
    m("ssm.cu", SSM, "states past the last", "in && k * LANES + lane < size", "in", 0),
    m("stft.cu", STFT, "frames past the last", "if (t >= frames) continue;", "", 0),
    m("gemv.cu", GEMM, "half of a warp's sum", "for (int d = 16; d; d >>= 1)", "for (int d = 8; d; d >>= 1)", 0),
    // Asynchronous copies, mbarriers, clusters and tensor cores.
    m(RIGHT, COPIES, "the older group not waited for", "cp_async_wait<1>();", "cp_async_wait<2>();", 0),
    m(RIGHT, COPIES, "the younger group not waited for", "cp_async_wait<0>();", "", 0),
    m(
        RIGHT,
        COPIES,
        "others' copies not waited for",
        "cp_async_wait<1>();\n  __syncthreads();",
        "cp_async_wait<1>();",
        0,
    ),
    m(RIGHT, COPIES, "no fence before a bulk store", "fence_async();", "", 0),
    m(RIGHT, COPIES, "a stored tile overwritten", "tma_wait_read<0>();", "", 0),
    m(RIGHT, TILES, "half of the bytes expected", "mbar_expect(&bar, bytes);", "mbar_expect(&bar, bytes / 2);", 0),
    m(RIGHT, TILES, "too many bytes expected", "mbar_expect(&bar, bytes);", "mbar_expect(&bar, bytes + 16);", 0),
    m(RIGHT, TILES, "the wrong parity", "mbar_wait(&bar, 0);", "mbar_wait(&bar, 1);", 0),
    m(RIGHT, TILES, "a tile not waited for", "mbar_wait(&bar, 0);", "", 0),
    m(RIGHT, TILES, "a store not waited for", "tma_wait<0>();", "", 0),
    m(RIGHT, CLUSTERS, "the phase does not turn", "mbar_wait(&full, round & 1);", "mbar_wait(&full, 0);", 0),
    m(
        RIGHT,
        CLUSTERS,
        "the neighbour's slot not waited for",
        "if (round) mbar_wait_cluster(&empty, (round - 1) & 1);",
        "",
        0,
    ),
    m(
        RIGHT,
        CLUSTERS,
        "only the own slot is given back",
        "mbar_arrive_at(&empty, rank ^ 1);",
        "mbar_arrive(&empty);",
        0,
    ),
    m(RIGHT, CLUSTERS, "no meeting at the beginning", "cluster_sync();\n  float sum", "float sum", 0),
    m(RIGHT, CLUSTERS, "half of the multicast", "&full, 3, 0", "&full, 1, 0", 0),
    m(
        RIGHT,
        CLUSTERS,
        "a grid that meets once",
        "values[me] += next;\n    grid_sync(counter);",
        "values[me] += next;",
        0,
    ),
    m(RIGHT, WARPS, "fragments of B swapped", "mma<bf16>(d, x, y[0], y[1])", "mma<bf16>(d, x, y[1], y[0])", 0),
    m(RIGHT, WARPS, "rows of ldmatrix swapped", "&sa[lane % 16][lane / 16 * 8]", "&sa[lane / 2][lane % 2 * 8]", 0),
    m(RIGHT, WARPS, "B not transposed", "ldmatrix_x2_trans(fb", "ldmatrix_x2(fb", 0),
    m(RIGHT, WARPS, "no wait between lanes", "= bf16(b[i]);\n  __syncwarp();", "= bf16(b[i]);", 0),
    m(RIGHT, CLUSTERS, "a slot given back before all lanes read it", "__syncwarp();", "", 0),
    m(
        RIGHT,
        GROUPS,
        "no fence between stores and wgmma",
        "fence_async();\n  __syncthreads();\n  float d[N / 2]",
        "__syncthreads();\n  float d[N / 2]",
        0,
    ),
    m(
        RIGHT,
        GROUPS,
        "no barrier between stores and wgmma",
        "fence_async();\n  __syncthreads();\n  float d[N / 2]",
        "fence_async();\n  float d[N / 2]",
        0,
    ),
    m(RIGHT, GROUPS, "products not waited for", "wgmma_wait<0>();", "", 0),
    m(RIGHT, GROUPS, "all but the last products waited for", "wgmma_wait<0>();", "wgmma_wait<1>();", 0),
    m(RIGHT, GROUPS, "no fence before wgmma", "wgmma_fence();", "", 0),
    m(RIGHT, GROUPS, "K does not go on", "p + step * 32", "p", 0),
    m(RIGHT, GROUPS, "the wrong stride", "16, 8 * S)", "16, 4 * S)", 0),
    m(RIGHT, GROUPS, "sums of an earlier product kept", "y, s > 0);", "y, 1);", 1),
];
