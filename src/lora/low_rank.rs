//! A product of two narrow matrices that is added to a layer.

/// The matrices a of the shape [inputs, rank] and b of the shape [rank, outputs], row by row. A convolution of k×k has
/// channels · k · k inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct LowRank {
    /// Values of the layer's input.
    pub inputs: usize,
    /// Values of the layer's output.
    pub outputs: usize,
    /// Columns of a and rows of b.
    pub rank: usize,
    /// a, row by row.
    pub a: Vec<f32>,
    /// b, row by row, with the scale α/r.
    pub b: Vec<f32>,
}

impl LowRank {
    /// A product that is zero, of rank 1: engines do not take the rank 0.
    pub fn zero(inputs: usize, outputs: usize) -> Self {
        Self { inputs, outputs, rank: 1, a: vec![0.0; inputs], b: vec![0.0; outputs] }
    }

    /// From A of the shape [rank, inputs] and B of the shape [outputs, rank], as files have them.
    pub(super) fn from_down_and_up(
        down: &[f32],
        up: &[f32],
        [inputs, outputs, rank]: [usize; 3],
        scale: f32,
    ) -> Self {
        let mut b = transposed(up, outputs, rank);
        b.iter_mut().for_each(|x| *x *= scale);
        Self { inputs, outputs, rank, a: transposed(down, rank, inputs), b }
    }

    /// The sum Σ weightᵢ · aᵢ · bᵢ as one product, whose rank is the sum of the ranks. All have the same lengths.
    ///
    /// Returns `None` without products.
    pub fn weighted_sum(parts: &[(&Self, f32)]) -> Option<Self> {
        let &(first, _) = parts.first()?;
        let (inputs, outputs) = (first.inputs, first.outputs);
        let rank = parts.iter().map(|(part, _)| part.rank).sum();
        let mut a = Vec::with_capacity(inputs * rank);
        for row in 0..inputs {
            for (part, _) in parts {
                a.extend_from_slice(&part.a[row * part.rank..][..part.rank]);
            }
        }
        let b = parts.iter().flat_map(|(part, weight)| part.b.iter().map(move |x| x * weight)).collect();
        Some(Self { inputs, outputs, rank, a, b })
    }

    /// Appends a with columns of zeros up to a rank.
    pub fn append_a(&self, rank: usize, values: &mut Vec<f32>) {
        for row in self.a.chunks_exact(self.rank) {
            values.extend_from_slice(row);
            values.extend(std::iter::repeat_n(0.0, rank - self.rank));
        }
    }

    /// Appends b with rows of zeros up to a rank.
    pub fn append_b(&self, rank: usize, values: &mut Vec<f32>) {
        values.extend_from_slice(&self.b);
        values.extend(std::iter::repeat_n(0.0, (rank - self.rank) * self.outputs));
    }
}

/// The transpose of a matrix of this many rows and columns.
pub(super) fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut result = Vec::with_capacity(values.len());
    for column in 0..columns {
        result.extend((0..rows).map(|row| values[row * columns + column]));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    /// a · b, of the shape [inputs, outputs].
    fn product(part: &LowRank) -> Vec<f32> {
        let cell = |i: usize, o: usize| {
            (0..part.rank).map(|r| part.a[i * part.rank + r] * part.b[r * part.outputs + o]).sum()
        };
        (0..part.inputs).flat_map(|i| (0..part.outputs).map(move |o| cell(i, o))).collect()
    }

    #[test]
    fn down_and_up_are_transposed_and_scaled() {
        let part = LowRank::from_down_and_up(&[1.0, 2.0, 3.0], &[5.0, 7.0], [3, 2, 1], 0.5);
        assert_eq!((&part.a[..], &part.b[..]), (&[1.0, 2.0, 3.0][..], &[2.5, 3.5][..]));
        let part = LowRank::from_down_and_up(&[1.0, 2.0, 3.0, 4.0], &[5.0, 6.0], [2, 1, 2], 1.0);
        assert_eq!(product(&part), [1.0 * 5.0 + 3.0 * 6.0, 2.0 * 5.0 + 4.0 * 6.0]);
    }

    #[test]
    fn a_weighted_sum_is_the_sum_of_the_products() {
        let one = LowRank::from_down_and_up(&[1.0, 2.0], &[3.0, 4.0], [2, 2, 1], 1.0);
        let two = LowRank::from_down_and_up(&[1.0, 0.0, 5.0, 6.0], &[7.0, 8.0, 9.0, 1.0], [2, 2, 2], 1.0);
        let sum = LowRank::weighted_sum(&[(&one, 0.5), (&two, -2.0)]).unwrap();
        assert_eq!(sum.rank, 3);
        let expected: Vec<f32> =
            product(&one).iter().zip(product(&two)).map(|(x, y)| 0.5 * x - 2.0 * y).collect();
        assert_eq!(product(&sum), expected);
        assert_eq!(LowRank::weighted_sum(&[]), None);
    }

    #[test]
    fn a_larger_rank_is_filled_with_zeros() {
        let part = LowRank::from_down_and_up(&[1.0, 2.0], &[3.0, 4.0], [2, 2, 1], 1.0);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        part.append_a(2, &mut a);
        part.append_b(2, &mut b);
        assert_eq!(product(&LowRank { rank: 2, a, b, ..part.clone() }), product(&part));
    }
}
