//! The tensors of one layer in a file, and the two matrices that they make.

use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, TensorView};

use super::error::LoraError;
use super::key::Part;
use super::low_rank::LowRank;

/// A tensor as a matrix of float32: its first axis, and all others together.
#[derive(Debug, Clone)]
struct Matrix {
    rows: usize,
    columns: usize,
    values: Vec<f32>,
}

/// The tensors of one layer.
#[derive(Debug, Default)]
pub(super) struct Factors<'a> {
    tensors: BTreeMap<Part, (String, TensorView<'a>)>,
}

impl<'a> Factors<'a> {
    /// Adds a tensor of this name. Returns `false` if the layer has this part already.
    pub(super) fn insert(&mut self, part: Part, name: &str, tensor: TensorView<'a>) -> bool {
        self.tensors.insert(part, (name.to_owned(), tensor)).is_none()
    }

    /// The name of one of the tensors.
    pub(super) fn name(&self) -> &str {
        self.tensors.values().next().map_or("", |(name, _)| name)
    }

    /// The product of the layer. `default_scale` is α/r of a rank without an α of its own. `check_rank` is called with the
    /// rank of the product before it is computed.
    ///
    /// # Errors
    ///
    /// A part is missing, shapes do not fit together, values are no numbers, or `check_rank` refuses the rank.
    pub(super) fn low_rank(
        &self,
        default_scale: impl Fn(usize) -> f64,
        check_rank: impl Fn(usize) -> Result<(), LoraError>,
    ) -> Result<LowRank, LoraError> {
        let scale = |rank: usize| -> Result<f32, LoraError> {
            Ok(match self.alpha()? {
                Some(alpha) => (alpha / rank as f64) as f32,
                None => default_scale(rank) as f32,
            })
        };
        if self.has(|part| matches!(part, Part::Hada(_))) {
            return self.hadamard(scale, check_rank);
        }
        if self.has(|part| matches!(part, Part::Kron(_))) {
            return self.kronecker(scale, check_rank);
        }
        let (down, up) = (self.matrix(Part::Down)?, self.matrix(Part::Up)?);
        self.check(down.rows == up.columns, || format!("rank {} and {}", down.rows, up.columns))?;
        check_rank(down.rows)?;
        let sizes = [down.columns, up.rows, down.rows];
        Ok(LowRank::from_down_and_up(&down.values, &up.values, sizes, scale(down.rows)?))
    }

    /// LoHa (Hyeon-Woo et al. 2022, FedPara): ΔW = α/r · (w1a · w1b) ∘ (w2a · w2b), which is a product of rank r².
    fn hadamard(
        &self,
        scale: impl Fn(usize) -> Result<f32, LoraError>,
        check_rank: impl Fn(usize) -> Result<(), LoraError>,
    ) -> Result<LowRank, LoraError> {
        let [up1, down1, up2, down2] = [0, 1, 2, 3].map(|index| self.matrix(Part::Hada(index)));
        let (up1, down1, up2, down2) = (up1?, down1?, up2?, down2?);
        let is_fitting = up1.columns == down1.rows
            && up2.columns == down2.rows
            && up1.rows == up2.rows
            && down1.columns == down2.columns;
        self.check(is_fitting, || "w1_a · w1_b and w2_a · w2_b have different shapes".to_owned())?;
        let rank = up1.columns * up2.columns;
        check_rank(rank)?;
        let mut down = Vec::with_capacity(rank * down1.columns);
        for one in down1.values.chunks_exact(down1.columns) {
            for two in down2.values.chunks_exact(down2.columns) {
                down.extend(one.iter().zip(two).map(|(x, y)| x * y));
            }
        }
        let mut up = Vec::with_capacity(up1.rows * rank);
        for (one, two) in up1.values.chunks_exact(up1.columns).zip(up2.values.chunks_exact(up2.columns)) {
            up.extend(one.iter().flat_map(|x| two.iter().map(move |y| x * y)));
        }
        Ok(LowRank::from_down_and_up(&down, &up, [down1.columns, up1.rows, rank], scale(down1.rows)?))
    }

    /// LoKr (Edalati et al. 2022, KronA): ΔW = α/r · w1 ⊗ w2. With w2 = w2a · w2b this is a product of as many ranks
    /// as w1 has columns and w2a together.
    fn kronecker(
        &self,
        scale: impl Fn(usize) -> Result<f32, LoraError>,
        check_rank: impl Fn(usize) -> Result<(), LoraError>,
    ) -> Result<LowRank, LoraError> {
        let (w1, rank1) = self.kron_factor(0)?;
        // A whole w2 is the product of itself and the identity, on the shorter side.
        let (up2, down2, rank2) = match self.tensors.contains_key(&Part::Kron(3)) {
            true => {
                let w2 = self.matrix(Part::Kron(3))?;
                let (rows, columns) = (w2.rows, w2.columns);
                let pair = if rows <= columns { (identity(rows), w2) } else { (w2, identity(columns)) };
                (pair.0, pair.1, None)
            }
            false => {
                let (up, down) = (self.matrix(Part::Kron(4))?, self.matrix(Part::Kron(5))?);
                let rank = down.rows;
                (up, down, Some(rank))
            }
        };
        self.check(up2.columns == down2.rows, || format!("rank {} and {}", up2.columns, down2.rows))?;
        let inner = down2.rows;
        let rank = w1.columns * inner;
        check_rank(rank)?;
        let inputs = w1.columns * down2.columns;
        let mut down = vec![0.0; rank * inputs];
        for column in 0..w1.columns {
            for r in 0..inner {
                let start = (column * inner + r) * inputs + column * down2.columns;
                down[start..start + down2.columns]
                    .copy_from_slice(&down2.values[r * down2.columns..][..down2.columns]);
            }
        }
        let mut up = Vec::with_capacity(w1.rows * up2.rows * rank);
        for one in w1.values.chunks_exact(w1.columns) {
            for two in up2.values.chunks_exact(inner) {
                up.extend(one.iter().flat_map(|x| two.iter().map(move |y| x * y)));
            }
        }
        // Without a rank of its own, α has no effect.
        let scale = rank2.or(rank1).map_or(Ok(1.0), scale)?;
        Ok(LowRank::from_down_and_up(&down, &up, [inputs, w1.rows * up2.rows, rank], scale))
    }

    /// w1, whole or as a product, with the rank of the product.
    fn kron_factor(&self, first: u8) -> Result<(Matrix, Option<usize>), LoraError> {
        if self.tensors.contains_key(&Part::Kron(first)) {
            return Ok((self.matrix(Part::Kron(first))?, None));
        }
        let (a, b) = (self.matrix(Part::Kron(first + 1))?, self.matrix(Part::Kron(first + 2))?);
        self.check(a.columns == b.rows, || format!("rank {} and {}", a.columns, b.rows))?;
        let mut values = vec![0.0; a.rows * b.columns];
        for (row, result) in a.values.chunks_exact(a.columns).zip(values.chunks_exact_mut(b.columns)) {
            for (x, other) in row.iter().zip(b.values.chunks_exact(b.columns)) {
                result.iter_mut().zip(other).for_each(|(sum, y)| *sum += x * y);
            }
        }
        Ok((Matrix { rows: a.rows, columns: b.columns, values }, Some(b.rows)))
    }

    fn has(&self, is_wanted: impl Fn(Part) -> bool) -> bool {
        self.tensors.keys().any(|part| is_wanted(*part))
    }

    fn alpha(&self) -> Result<Option<f64>, LoraError> {
        let Some((name, tensor)) = self.tensors.get(&Part::Alpha) else { return Ok(None) };
        let values = numbers(name, tensor)?;
        self.check(values.len() == 1, || format!("{name} has {} values instead of one", values.len()))?;
        Ok(Some(f64::from(values[0])))
    }

    fn matrix(&self, part: Part) -> Result<Matrix, LoraError> {
        let Some((name, tensor)) = self.tensors.get(&part) else {
            return Err(LoraError::Incomplete { key: self.name().to_owned(), missing: part.to_string() });
        };
        let shape = tensor.shape();
        let is_filled = shape.len() >= 2 && !shape.contains(&0);
        self.check(is_filled, || format!("{name} has the shape {shape:?} instead of a matrix"))?;
        // Without an axis of length 0, the product is at most the file's length.
        let columns = shape[1..].iter().product();
        Ok(Matrix { rows: shape[0], columns, values: numbers(name, tensor)? })
    }

    fn check(&self, is_true: bool, reason: impl FnOnce() -> String) -> Result<(), LoraError> {
        if is_true {
            Ok(())
        } else {
            Err(LoraError::Shapes { key: self.name().to_owned(), reason: reason() })
        }
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const KRON: [&str; 6] = ["lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"];
        f.write_str(match self {
            Self::Down => "lora_down",
            Self::Up => "lora_up",
            Self::Alpha => "alpha",
            Self::Hada(index) => ["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"][usize::from(*index)],
            Self::Kron(index) => KRON[usize::from(*index)],
        })
    }
}

fn identity(side: usize) -> Matrix {
    let mut values = vec![0.0; side * side];
    values.iter_mut().step_by(side + 1).for_each(|x| *x = 1.0);
    Matrix { rows: side, columns: side, values }
}

/// The values of a tensor as float32.
fn numbers(name: &str, tensor: &TensorView<'_>) -> Result<Vec<f32>, LoraError> {
    let bytes = tensor.data();
    let of_two =
        |convert: fn([u8; 2]) -> f32| bytes.as_chunks().0.iter().map(|part| convert(*part)).collect();
    let values: Vec<f32> = match tensor.dtype() {
        Dtype::F16 => of_two(|part| half::f16::from_le_bytes(part).to_f32()),
        Dtype::BF16 => of_two(|part| half::bf16::from_le_bytes(part).to_f32()),
        Dtype::F32 => bytes.as_chunks().0.iter().map(|part| f32::from_le_bytes(*part)).collect(),
        Dtype::F64 => bytes.as_chunks().0.iter().map(|part| f64::from_le_bytes(*part) as f32).collect(),
        other => return Err(LoraError::Type { key: name.to_owned(), found: format!("{other:?}") }),
    };
    match values.iter().all(|x| x.is_finite()) {
        true => Ok(values),
        false => Err(LoraError::NonFinite { key: name.to_owned() }),
    }
}
