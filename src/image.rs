//! Encodes samples as images or arrays, and decodes images and arrays into samples.

mod decode;
mod encode;
mod grid;
mod jpeg_markers;
mod orientation;
mod plot;
mod png_chunks;

use serde::{Deserialize, Serialize};

pub use decode::{DecodeTarget, decode};
pub use encode::{check_format, encode, png, to_image};
pub use grid::{grid, rows};
pub use plot::arrows;

/// The file format of an encoded sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// An 8-bit PNG image.
    #[default]
    Png,
    /// A NumPy array of the float32 values.
    Npy,
}

impl Format {
    /// The MIME type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Npy => "application/x-npy",
        }
    }
}

/// Why a sample can't be encoded, or a file can't be decoded.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No image can be made from a sample of this shape.
    #[error(
        "a sample of shape {0:?} can't be encoded as png, which needs 1 or 3 channels; use the format npy, which \
         takes any shape"
    )]
    Shape(Vec<usize>),
    /// The file can't be decoded into the sample that is needed.
    #[error("{0}")]
    Decode(String),
    /// The encoder failed.
    #[error("encoding failed: {0}")]
    Encode(String),
}
