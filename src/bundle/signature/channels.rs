//! The channels of a denoiser's input that are not the sample's own.

use super::error::unsupported;
use super::{NetworkSize, SignatureError};
use crate::tensor::ValueInfo;

/// Removes the channels of a mask and a masked image from a sample's shape, and returns their number. `network` has
/// the number of channels of the autoencoder's latents.
pub(super) fn split_extra_channels(
    sample: &ValueInfo,
    shape: &mut [usize],
    network: NetworkSize,
) -> Result<usize, SignatureError> {
    if network.packed {
        return match network.channels {
            Some(own) if shape.len() == 2 && shape[1] != own => Err(unserved(sample, shape[1], own)),
            _ => Ok(0),
        };
    }
    let Some(own) = network.own_channels else { return Ok(0) };
    if shape.len() == 2 {
        return Err(unserved(sample, shape[1], 4 * own));
    }
    match shape[0].checked_sub(own) {
        Some(extra) if extra == 0 || extra == own + 1 => {
            shape[0] = own;
            Ok(extra)
        }
        _ => Err(unserved(sample, shape[0], own)),
    }
}

/// The error for a network that takes `found` channels where the latents have `own`.
fn unserved(sample: &ValueInfo, found: usize, own: usize) -> SignatureError {
    let is_packed = sample.shape.len() == 3;
    let kind = match found {
        n if n < own => {
            let reason = format!(
                "it takes {found} channels, but the latents of the autoencoder have {own}; the network and the \
                 autoencoder are not of one model, so export both again"
            );
            return unsupported(sample, reason);
        }
        n if is_packed && n == 6 * own => "Flux Fill (inpainting)",
        n if is_packed && n == 2 * own => "Flux with a control image (Canny, Depth)",
        n if n == own + 1 => "depth-to-image",
        n if n == own + 3 => "the upscaler",
        n if n == 2 * own => "instruction editing (InstructPix2Pix)",
        _ => {
            let reason = format!(
                "it takes {found} channels, but the latents of the autoencoder have {own}, and with a mask and a \
                 masked image {}; no such network is served",
                2 * own + 1
            );
            return unsupported(sample, reason);
        }
    };
    let reason = format!(
        "{found} channels where latents have {own} are those of {kind}, which is not served; use a text-to-image or an \
         inpainting network"
    );
    unsupported(sample, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DataType;

    fn split(channels: usize, packed: bool, own: usize) -> Result<(usize, Vec<usize>), String> {
        let axes = if packed { vec![64, channels] } else { vec![channels, 8, 8] };
        let lengths: Vec<_> = std::iter::once(None).chain(axes.iter().copied().map(Some)).collect();
        let sample = ValueInfo::with_axes("sample", DataType::F32, &lengths);
        let mut shape = axes;
        let network = NetworkSize {
            packed,
            channels: packed.then_some(own),
            own_channels: (!packed).then_some(own),
            ..NetworkSize::default()
        };
        let extra = split_extra_channels(&sample, &mut shape, network).map_err(|error| error.to_string())?;
        Ok((extra, shape))
    }

    #[test]
    fn a_mask_and_a_masked_image_are_extra_channels() {
        assert_eq!(split(4, false, 4), Ok((0, vec![4, 8, 8])));
        assert_eq!(split(9, false, 4), Ok((5, vec![4, 8, 8])));
        assert_eq!(split(33, false, 16), Ok((17, vec![16, 8, 8])));
        assert_eq!(split(64, true, 64), Ok((0, vec![64, 64])));
    }

    #[test]
    fn networks_with_other_channels_are_refused_by_name() {
        for (channels, packed, own, name) in [
            (8, false, 4, "instruction editing"),
            (5, false, 4, "depth-to-image"),
            (7, false, 4, "the upscaler"),
            (32, false, 16, "instruction editing"),
            (128, true, 64, "Flux with a control image"),
            (384, true, 64, "Flux Fill"),
            (13, false, 4, "no such network"),
            (4, false, 16, "not of one model"),
        ] {
            let error = split(channels, packed, own).unwrap_err();
            assert!(error.contains(name) && error.contains(&channels.to_string()), "{error}");
        }
    }
}
