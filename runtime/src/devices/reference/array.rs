//! Arrays of the reference device.

/// A row-major array of `f64`, whatever the storage of the value it stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct RefArray {
    /// The size of each dimension.
    pub sizes: Vec<usize>,
    /// The values, the last dimension fastest.
    pub data: Vec<f64>,
}

impl RefArray {
    /// An array from its values.
    ///
    /// # Panics
    /// When their number is not the product of the sizes.
    pub fn new(sizes: &[usize], data: Vec<f64>) -> RefArray {
        assert_eq!(sizes.iter().product::<usize>(), data.len(), "values do not fill {sizes:?}");
        RefArray { sizes: sizes.to_vec(), data }
    }

    /// One value everywhere.
    pub fn filled(sizes: &[usize], value: f64) -> RefArray {
        RefArray::new(sizes, vec![value; sizes.iter().product()])
    }

    /// `f` of every index.
    pub fn from_fn(sizes: &[usize], mut f: impl FnMut(&[usize]) -> f64) -> RefArray {
        let mut data = Vec::with_capacity(sizes.iter().product());
        for_each_index(sizes, |index| data.push(f(index)));
        RefArray::new(sizes, data)
    }

    /// The distance in `data` between neighbours along each dimension.
    pub fn strides(&self) -> Vec<usize> {
        strides(&self.sizes)
    }

    /// The position of an index in `data`.
    pub fn offset(&self, index: &[usize]) -> usize {
        index.iter().zip(&self.sizes).fold(0, |offset, (i, n)| offset * n + i)
    }

    /// The value at an index.
    pub fn at(&self, index: &[usize]) -> f64 {
        self.data[self.offset(index)]
    }

    /// The value at an index of a larger shape that this one broadcasts onto as its last
    /// dimensions.
    pub fn at_suffix(&self, index: &[usize]) -> f64 {
        self.at(&index[index.len() - self.sizes.len()..])
    }
}

/// Row-major strides.
pub fn strides(sizes: &[usize]) -> Vec<usize> {
    let mut out = vec![1; sizes.len()];
    for i in (0..sizes.len().saturating_sub(1)).rev() {
        out[i] = out[i + 1] * sizes[i + 1];
    }
    out
}

/// Calls `f` with every index, the last dimension fastest.
pub fn for_each_index(sizes: &[usize], mut f: impl FnMut(&[usize])) {
    if sizes.contains(&0) {
        return;
    }
    let mut index = vec![0; sizes.len()];
    loop {
        f(&index);
        let mut d = sizes.len();
        loop {
            if d == 0 {
                return;
            }
            d -= 1;
            index[d] += 1;
            if index[d] < sizes[d] {
                break;
            }
            index[d] = 0;
        }
    }
}
