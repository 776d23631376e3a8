//! Images and arrays to samples: the inverse of [`encode`](super::encode()).

use std::borrow::Cow;
use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Rgb, RgbImage};

use super::decode_array::decode_array;
use super::orientation::orientation;
use super::{ImageError, jpeg_markers, png_chunks, webp_chunks};
use crate::bundle::SampleKind;

/// The sample that a file is decoded into.
#[derive(Debug, Clone, Copy)]
pub struct DecodeTarget<'a> {
    /// The sample's shape.
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
    let DecodeTarget { shape, kind, range: [low, high], max_pixels } = target;
    let (SampleKind::Image, &[channels @ (1 | 3), height, width]) = (kind, shape) else {
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
pub(super) fn decode_rgb(
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
        return Err(fault(format!("the file declares {w}×{h} pixels, more than the limit of {max_pixels}")));
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
        return Err(fault(format!("the image has {w}×{h} pixels{note}, but {width}×{height} are needed")));
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
mod tests {
    use super::super::{png, to_image};
    use super::*;
    use crate::bundle::SampleDescription;

    fn target(shape: &[usize]) -> DecodeTarget<'_> {
        DecodeTarget { shape, kind: SampleKind::Image, range: [-1.0, 1.0], max_pixels: 1000 }
    }

    fn encoded(sample: &[f32], shape: &[usize]) -> Vec<u8> {
        png(&to_image(sample, shape, &SampleDescription::default()).unwrap()).unwrap()
    }

    #[test]
    fn decoding_inverts_encoding_within_8_bits() {
        for shape in [[1, 2, 3], [3, 1, 2]] {
            let sample = [-1.0, -0.5, 0.0, 0.25, 0.5, 1.0];
            let decoded = decode(&encoded(&sample, &shape), target(&shape)).unwrap();
            assert!(sample.iter().zip(&decoded).all(|(a, b)| (a - b).abs() < 1.001 / 255.0), "{decoded:?}");
        }
        let error = decode(&encoded(&[0.0; 2], &[1, 1, 2]), target(&[1, 8, 8])).unwrap_err().to_string();
        assert!(error.contains("2×1 pixels, but 8×8"), "{error}");
    }

    #[test]
    fn an_image_that_declares_too_many_pixels_is_refused_before_decompression() {
        let mut bytes = encoded(&[0.0; 2], &[1, 1, 2]);
        // Width and height in the IHDR chunk, and the chunk's CRC.
        bytes[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
        let bit = |sum: u32| if sum & 1 == 1 { (sum >> 1) ^ 0xEDB8_8320 } else { sum >> 1 };
        let sum =
            bytes[12..29].iter().fold(!0_u32, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |s, _| bit(s)));
        bytes[29..33].copy_from_slice(&(!sum).to_be_bytes());
        let error = decode(&bytes, target(&[1, 8, 8])).unwrap_err().to_string();
        assert!(error.contains("declares 60000×60000 pixels, more than the limit of 1000"), "{error}");
        assert!(decode(b"GIF89a", target(&[1, 8, 8])).is_err());
    }

    #[derive(serde::Deserialize)]
    struct Picture {
        file: String,
        size: [usize; 2],
        rgb: String,
        grey: String,
    }

    #[derive(serde::Deserialize)]
    struct Cut {
        file: String,
        accepted: Vec<usize>,
    }

    fn golden(file: &str) -> Vec<u8> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pictures");
        std::fs::read(folder.join(file)).unwrap()
    }

    /// Decodes a file into bytes, one row of pixels after the other.
    fn bytes_of(file: &[u8], channels: usize, [width, height]: [usize; 2]) -> Result<Vec<u8>, String> {
        let target = DecodeTarget { range: [0.0, 255.0], ..target(&[]) };
        let decoded = decode(file, DecodeTarget { shape: &[channels, height, width], ..target });
        let decoded = decoded.map_err(|error| error.to_string())?;
        let plane = width * height;
        Ok((0..plane * channels)
            .map(|i| decoded[i % channels * plane + i / channels].round() as u8)
            .collect())
    }

    #[test]
    fn pictures_are_oriented_and_converted_as_load_image_does_it() {
        let pictures: Vec<Picture> = serde_json::from_slice(&golden("pictures.json")).unwrap();
        let mut wrong = Vec::new();
        // Pillow cuts the grey levels of 16 bits off at 255, which makes nearly everything white.
        for Picture { file, size, rgb, grey } in
            pictures.into_iter().filter(|case| case.file != "grey-16.png")
        {
            // Decoders of JPEG round differently.
            let tolerance = if file.ends_with(".jpg") { 2 } else { 0 };
            for (channels, expected) in [(3, rgb), (1, grey)] {
                let expected: Vec<u8> = (0..expected.len())
                    .step_by(2)
                    .map(|i| u8::from_str_radix(&expected[i..i + 2], 16).unwrap())
                    .collect();
                match bytes_of(&golden(&file), channels, size) {
                    Ok(found) => {
                        let difference = found.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
                        if difference > Some(tolerance) || found.len() != expected.len() {
                            wrong.push(format!("{file}, {channels} channels: differs by {difference:?}"));
                        }
                    }
                    Err(error) => wrong.push(format!("{file}: {error}")),
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn a_webp_file_is_turned_as_its_exif_data_says_and_refused_if_it_is_cut() {
        // The orientation 6, a quarter turn clockwise.
        let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0".to_vec();
        let mut file = Vec::new();
        let mut encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut file);
        image::ImageEncoder::set_exif_metadata(&mut encoder, exif).unwrap();
        encoder.encode(&[10, 20, 30, 40, 50, 60], 3, 2, image::ExtendedColorType::L8).unwrap();
        assert_eq!(bytes_of(&file, 1, [2, 3]).unwrap(), [40, 10, 50, 20, 60, 30]);
        for length in 0..file.len() {
            assert!(bytes_of(&file[..length], 1, [2, 3]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn grey_levels_of_16_bits_keep_the_upper_8() {
        let levels = [0, 255, 256, 32767, 40000, 65535].map(|level: u16| (level >> 8) as u8);
        assert_eq!(bytes_of(&golden("grey-16.png"), 1, [3, 2]).unwrap(), levels);
    }

    #[test]
    fn a_picture_that_ends_anywhere_is_truncated() {
        let shape = [3, 8, 8];
        let picture = to_image(&[0.5; 192], &shape, &SampleDescription::default()).unwrap();
        let mut jpeg = Vec::new();
        picture.write_to(&mut Cursor::new(&mut jpeg), ImageFormat::Jpeg).unwrap();
        let png = png(&picture).unwrap();
        for (file, lengths) in
            [(&jpeg, vec![20, jpeg.len() / 2, jpeg.len() - 2]), (&png, vec![20, png.len() / 2])]
        {
            for length in lengths {
                let error = decode(&file[..length], target(&shape)).unwrap_err().to_string();
                assert!(
                    error.contains("the file is truncated") && !error.contains('\n'),
                    "{length}: {error}"
                );
            }
        }
        let error = decode(b"GIF", target(&shape)).unwrap_err().to_string();
        assert!(
            error.ends_with("the file is not PNG, JPEG or WebP; send one of these, or a .npy file"),
            "{error}"
        );
    }

    #[test]
    fn cut_files_are_refused_where_pillow_refuses_them() {
        let cuts: Vec<Cut> = serde_json::from_slice(&golden("cuts.json")).unwrap();
        let pictures: Vec<Picture> = serde_json::from_slice(&golden("pictures.json")).unwrap();
        for Cut { file, accepted } in cuts {
            let size = pictures.iter().find(|picture| picture.file == file).unwrap().size;
            let bytes = golden(&file);
            // A PNG file whose orientation is cut off has its sides as they are stored.
            let is_read = |length: &usize| {
                let cut = &bytes[..*length];
                bytes_of(cut, 3, size).is_ok() || bytes_of(cut, 3, [size[1], size[0]]).is_ok()
            };
            let found: Vec<_> = (0..=bytes.len()).filter(is_read).collect();
            // Pillow also reads a PNG file without the checksums of its last pixels.
            let pixels_end = bytes.windows(4).position(|kind| kind == b"IDAT").map_or(0, |start| start + 37);
            let accepted: Vec<_> = accepted.into_iter().filter(|length| *length >= pixels_end).collect();
            assert_eq!(found, accepted, "{file}");
        }
    }

    #[test]
    fn a_damaged_chunk_is_named_without_a_rust_type() {
        let mut file = Vec::new();
        let picture = image::RgbImage::from_pixel(4, 4, image::Rgb([200, 10, 30]));
        picture.write_to(&mut Cursor::new(&mut file), ImageFormat::Png).unwrap();
        let name = file.windows(4).position(|bytes| bytes == b"IDAT").unwrap();
        let len = u32::from_be_bytes(file[name - 4..name].try_into().unwrap()) as usize;
        let damaged = |at: usize| {
            let mut file = file.clone();
            file[at] ^= 0xff;
            let target = DecodeTarget {
                shape: &[3, 4, 4],
                kind: SampleKind::Image,
                range: [-1.0, 1.0],
                max_pixels: 1000,
            };
            decode(&file, target).unwrap_err().to_string()
        };
        let stream = damaged(name + 6);
        assert_eq!(stream, "the file is damaged: Corrupt deflate stream");
        let sum = damaged(name + 4 + len);
        assert!(sum.ends_with("while decoding IDAT chunk."), "{sum}");
    }
}
