//! Previews of latents without the autoencoder: red, green and blue as weighted sums of a latent's channels.

use super::PipelineKind;
use crate::tensor::Tensor;

/// A linear map from the channels of a latent to red, green and blue.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Projection {
    /// For each channel of a latent, its weight in red, green and blue.
    pub factors: Vec<[f32; 3]>,
    /// The constant added to red, green and blue.
    #[serde(default)]
    pub bias: [f32; 3],
}

/// A published projection of four channels, as ComfyUI's latent formats list it. The published autoencoders have it;
/// another autoencoder needs its own (`denoised fit-preview`).
#[derive(Debug)]
pub(super) struct Factors {
    factors: [[f32; 3]; 4],
    bias: [f32; 3],
}

pub(super) const STABLE_DIFFUSION: Factors = Factors {
    factors: [
        [0.3512, 0.2297, 0.3227],
        [0.3250, 0.4974, 0.2350],
        [-0.2829, 0.1762, 0.2721],
        [-0.2120, -0.2616, -0.7177],
    ],
    bias: [0.0; 3],
};

pub(super) const STABLE_DIFFUSION_XL: Factors = Factors {
    factors: [
        [0.3651, 0.4232, 0.4341],
        [-0.2533, -0.0042, 0.1068],
        [0.1076, 0.1111, -0.0362],
        [-0.3165, -0.2492, -0.2188],
    ],
    bias: [0.1084, -0.0175, -0.0011],
};

impl Projection {
    /// The published projection of a kind of pipeline, if there is one.
    pub(super) fn published(kind: PipelineKind) -> Option<Self> {
        let Factors { factors, bias } = kind.facts().preview?;
        Some(Self { factors: factors.to_vec(), bias: *bias })
    }

    /// Returns what is wrong with the projection for latents of this many channels.
    pub(super) fn fault(&self, channels: usize) -> Option<String> {
        let rows = self.factors.len();
        (rows != channels).then(|| {
            format!(
                "preview.factors has {rows} rows, but the latents have {channels} channels; write one row [red, green, \
                 blue] for each channel, or remove [preview] and run `denoised fit-preview`"
            )
        })
    }

    /// The image [3, H, W] in −1..1 of a latent [C, H, W] that has one channel per factor.
    pub fn apply(&self, latent: &[f32], shape: &[usize]) -> Tensor {
        let plane = shape[1] * shape[2];
        let pixel = |color: usize, at: usize| {
            let channels = self.factors.iter().zip(latent.chunks_exact(plane));
            self.bias[color] + channels.map(|(factors, values)| factors[color] * values[at]).sum::<f32>()
        };
        let data = (0..3).flat_map(|color| (0..plane).map(move |at| (color, at)));
        Tensor::new([3, shape[1], shape[2]], data.map(|(color, at)| pixel(color, at)).collect())
    }

    /// The least-squares projection for pairs of a latent [C, H, W] and an image [3, H, W].
    /// Returns `None` if the latents do not determine it.
    pub fn fit(pairs: &[(Tensor, Tensor)]) -> Option<Self> {
        let channels = pairs.first()?.0.shape[0];
        let n = channels + 1;
        // The normal equations. An additional channel of ones represents the bias.
        let mut sums = vec![vec![0.0_f64; n + 3]; n];
        for (latent, image) in pairs {
            let plane = latent.shape[1] * latent.shape[2];
            for at in 0..plane {
                let value =
                    |i: usize| if i == channels { 1.0 } else { f64::from(latent.data[i * plane + at]) };
                for (i, row) in sums.iter_mut().enumerate() {
                    for (j, sum) in row.iter_mut().enumerate() {
                        let other =
                            if j < n { value(j) } else { f64::from(image.data[(j - n) * plane + at]) };
                        *sum += value(i) * other;
                    }
                }
            }
        }
        solve(&mut sums)?;
        let row = |i: usize| std::array::from_fn(|color| sums[i][n + color] as f32);
        Some(Self { factors: (0..channels).map(row).collect(), bias: row(channels) })
    }
}

/// Gauss-Jordan elimination with partial pivoting of an augmented matrix. Returns `None` if it is singular.
fn solve(rows: &mut [Vec<f64>]) -> Option<()> {
    for i in 0..rows.len() {
        let pivot = (i..rows.len()).max_by(|&a, &b| rows[a][i].abs().total_cmp(&rows[b][i].abs()))?;
        rows.swap(i, pivot);
        let head = rows[i][i];
        if head.abs() < 1e-9 {
            return None;
        }
        rows[i].iter_mut().for_each(|x| *x /= head);
        let own = rows[i].clone();
        for (k, row) in rows.iter_mut().enumerate() {
            if k != i {
                let factor = row[i];
                row.iter_mut().zip(&own).for_each(|(x, own)| *x -= factor * own);
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `inspect` reported it as used, and receipts reported that the model has none.
    #[test]
    fn a_projection_of_the_wrong_size_was_ignored() {
        let projection = Projection { factors: vec![[0.0; 3]; 3], bias: [0.0; 3] };
        assert_eq!(projection.fault(3), None);
        assert_eq!(
            projection.fault(4).as_deref(),
            Some(
                "preview.factors has 3 rows, but the latents have 4 channels; write one row [red, green, blue] for each \
                 channel, or remove [preview] and run `denoised fit-preview`"
            )
        );
    }

    #[test]
    fn fit_recovers_the_projection_that_made_the_images() {
        let known = Projection { factors: vec![[0.3, -0.2, 0.1], [0.0, 0.5, -0.7]], bias: [0.1, 0.0, -0.4] };
        let latent = Tensor::new([2, 2, 3], (0..12).map(|i| ((i * 7 % 11) as f32).sin()).collect());
        let image = known.apply(&latent.data, &latent.shape);
        let found = Projection::fit(&[(latent, image)]).unwrap();
        let numbers = |p: &Projection| [p.factors.concat(), p.bias.to_vec()].concat();
        assert!(numbers(&found).iter().zip(numbers(&known)).all(|(a, b)| (a - b).abs() < 1e-4), "{found:?}");
        assert!(Projection::fit(&[(Tensor::zeros([1, 1, 1]), Tensor::zeros([3, 1, 1]))]).is_none());
    }
}
