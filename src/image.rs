//! Encodes samples as images or arrays, and decodes images and arrays into samples.

mod array_fault;
mod canny;
mod control_picture;
mod decode;
mod decode_array;
mod embedded_text;
mod encode;
mod grid;
mod jpeg_markers;
mod metadata;
mod orientation;
mod picture_file;
mod plot;
mod png_chunks;
mod transparent_mask;
mod user_comment;
mod webp_chunks;
mod xmp;

use serde::{Deserialize, Serialize};

pub use control_picture::{ControlPicture, Preprocess};
pub(crate) use decode::decode_rgb;
pub use decode::{Content, DecodeTarget, decode};
pub use embedded_text::EmbeddedText;
pub use encode::{DEFAULT_QUALITY, Encoding, check_format, check_size, encode, encode_image, png, to_image};
pub use grid::{grid, grid_size, rows};
pub use plot::arrows;
pub(crate) use transparent_mask::mask_of_transparency;

/// The file format of an encoded sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// An 8-bit PNG image.
    #[default]
    Png,
    /// A JPEG image.
    Jpeg,
    /// A lossless WebP image.
    Webp,
    /// A NumPy array of the float32 values.
    Npy,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::Png, Self::Jpeg, Self::Webp, Self::Npy];

    /// The name in requests, which is also the ending of a file's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::Webp => "webp",
            Self::Npy => "npy",
        }
    }

    /// The format with this name or ending, in any case; a JPEG file may end with `.jpg`.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let name = if name == "jpg" { "jpeg" } else { &name };
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The MIME type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
            Self::Npy => "application/x-npy",
        }
    }

    /// The longest side of an image in pixels, if the format limits it.
    pub fn max_side(self) -> Option<u32> {
        match self {
            Self::Jpeg => Some(65_535),
            Self::Webp => Some(16_383),
            Self::Png | Self::Npy => None,
        }
    }
}

/// Why a sample can't be encoded, or a file can't be decoded.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No image can be made from a sample of this shape.
    #[error(
        "a sample of shape {0:?} can't be encoded as an image, which needs 1 or 3 channels; use the format npy, which \
         takes any shape"
    )]
    Shape(Vec<usize>),
    /// The format does not hold an image of this size.
    #[error(
        "an image of {width}×{height} pixels can't be encoded as {}, which takes sides of up to {max} pixels; use the \
         format png",
        format.name()
    )]
    Side {
        /// The format.
        format: Format,
        /// The image's width.
        width: u32,
        /// The image's height.
        height: u32,
        /// The longest side that the format holds.
        max: u32,
    },
    /// The file can't be decoded into the sample that is needed.
    #[error("{0}")]
    Decode(String),
    /// The picture has another size than the one that is needed.
    #[error("the picture has {}×{} pixels{note}, but {}×{} are needed", found[0], found[1], needed[0], needed[1])]
    PictureSize {
        /// Its width and height.
        found: [u32; 2],
        /// The width and height that are needed.
        needed: [usize; 2],
        /// Where the size comes from, if the file is turned.
        note: &'static str,
    },
    /// The encoder failed.
    #[error("encoding failed: {0}")]
    Encode(String),
}
