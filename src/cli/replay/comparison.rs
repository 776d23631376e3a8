//! Compares a picture that is drawn again with the original.

use anyhow::Context;
use sha2::{Digest, Sha256};

use super::original::{Original, OriginalPicture};
use crate::cli::run_job::{DrawnImage, LIMITS, encode_picture};
use crate::image::{EmbeddedText, Format, decode_rgb};
use crate::job::Job;
use crate::job::receipt::ImageReceipt;
use crate::npy;
use crate::units::counted;

/// What a comparison found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    /// The files are the same.
    Same(Vec<u8>),
    /// The pictures are the same, and their files are not.
    SamePixels,
    /// This many of the pixels differ, by at most this much of 255.
    Pixels { differing: usize, all: usize, largest: u8 },
    /// The pictures have other sizes, each a width and a height.
    Sizes { original: [u32; 2], here: [u32; 2] },
    /// The files differ, and nothing else is known of the original.
    OtherDigest,
    /// There is no picture to compare with.
    None,
}

impl Comparison {
    /// Compares the images that a job has drawn, whose receipt is `here`, with the original.
    pub(super) fn new(
        original: &Original,
        images: &[DrawnImage],
        job: &Job,
        here: &ImageReceipt,
    ) -> anyhow::Result<Self> {
        match &original.picture {
            OriginalPicture::File { bytes, format, text } => {
                // With the original's texts, so that only the picture is compared.
                let new = encode(images, job, *format, Some(text))?;
                if new == *bytes {
                    return Ok(Self::Same(new));
                }
                Self::of_pixels(bytes, &new).with_context(|| original.name.clone())
            }
            OriginalPicture::Digest { sha256, format } => {
                // Whether the original contains its receipt is not known.
                for text in [Some(here.to_text(&job.sizes)), None] {
                    let new = encode(images, job, *format, text.as_ref())?;
                    if format!("{:x}", Sha256::digest(&new)) == *sha256 {
                        return Ok(Self::Same(new));
                    }
                }
                Ok(Self::OtherDigest)
            }
            OriginalPicture::Unknown => Ok(Self::None),
        }
    }

    fn of_pixels(original: &[u8], new: &[u8]) -> anyhow::Result<Self> {
        let [original, new] = [original, new].map(|bytes| decode_rgb(bytes, None, LIMITS.pixels));
        let (original, new) = (original?, new?);
        if original.dimensions() != new.dimensions() {
            let [original, here] = [&original, &new].map(|image| [image.width(), image.height()]);
            return Ok(Self::Sizes { original, here });
        }
        let differences = original.pixels().zip(new.pixels()).map(|(one, other)| {
            let channels = one.0.iter().zip(other.0);
            channels.map(|(one, other)| one.abs_diff(other)).max().unwrap_or_default()
        });
        let differing: Vec<_> = differences.filter(|difference| *difference > 0).collect();
        Ok(match differing.iter().max() {
            None => Self::SamePixels,
            Some(&largest) => {
                Self::Pixels { differing: differing.len(), all: original.pixels().len(), largest }
            }
        })
    }
}

/// Encodes the images of a job as one file.
pub(super) fn encode(
    images: &[DrawnImage],
    job: &Job,
    format: Format,
    text: Option<&EmbeddedText>,
) -> anyhow::Result<Vec<u8>> {
    if format != Format::Npy {
        return Ok(encode_picture(images, job, format, text)?);
    }
    // As the daemon writes one image, and `sample` several.
    let several: &[usize] = if images.len() > 1 { &[images.len()] } else { &[] };
    let values: Vec<f32> = images.iter().flat_map(|image| image.picture.iter().copied()).collect();
    Ok(npy::write(&[several, &job.sizes.image].concat(), &values)?)
}

impl std::fmt::Display for Comparison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Same(_) => f.write_str("the same bytes"),
            Self::SamePixels => f.write_str(
                "the same pixels in another file: another program, or another version, has written the original",
            ),
            Self::Pixels { differing, all, largest } => {
                let all = counted(*all as u64, "pixel");
                write!(f, "{differing} of {all} differ, by at most {largest} of 255")
            }
            Self::Sizes { original, here } => write!(
                f,
                "it has {}×{} pixels, but {}×{} are drawn here",
                original[0], original[1], here[0], here[1]
            ),
            Self::OtherDigest => f.write_str("the bytes differ"),
            Self::None => f.write_str("drawn; there is no picture to compare with"),
        }
    }
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma};

    use super::*;
    use crate::image::png;

    #[test]
    fn pictures_differ_by_pixels_or_by_size() {
        let picture = |value: u8, width| {
            let image = GrayImage::from_fn(width, 2, |x, _| Luma([if x == 0 { value } else { 9 }]));
            png(&image.into()).unwrap()
        };
        let of = |one: &[u8], other: &[u8]| Comparison::of_pixels(one, other).unwrap();
        let (black, dark) = (picture(0, 3), picture(5, 3));
        assert_eq!(of(&black, &black), Comparison::SamePixels);
        let found = of(&black, &dark);
        assert_eq!(found, Comparison::Pixels { differing: 2, all: 6, largest: 5 });
        assert_eq!(found.to_string(), "2 of 6 pixels differ, by at most 5 of 255");
        assert_eq!(of(&black, &picture(0, 4)).to_string(), "it has 3×2 pixels, but 4×2 are drawn here");
        assert!(Comparison::of_pixels(&black[..40], &black).is_err());
    }
}
