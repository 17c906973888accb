//! What llama.cpp's converter did to values, and its undoing. Rows of quantized tensors are moved
//! whole, so their blocks stay as they are.

/// Which row of the *original* stands at row `i` of a tensor with `heads` heads whose rows go in
/// pairs side by side: `[heads, pairs, 2]` of `[heads, 2, pairs]`.
fn original_row(i: usize, rows: usize, heads: usize) -> usize {
    let size = rows / heads;
    let (head, within) = (i / size, i % size);
    head * size + within % 2 * (size / 2) + within / 2
}

/// From pairs side by side back to two halves.
pub(super) fn to_halves(bytes: &[u8], rows: usize, heads: usize) -> Vec<u8> {
    let row = bytes.len() / rows.max(1);
    let mut out = vec![0; bytes.len()];
    for i in 0..rows {
        let to = original_row(i, rows, heads);
        out[to * row..(to + 1) * row].copy_from_slice(&bytes[i * row..(i + 1) * row]);
    }
    out
}

/// From two halves to pairs side by side.
pub(crate) fn to_pairs(bytes: &[u8], rows: usize, heads: usize) -> Vec<u8> {
    let row = bytes.len() / rows.max(1);
    (0..rows).flat_map(|i| bytes[original_row(i, rows, heads) * row..][..row].iter().copied()).collect()
}

/// The transpose of `[rows, columns]` elements of `width` bytes.
pub(crate) fn transposed(bytes: &[u8], rows: usize, columns: usize, width: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for c in 0..columns {
        for r in 0..rows {
            out.extend_from_slice(&bytes[(r * columns + c) * width..][..width]);
        }
    }
    out
}

/// DeepSeek's keys and values by head, `[heads, nope + value, latent]`, from keys
/// `[heads, latent, nope]` and values `[heads, value, latent]`. All in elements of `width` bytes.
pub(super) fn joined(keys: &[u8], values: &[u8], heads: usize, [latent, nope]: [usize; 2], width: usize) -> Vec<u8> {
    let (k, v) = (keys.len() / heads, values.len() / heads);
    let mut out = Vec::with_capacity(keys.len() + values.len());
    for h in 0..heads {
        out.extend(transposed(&keys[h * k..(h + 1) * k], latent, nope, width));
        out.extend_from_slice(&values[h * v..(h + 1) * v]);
    }
    out
}

/// The parts of `[heads, nope + value, latent]`, as [`joined`] takes them.
pub(crate) fn split(bytes: &[u8], heads: usize, [latent, nope]: [usize; 2], width: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    for head in bytes.chunks_exact(bytes.len() / heads) {
        let (k, v) = head.split_at(latent * nope * width);
        keys.extend(transposed(k, nope, latent, width));
        values.extend_from_slice(v);
    }
    (keys, values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_and_pairs() {
        // Two heads of six rows: a head's rows 0 1 2 | 3 4 5 go to 0 3 1 4 2 5.
        let rows: Vec<u8> = (0..12).collect();
        let pairs = to_pairs(&rows, 12, 2);
        assert_eq!(pairs, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
        assert_eq!(to_halves(&pairs, 12, 2), rows);
        let wide: Vec<u8> = (0..24).collect();
        assert_eq!(to_halves(&to_pairs(&wide, 12, 2), 12, 2), wide);
    }

    #[test]
    fn keys_and_values() {
        // Two heads, latent 2, nope 2, value 1.
        let whole: Vec<u8> = (0..12).collect();
        let (keys, values) = split(&whole, 2, [2, 2], 1);
        assert_eq!((&keys[..], &values[..]), (&[0, 2, 1, 3, 6, 8, 7, 9][..], &[4, 5, 10, 11][..]));
        assert_eq!(joined(&keys, &values, 2, [2, 2], 1), whole);
    }
}
