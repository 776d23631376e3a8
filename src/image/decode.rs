//! Images and arrays to samples: the inverse of [`encode`](super::encode()).

use std::borrow::Cow;
use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Rgb, RgbImage};

use super::decode_array::decode_array;
use super::orientation::orientation;
use super::{ImageError, jpeg_markers, png_chunks, webp_chunks};
use crate::bundle::SampleKind;

/// What the picture in a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// An image.
    Image,
    /// The mask of an image, which has one channel in all files but arrays.
    Mask,
}

/// The sample that a file is decoded into.
#[derive(Debug, Clone, Copy)]
pub struct DecodeTarget<'a> {
    /// What the file contains.
    pub content: Content,
    /// The image's shape.
    pub shape: &'a [usize],
    /// The sample's kind.
    pub kind: SampleKind,
    /// The values of black and white.
    pub range: [f32; 2],
    /// An image that declares more pixels is refused before it is decompressed.
    pub max_pixels: u64,
}

/// Decodes a PNG, JPEG or WebP image, or a NumPy array of float32 values in the target's range.
///
/// An image is turned as its EXIF data says, and loses its transparency, as `load_image` of diffusers does it.
pub fn decode(bytes: &[u8], target: DecodeTarget<'_>) -> Result<Vec<f32>, ImageError> {
    if bytes.starts_with(b"\x93NUMPY") { decode_array(bytes, target) } else { decode_image(bytes, target) }
}

fn decode_image(bytes: &[u8], target: DecodeTarget<'_>) -> Result<Vec<f32>, ImageError> {
    let DecodeTarget { content, shape, kind, range: [low, high], max_pixels } = target;
    let channels = if content == Content::Mask { 1 } else { shape.first().copied().unwrap_or_default() };
    let (SampleKind::Image, 1 | 3, &[_, height, width]) = (kind, channels, shape) else {
        let message = format!("a sample of shape {shape:?} can't be decoded from an image; send a .npy file");
        return Err(ImageError::Decode(message));
    };
    let pixels = decode_rgb(bytes, Some((width, height)), max_pixels)?;
    let value = |byte: u8| low + f32::from(byte) / 255.0 * (high - low);
    if channels == 1 {
        return Ok(pixels.pixels().map(|pixel| value(luma(pixel.0))).collect());
    }
    Ok((0..3).flat_map(|channel| pixels.pixels().map(move |pixel| value(pixel.0[channel]))).collect())
}

/// Decodes a PNG, JPEG or WebP image of this width and height, or of any.
pub(crate) fn decode_rgb(
    bytes: &[u8],
    size: Option<(usize, usize)>,
    max_pixels: u64,
) -> Result<RgbImage, ImageError> {
    let fault = |reason: String| ImageError::Decode(reason);
    let truncated = || {
        let length = bytes.len();
        fault(format!(
            "the file is truncated: its {length} bytes lack the end of the image; send the whole file"
        ))
    };
    if bytes.is_empty() {
        return Err(fault("it is empty; send a PNG, JPEG, WebP or .npy file".to_owned()));
    }
    let format = image::guess_format(bytes).ok();
    let file = match format {
        Some(ImageFormat::Png) => png_chunks::with_end(bytes).ok_or_else(truncated)?,
        _ => Cow::Borrowed(bytes),
    };
    let mut reader = ImageReader::new(Cursor::new(&*file));
    if let Some(format) = format {
        reader.set_format(format);
    }
    // Checked before decompression: a small file may declare any size.
    let decoder = reader.into_decoder().map_err(|error| match format {
        // Its first bytes are those of a picture, so that the rest is missing or damaged.
        Some(ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP) => match ends_early(&error) {
            true => truncated(),
            false => fault(format!("the file is damaged: {}", one_line(&error))),
        },
        _ => fault("the file is not PNG, JPEG or WebP; send one of these, or a .npy file".to_owned()),
    })?;
    let (w, h) = decoder.dimensions();
    if u64::from(w) * u64::from(h) > max_pixels {
        return Err(fault(format!(
            "the file declares {w}×{h} pixels, but at most {max_pixels} are taken (limits.pixels); send a smaller picture"
        )));
    }
    let orientation = orientation(bytes);
    let (w, h) = if swaps_sides(orientation) { (h, w) } else { (w, h) };
    if let Some((width, height)) = size
        && (w as usize, h as usize) != (width, height)
    {
        let note = if orientation == Orientation::NoTransforms {
            ""
        } else {
            " in the orientation of its EXIF data"
        };
        return Err(ImageError::PictureSize { found: [w, h], needed: [width, height], note });
    }
    let is_whole = match format {
        // The decoder fills the missing part with grey.
        Some(ImageFormat::Jpeg) => jpeg_markers::has_end(bytes),
        Some(ImageFormat::WebP) => webp_chunks::is_whole(bytes),
        _ => true,
    };
    if !is_whole {
        return Err(truncated());
    }
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| match ends_early(&error) {
        true => truncated(),
        false => fault(format!("the file is damaged: {}", one_line(&error))),
    })?;
    image.apply_orientation(orientation);
    Ok(to_rgb8(image))
}

/// Returns whether a decoder met the end of the file.
fn ends_early(error: &image::ImageError) -> bool {
    let text = error.to_string().to_lowercase();
    ["unexpected end", "end of file", "no more bytes", "failed to fill", "enough bytes", "eof"]
        .iter()
        .any(|end| text.contains(end))
}

/// What the decoder of PNG reports about a damaged stream, before the name of a Rust value.
const DAMAGED_STREAM: &str = "Corrupt deflate stream";

/// The text of a decoder's error without line breaks and without the names of Rust types and values.
fn one_line(error: &image::ImageError) -> String {
    let text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    // "Format error decoding Png: " is the library's own beginning.
    let format = text.strip_prefix("Format error decoding ").and_then(|rest| rest.split_once(": "));
    let text = format.map_or(text.clone(), |(_, reason)| reason.to_owned());
    if let Some(at) = text.find(DAMAGED_STREAM) {
        return text[..at + DAMAGED_STREAM.len()].to_owned();
    }
    let with_chunk_name = text.split_once("ChunkType { type: ").and_then(|(before, chunk)| {
        let (chunk, after) = chunk.split_once(" }")?;
        let name = chunk.split(',').next()?;
        Some(format!("{before}{name}{after}"))
    });
    with_chunk_name.unwrap_or(text)
}

/// Returns whether an orientation turns the picture by a quarter.
fn swaps_sides(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    )
}

/// The colours without transparency, in 8 bits. Of 16 bits, Pillow keeps the upper ones.
fn to_rgb8(image: DynamicImage) -> RgbImage {
    if image.color().bytes_per_pixel() / image.color().channel_count() == 1 {
        return image.into_rgb8();
    }
    let wide = image.into_rgb16();
    RgbImage::from_fn(wide.width(), wide.height(), |x, y| {
        Rgb(wide.get_pixel(x, y).0.map(|value| (value >> 8) as u8))
    })
}

/// The grey level of a colour as Pillow computes it (ITU-R BT.601).
pub(super) fn luma([red, green, blue]: [u8; 3]) -> u8 {
    let sum = u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471 + 0x8000;
    (sum >> 16) as u8
}

#[cfg(test)]
mod tests;
