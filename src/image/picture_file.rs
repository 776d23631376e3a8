//! Writes the files of pictures, with texts about how they were made.

use std::borrow::Cow;

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageEncoder};
use image_webp::WebPEncoder;

use super::embedded_text::{EmbeddedText, PARAMETERS_KEYWORD, RECEIPT_KEYWORD};
use super::jpeg_markers::{MAX_PAYLOAD, end_of_headers};
use super::metadata::{EXIF_PREFIX, XMP_PREFIX};
use super::user_comment::with_user_comment;
use super::xmp::with_receipt;

/// The marker of a segment with EXIF data or XMP.
const APP1: u8 = 0xe1;

/// Writes a PNG file. Its texts are before the pixels, so that programs find them without decoding the picture.
pub(super) fn png(image: &DynamicImage, text: Option<&EmbeddedText>) -> Result<Vec<u8>, String> {
    let (pixels, is_gray) = pixels(image);
    let mut bytes = buffer(&pixels);
    let mut encoder = png::Encoder::new(&mut bytes, image.width(), image.height());
    encoder.set_color(if is_gray { png::ColorType::Grayscale } else { png::ColorType::Rgb });
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    encoder.set_filter(png::Filter::Adaptive);
    let write = || {
        if let Some(EmbeddedText { parameters, receipt }) = text {
            encoder.add_itxt_chunk(PARAMETERS_KEYWORD.to_owned(), parameters.clone())?;
            encoder.add_itxt_chunk(RECEIPT_KEYWORD.to_owned(), receipt.clone())?;
        }
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&pixels)?;
        writer.finish()
    };
    write().map_err(|error: png::EncodingError| error.to_string())?;
    Ok(bytes)
}

/// Writes a JPEG file. A text that is too long for a segment is left out.
pub(super) fn jpeg(
    image: &DynamicImage,
    quality: u8,
    text: Option<&EmbeddedText>,
) -> Result<Vec<u8>, String> {
    let (pixels, is_gray) = pixels(image);
    let mut bytes = buffer(&pixels);
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
    let exif = text.map(|text| with_user_comment(&text.parameters));
    if let Some(exif) = exif.filter(|exif| EXIF_PREFIX.len() + exif.len() <= MAX_PAYLOAD) {
        encoder.set_exif_metadata(exif).map_err(|error| error.to_string())?;
    }
    let color = if is_gray { image::ExtendedColorType::L8 } else { image::ExtendedColorType::Rgb8 };
    encoder.write_image(&pixels, image.width(), image.height(), color).map_err(|error| error.to_string())?;
    let xmp = text.map(|text| [XMP_PREFIX, with_receipt(&text.receipt).as_bytes()].concat());
    if let Some(xmp) = xmp.filter(|xmp| xmp.len() <= MAX_PAYLOAD) {
        let length = (xmp.len() as u16 + 2).to_be_bytes();
        let start = end_of_headers(&bytes);
        bytes.splice(start..start, [0xff, APP1].into_iter().chain(length).chain(xmp));
    }
    Ok(bytes)
}

/// Writes a lossless WebP file.
pub(super) fn webp(image: &DynamicImage, text: Option<&EmbeddedText>) -> Result<Vec<u8>, String> {
    let (pixels, is_gray) = pixels(image);
    let mut bytes = buffer(&pixels);
    let mut encoder = WebPEncoder::new(&mut bytes);
    if let Some(EmbeddedText { parameters, receipt }) = text {
        encoder.set_exif_metadata(with_user_comment(parameters));
        encoder.set_xmp_metadata(with_receipt(receipt).into_bytes());
    }
    let color = if is_gray { image_webp::ColorType::L8 } else { image_webp::ColorType::Rgb8 };
    encoder.encode(&pixels, image.width(), image.height(), color).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// The pixels, and whether they have one byte instead of three.
fn pixels(image: &DynamicImage) -> (Cow<'_, [u8]>, bool) {
    match image {
        DynamicImage::ImageLuma8(gray) => (Cow::Borrowed(gray.as_raw()), true),
        DynamicImage::ImageRgb8(rgb) => (Cow::Borrowed(rgb.as_raw()), false),
        other => (Cow::Owned(other.to_rgb8().into_raw()), false),
    }
}

/// A buffer that few pictures outgrow.
fn buffer(pixels: &[u8]) -> Vec<u8> {
    Vec::with_capacity(pixels.len())
}

#[cfg(test)]
mod tests {
    use image::metadata::Orientation;
    use image::{GrayImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};

    use super::*;
    use crate::image::orientation::orientation;

    fn text() -> EmbeddedText {
        let parameters = "Füchse 🦊\nSteps: 2, Sampler: ddim".to_owned();
        EmbeddedText { parameters, receipt: r#"{"prompt": "a <fox> & tiff:Orientation=\"6\""}"#.to_owned() }
    }

    fn images() -> [DynamicImage; 2] {
        let value = |x: u32, y: u32| (x * 40 + y * 7) as u8;
        let gray = GrayImage::from_fn(5, 3, |x, y| image::Luma([value(x, y)]));
        let rgb = RgbImage::from_fn(3, 5, |x, y| image::Rgb([value(x, y), value(y, x), 9]));
        [gray.into(), rgb.into()]
    }

    type Write = fn(&DynamicImage, Option<&EmbeddedText>) -> Result<Vec<u8>, String>;
    const FORMATS: [(ImageFormat, Write); 3] = [
        (ImageFormat::Png, png),
        (ImageFormat::Jpeg, |image, text| jpeg(image, 90, text)),
        (ImageFormat::WebP, webp),
    ];

    #[test]
    fn texts_are_read_as_written_and_change_no_pixel() {
        for image in images() {
            for (format, write) in FORMATS {
                let (plain, with_text) =
                    (write(&image, None).unwrap(), write(&image, Some(&text())).unwrap());
                assert_eq!(EmbeddedText::read(&plain), None, "{format:?}");
                assert_eq!(EmbeddedText::read(&with_text), Some(text()), "{format:?}");
                let decode = |file: &[u8]| image::load_from_memory_with_format(file, format).unwrap();
                assert_eq!(decode(&plain), decode(&with_text), "{format:?}");
                assert_eq!(orientation(&with_text), Orientation::NoTransforms);
            }
        }
    }

    #[test]
    fn decoders_of_other_crates_find_the_texts() {
        for (format, write) in FORMATS {
            let file = write(&images()[1], Some(&text())).unwrap();
            let cursor = std::io::Cursor::new(&file);
            if format == ImageFormat::Png {
                let reader = png::Decoder::new(cursor).read_info().unwrap();
                let found = reader.info().utf8_text.iter().map(|chunk| {
                    assert!(!chunk.compressed);
                    (chunk.keyword.clone(), chunk.get_text().unwrap())
                });
                let EmbeddedText { parameters, receipt } = text();
                let expected = [("parameters", parameters), ("denoised_receipt", receipt)];
                assert_eq!(found.collect::<Vec<_>>(), expected.map(|(key, text)| (key.to_owned(), text)));
                continue;
            }
            let mut decoder = ImageReader::with_format(cursor, format).into_decoder().unwrap();
            assert_eq!(decoder.xmp_metadata().unwrap().unwrap(), with_receipt(&text().receipt).into_bytes());
            assert_eq!(decoder.exif_metadata().unwrap().unwrap(), with_user_comment(&text().parameters));
        }
    }

    #[test]
    fn a_text_that_is_too_long_for_jpeg_is_left_out() {
        let long = EmbeddedText { parameters: "a".repeat(40_000), receipt: "b".repeat(70_000) };
        let image = &images()[0];
        let file = jpeg(image, 90, Some(&long)).unwrap();
        assert_eq!(file, jpeg(image, 90, None).unwrap());
        for (format, write) in [FORMATS[0], FORMATS[2]] {
            let file = write(image, Some(&long)).unwrap();
            assert_eq!(EmbeddedText::read(&file), Some(long.clone()), "{format:?}");
        }
    }

    #[test]
    fn a_file_that_is_cut_off_or_changed_never_panics() {
        for (format, write) in FORMATS {
            let file = write(&images()[0], Some(&text())).unwrap();
            for length in 0..file.len() {
                EmbeddedText::read(&file[..length]);
                let mut changed = file.clone();
                changed[length] ^= 0xff;
                EmbeddedText::read(&changed);
            }
            assert!(EmbeddedText::read(&file).is_some(), "{format:?}");
        }
    }
}
