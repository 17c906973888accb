//! Rows sorted by the expert that was chosen for them.
//!
//! Products with experts' matrices are ordinary products ([`super::gemm`]) of the rows that chose
//! one expert: [`route`] finds them, [`collect`] puts them next to each other, [`spread`] puts
//! results back.

use crate::pool::Pool;

/// Room that [`route`] needs for so many choices among so many experts.
pub fn route_len(choices: usize, experts: usize) -> usize {
    choices + experts + 1
}

/// The choices, expert by expert and in their order within one: the choices of expert `e` are
/// `order[starts[e]..starts[e + 1]]`. `room` holds [`route_len`] values; gives `(starts, order)`.
///
/// # Errors
/// An expert that does not exist.
pub fn route<'a>(chosen: &[i32], experts: usize, room: &'a mut [i32]) -> Result<(&'a [i32], &'a [i32]), String> {
    if let Some(e) = chosen.iter().find(|e| **e < 0 || **e as usize >= experts) {
        return Err(format!("expert {e} is chosen, there are {experts} (0 to {})", experts as i64 - 1));
    }
    let (starts, order) = room[..route_len(chosen.len(), experts)].split_at_mut(experts + 1);
    starts.fill(0);
    chosen.iter().for_each(|e| starts[*e as usize + 1] += 1);
    for e in 0..experts {
        starts[e + 1] += starts[e];
    }
    // Each start moves on as places are given out, and ends where the next expert's begins.
    for (c, e) in chosen.iter().enumerate() {
        let place = &mut starts[*e as usize];
        order[*place as usize] = c as i32;
        *place += 1;
    }
    starts.copy_within(0..experts, 1);
    starts[0] = 0;
    Ok((starts, order))
}

/// `out[j] = x[order[j] / shared]` for rows of `width` values: `shared` choices read one row.
pub fn collect(pool: &Pool, x: &[f32], order: &[i32], shared: usize, width: usize, out: &mut [f32]) {
    pool.rows(out, width, (8192 / width.max(1)).max(1), |first, block| {
        for (row, c) in block.chunks_exact_mut(width).zip(&order[first..]) {
            row.copy_from_slice(&x[*c as usize / shared * width..][..width]);
        }
    });
}

/// `out[order[j]] = x[j]` for rows of `width` values. The places are distinct.
pub fn spread(x: &[f32], order: &[i32], width: usize, out: &mut [f32]) {
    for (row, c) in x.chunks_exact(width.max(1)).zip(order) {
        out[*c as usize * width..][..width].copy_from_slice(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_sorted_by_expert_and_keep_their_order() {
        let chosen = [3, 0, 3, 1, 0, 3];
        let mut room = vec![9; route_len(chosen.len(), 5)];
        let (starts, order) = route(&chosen, 5, &mut room).expect("all exist");
        assert_eq!(starts, [0, 2, 3, 3, 6, 6]);
        assert_eq!(order, [1, 4, 3, 0, 2, 5]);
        let (starts, order) = route(&[], 2, &mut room).expect("there are none");
        assert_eq!((starts, order), (&[0, 0, 0][..], &[][..]));
    }

    #[test]
    fn experts_that_do_not_exist() {
        for wrong in [-1, 5, i32::MIN] {
            let mut room = [0; 16];
            let found = route(&[0, wrong], 5, &mut room);
            assert_eq!(found, Err(format!("expert {wrong} is chosen, there are 5 (0 to 4)")));
        }
    }

    #[test]
    fn rows_go_and_come_back() {
        let pool = Pool::new(2);
        let x: Vec<f32> = (0..6).map(|i| i as f32).collect();
        let order = [5, 0, 3];
        let mut out = vec![0.0; 6];
        collect(&pool, &x, &order, 2, 2, &mut out);
        assert_eq!(out, [4.0, 5.0, 0.0, 1.0, 2.0, 3.0]);
        let mut back = vec![0.0; 12];
        spread(&out, &order, 2, &mut back);
        assert_eq!(back, [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 2.0, 3.0, 0.0, 0.0, 4.0, 5.0]);
    }
}
