//! Scratch bench.
use mobilis_kernels::cpu::gemm::Matrix;
use mobilis_kernels::cpu::quant::{Format, Packed, product, scratch_len};
use mobilis_kernels::pool::Pool;
use std::arch::x86_64::*;
use std::time::Instant;

fn best(reps: usize, mut f: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    f();
    for _ in 0..reps {
        let t = Instant::now();
        f();
        best = best.min(t.elapsed().as_secs_f64());
    }
    best
}
#[target_feature(enable = "avx512f,avx512bw")]
fn read(x: &[u8]) -> i64 {
    let mut s = [_mm512_setzero_si512(); 8];
    for c in x.chunks_exact(512) {
        for i in 0..8 {
            s[i] = unsafe { _mm512_add_epi64(s[i], _mm512_loadu_si512(c.as_ptr().add(i * 64).cast())) };
        }
    }
    let mut t = s[0];
    for i in 1..8 {
        t = _mm512_add_epi64(t, s[i]);
    }
    _mm512_reduce_add_epi64(t)
}
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn vnni(n: usize) -> i32 {
    let mut s = [_mm512_setzero_si512(); 12];
    let w = _mm512_set1_epi8(std::hint::black_box(3));
    for _ in 0..n {
        for i in 0..12 {
            s[i] = _mm512_dpbusd_epi32(s[i], w, w);
        }
    }
    let mut t = s[0];
    for i in 1..12 {
        t = _mm512_add_epi32(t, s[i]);
    }
    _mm512_reduce_add_epi32(t)
}
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn fma(n: usize) -> f32 {
    let mut s = [_mm512_setzero_ps(); 12];
    let w = _mm512_set1_ps(std::hint::black_box(3.));
    for _ in 0..n {
        for i in 0..12 {
            s[i] = _mm512_fmadd_ps(s[i], w, w);
        }
    }
    let mut t = s[0];
    for i in 1..12 {
        t = _mm512_add_ps(t, s[i]);
    }
    _mm512_reduce_add_ps(t)
}

fn main() {
    let reps: usize = std::env::args().nth(1).map_or(200, |a| a.parse().unwrap());
    for threads in [1, 2] {
        let pool = Pool::new(threads);
        let p = |f: &(dyn Fn(usize) + Sync)| pool.run(threads, f);
        let peak = best(reps, || {
            p(&|_| {
                std::hint::black_box(unsafe { vnni(20000) });
            })
        });
        let peak = (threads * 20000 * 12 * 128) as f64 / peak / 1e9;
        let fpeak = best(reps, || {
            p(&|_| {
                std::hint::black_box(unsafe { fma(20000) });
            })
        });
        let fpeak = (threads * 20000 * 12 * 32) as f64 / fpeak / 1e9;
        println!("{threads}T: vnni {peak:.0} GOP/s, fma {fpeak:.0} GFLOP/s");
        for (n, k) in [(4096, 4096), (3072, 768), (768, 3072), (2048, 2048), (768, 768), (50304, 768)] {
            let b: Vec<f32> = (0..n * k).map(|i| (i as u32).wrapping_mul(2654435761) as f32 / 4e9 - 0.5).collect();
            for f in [Format::Bf16, Format::F16, Format::Q8_0, Format::Int8, Format::Q4_0] {
                let w = Packed::new(&pool, f, (n, k), &b, Matrix { row: 1, col: k });
                let data = vec![1u8; w.bytes()];
                let each = data.len() / threads / 512 * 512;
                let mut line = String::new();
                for m in [1, 4, 8, 128, 512] {
                    if m > 8 && n > 10000 {
                        continue;
                    }
                    let x: Vec<f32> =
                        (0..m * k).map(|i| (i as u32).wrapping_mul(2654435769) as f32 / 4e9 - 0.5).collect();
                    let mut c = vec![0f32; m * n];
                    let mut s = vec![0; scratch_len(m, &w)];
                    let (sa, sc) = (Matrix { row: k, col: 1 }, Matrix { row: n, col: 1 });
                    let r = (reps * 4_000_000 / (w.bytes() * (m / 8).max(1))).clamp(5, reps);
                    let (mut t, mut tr) = (f64::MAX, f64::MAX);
                    for _ in 0..r {
                        if m == 1 {
                            tr = tr.min(best(1, || {
                                p(&|i| {
                                    std::hint::black_box(unsafe { read(&data[i * each..(i + 1) * each]) });
                                })
                            }));
                        }
                        t = t.min(best(1, || product(&pool, m, &x, sa, &w, &mut c, sc, false, &mut s, None)));
                    }
                    if m == 1 {
                        line += &format!(
                            " {:6.1} of {:6.1} GB/s ({:3.0} %)",
                            w.bytes() as f64 / t / 1e9,
                            data.len() as f64 / tr / 1e9,
                            100. * tr / t
                        );
                    } else {
                        let g = (2 * m * n * k) as f64 / t / 1e9;
                        let whole = !matches!(f, Format::Bf16 | Format::F16);
                        line += &format!(
                            " | {m}: {g:5.0} ({:3.0} %) {:6.1} GB/s",
                            100. * g / if whole { peak } else { fpeak },
                            w.bytes() as f64 / t / 1e9
                        );
                    }
                }
                println!("{threads}T {n}x{k} {f:?}: {line}");
            }
        }
    }
}
