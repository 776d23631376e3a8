//! How a picture was made, as texts in its file.
//!
//! PNG has two texts (iTXt), `parameters` and `denoised_receipt`. JPEG and WebP have the parameters in the EXIF tag
//! UserComment, where other programs look for them, and the receipt in XMP.

use super::metadata::{Metadata, png_text};
use super::{user_comment, xmp};

/// The keyword of the parameters in a PNG file.
pub(super) const PARAMETERS_KEYWORD: &str = "parameters";
/// The keyword of the receipt in a PNG file.
pub(super) const RECEIPT_KEYWORD: &str = "denoised_receipt";

/// How a picture was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedText {
    /// The settings as AUTOMATIC1111's web UI writes them.
    pub parameters: String,
    /// The receipt in JSON.
    pub receipt: String,
}

impl EmbeddedText {
    /// Reads the texts of a PNG, JPEG or WebP file. Returns `None` for a picture without a receipt, and for other files.
    pub fn read(file: &[u8]) -> Option<Self> {
        if file.starts_with(b"\x89PNG") {
            let text = |keyword| String::from_utf8(png_text(file, keyword)?).ok();
            let receipt = text(RECEIPT_KEYWORD)?;
            return Some(Self { parameters: text(PARAMETERS_KEYWORD).unwrap_or_default(), receipt });
        }
        let Metadata { exif, xmp } = Metadata::read(file);
        let receipt = xmp::receipt(&xmp?)?;
        let parameters = exif.and_then(|exif| user_comment::user_comment(&exif)).unwrap_or_default();
        Some(Self { parameters, receipt })
    }
}
