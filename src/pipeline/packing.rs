//! The layouts of a latent: planes [C, H, W], as the autoencoder takes them, and packed [H·W/4, 4·C], as Flux does.

/// Converts a latent of this shape to one row for each patch of 2×2.
pub(crate) fn pack(latent: &[f32], shape: &[usize]) -> Vec<f32> {
    packed_indices(shape).map(|index| latent[index]).collect()
}

/// Converts rows of patches to a latent of this shape.
pub(crate) fn unpack(packed: Vec<f32>, shape: &[usize]) -> Vec<f32> {
    let mut latent = vec![0.0; packed.len()];
    packed_indices(shape).zip(packed).for_each(|(index, x)| latent[index] = x);
    latent
}

/// Returns for each packed value its index in a latent [C, H, W]. Patches are in row-major order; a patch
/// holds all channels, and of each channel its 2×2 values.
fn packed_indices(latent: &[usize]) -> impl Iterator<Item = usize> + use<> {
    let [channels, height, width] = [latent[0], latent[1], latent[2]];
    (0..channels * height * width).map(move |i| {
        let (patch, within) = (i / (4 * channels), i % (4 * channels));
        let (channel, corner) = (within / 4, within % 4);
        let (row, column) = (patch / (width / 2), patch % (width / 2));
        channel * height * width + (2 * row + corner / 2) * width + 2 * column + corner % 2
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_takes_every_value_once() {
        let latent = [2, 4, 6];
        let mut seen: Vec<_> = packed_indices(&latent).collect();
        // The first patch: both rows of the first channel's corner, then the second channel's.
        assert_eq!(seen[..8], [0, 1, 6, 7, 24, 25, 30, 31]);
        seen.sort_unstable();
        assert_eq!(seen, (0..48).collect::<Vec<_>>());
    }

    #[test]
    fn unpacking_inverts_packing() {
        let latent: Vec<f32> = (0..96_u8).map(f32::from).collect();
        let packed = pack(&latent, &[4, 4, 6]);
        assert_eq!(packed[..6], [0.0, 1.0, 6.0, 7.0, 24.0, 25.0]);
        assert_eq!(unpack(packed, &[4, 4, 6]), latent);
    }
}
