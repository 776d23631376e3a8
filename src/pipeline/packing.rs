//! The layouts of a latent: planes [C, H, W], as the autoencoder takes them, and packed [H·W/p², p²·C] with one row for each
//! patch of p×p, as the networks of Flux (p = 2) and FLUX.2 (p = 1) take them.

/// Converts a latent of this shape to one row for each patch of this side.
pub(crate) fn pack(latent: &[f32], shape: &[usize], side: usize) -> Vec<f32> {
    packed_indices(shape, side).map(|index| latent[index]).collect()
}

/// Converts rows of patches to a latent of this shape.
pub(crate) fn unpack(packed: Vec<f32>, shape: &[usize], side: usize) -> Vec<f32> {
    let mut latent = vec![0.0; packed.len()];
    packed_indices(shape, side).zip(packed).for_each(|(index, x)| latent[index] = x);
    latent
}

/// Returns for each packed value its index in a latent [C, H, W]. Patches are in row-major order; a patch
/// holds all channels, and of each channel its values in row-major order.
fn packed_indices(latent: &[usize], side: usize) -> impl Iterator<Item = usize> + use<> {
    let [channels, height, width] = [latent[0], latent[1], latent[2]];
    (0..channels * height * width).map(move |i| {
        let area = side * side;
        let (patch, within) = (i / (area * channels), i % (area * channels));
        let (channel, place) = (within / area, within % area);
        let (row, column) = (patch / (width / side), patch % (width / side));
        channel * height * width + (side * row + place / side) * width + side * column + place % side
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_takes_every_value_once() {
        let latent = [2, 4, 6];
        let mut seen: Vec<_> = packed_indices(&latent, 2).collect();
        // The first patch: both rows of the first channel's corner, then the second channel's.
        assert_eq!(seen[..8], [0, 1, 6, 7, 24, 25, 30, 31]);
        seen.sort_unstable();
        assert_eq!(seen, (0..48).collect::<Vec<_>>());
    }

    #[test]
    fn unpacking_inverts_packing() {
        let latent: Vec<f32> = (0..96_u8).map(f32::from).collect();
        let packed = pack(&latent, &[4, 4, 6], 2);
        assert_eq!(packed[..6], [0.0, 1.0, 6.0, 7.0, 24.0, 25.0]);
        assert_eq!(unpack(packed, &[4, 4, 6], 2), latent);
        let rows = pack(&latent, &[4, 4, 6], 1);
        assert_eq!(rows[..5], [0.0, 24.0, 48.0, 72.0, 1.0]);
        assert_eq!(unpack(rows, &[4, 4, 6], 1), latent);
    }
}
