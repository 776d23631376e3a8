//! The pictures that steer a job through ControlNets.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::init_image::Sizes;
use super::{Attachment, Job, JobError, JobLimits, ModelCard, Request};
use crate::image::{ControlPicture, ImageError, Preprocess};
use crate::model::{Control, JobControls};

/// A picture that steers a job, in a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlRequest {
    /// The ControlNet's name: that of its folder, or of its key in `[controlnets]`. Default: the only one.
    pub net: Option<String>,
    /// The picture, of the job's size. An array has float32 values from 0 (black) to 1 (white).
    pub image: Attachment,
    /// What the residuals are multiplied by, 0 to 10. Default: 1.
    pub scale: Option<f64>,
    /// The share of the evaluations before the first one that counts. Default: 0.
    pub start: Option<f64>,
    /// The share of the evaluations after which none counts. Default: 1.
    pub end: Option<f64>,
    /// How the picture is changed.
    pub preprocess: Option<Preprocess>,
    /// Resize a picture of another size.
    pub resize: Option<bool>,
}

/// A valid control of a job.
///
/// A queued job keeps the file instead of the pixels, as it does of an [`InitImage`](super::InitImage).
#[derive(Debug, Clone, PartialEq)]
pub struct ControlChoice {
    /// The index of the ControlNet in the bundle.
    pub net: usize,
    file: Vec<u8>,
    /// The SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
    /// What the ControlNet takes.
    pub picture: ControlPicture,
    /// What the residuals are multiplied by.
    pub scale: f64,
    /// The share of the evaluations before the first one that counts.
    pub start: f64,
    /// The share of the evaluations after which none counts.
    pub end: f64,
}

/// The most controls of a job.
pub(crate) const MAX_CONTROLS: usize = 8;

impl Request {
    /// Validates the controls, which includes decoding their pictures.
    pub(super) fn check_controls(
        &self,
        model: &ModelCard,
        sizes: &Sizes,
        limits: JobLimits,
    ) -> Result<Arc<[ControlChoice]>, JobError> {
        let controls = self.controls.as_deref().unwrap_or_default();
        if controls.len() > MAX_CONTROLS {
            let message =
                format!("controls has {} entries, but a job has at most {MAX_CONTROLS}", controls.len());
            return Err(JobError::out_of_range("controls", message));
        }
        if !controls.is_empty() && model.bundle.controlnets.is_empty() {
            return Err(JobError::out_of_range("controls", without_nets(model)));
        }
        let check = |(index, control): (usize, &ControlRequest)| control.check(index, model, sizes, limits);
        controls.iter().enumerate().map(check).collect()
    }
}

/// Why a job on this model has no controls.
fn without_nets(model: &ModelCard) -> String {
    let (name, folder) = (model.name(), model.bundle.directory().display());
    if model.latent.as_ref().is_none_or(|(kind, _)| !kind.has_unet()) {
        return format!("{name} takes no controls, as only Stable Diffusion 1, 2 and XL do; remove controls");
    }
    let live = match model.signature.live.residuals.is_empty() {
        true => format!("; run `denoised init --live {folder}` too, because its U-Net has no inputs for one"),
        false => String::new(),
    };
    format!(
        "{name} has no ControlNet; put its model.onnx into the folder {folder}/controlnet, or name its folder in \
         denoised.toml: [controlnets] NAME = \"PATH\"{live}"
    )
}

impl ControlRequest {
    fn check(
        &self,
        index: usize,
        model: &ModelCard,
        sizes: &Sizes,
        limits: JobLimits,
    ) -> Result<ControlChoice, JobError> {
        let field = |name: &str| format!("controls[{index}].{name}");
        let net = self.find_net(&field("net"), model)?;
        let number = |name: &str, value: Option<f64>, default: f64, max: f64| {
            let value = value.unwrap_or(default);
            if (0.0..=max).contains(&value) {
                return Ok(value);
            }
            let field = field(name);
            let message = format!("{field} is {value}, but must lie between 0 and {max}");
            Err(JobError::out_of_range(&field, message))
        };
        let scale = number("scale", self.scale, 1.0, 10.0)?;
        let (start, end) = (number("start", self.start, 0.0, 1.0)?, number("end", self.end, 1.0, 1.0)?);
        if start >= end {
            let field = field("start");
            let message = format!("{field} is {start}, but must be less than end, which is {end}");
            return Err(JobError::out_of_range(&field, message));
        }
        let (width, height) = (sizes.image[2], sizes.image[1]);
        let fixed = model.bundle.controlnets[net].io.size;
        if fixed.iter().zip([height, width]).any(|(fixed, own)| fixed.is_some_and(|fixed| fixed != own)) {
            let [h, w] = fixed.map(|side| side.map_or("any".to_owned(), |side| side.to_string()));
            let (field, name) = (field("net"), &model.bundle.controlnets[net].name);
            let message = format!(
                "{field}: the ControlNet {name} only takes pictures of {w}×{h} pixels, but the job has {width}×{height}; \
                 use that size, or export the ControlNet with dynamic axes"
            );
            return Err(JobError::out_of_range(&field, message));
        }
        let image = field("image");
        let file = self.image.to_bytes(&image)?;
        let choice = ControlChoice {
            net,
            sha256: format!("{:x}", Sha256::digest(&file)),
            file,
            picture: ControlPicture {
                size: (width, height),
                preprocess: self.preprocess,
                resize: self.resize.unwrap_or(false),
                max_pixels: limits.pixels,
            },
            scale,
            start,
            end,
        };
        choice.decode(index)?;
        Ok(choice)
    }

    fn find_net(&self, field: &str, model: &ModelCard) -> Result<usize, JobError> {
        let nets = &model.bundle.controlnets;
        let found = match &self.net {
            None if nets.len() == 1 => Some(0),
            None => None,
            Some(name) => nets.iter().position(|net| net.name == *name),
        };
        found.ok_or_else(|| {
            let known: Vec<_> = nets.iter().map(|net| net.name.as_str()).collect();
            let given = self.net.as_ref().map_or("missing".to_owned(), |name| format!("{name:?}"));
            let name = model.name();
            let message =
                format!("{field} is {given}, but the ControlNets of {name} are: {}", known.join(", "));
            JobError::out_of_range(field, message)
        })
    }
}

impl ControlChoice {
    fn decode(&self, index: usize) -> Result<Control, JobError> {
        let picture = self.picture.decode(&self.file).map_err(|error| {
            let field = format!("controls[{index}].image");
            let advice = match error {
                ImageError::PictureSize { .. } => {
                    "; send a picture of this size, or set \"resize\": true in this control of a request or of the file of --job"
                }
                _ => "",
            };
            JobError::out_of_range(&field, format!("{field}: {error}{advice}"))
        })?;
        Ok(Control { net: self.net, picture, scale: self.scale, start: self.start, end: self.end })
    }
}

impl Job {
    /// Decodes the pictures; `None` without any.
    pub(crate) fn decode_controls(&self) -> Result<Option<JobControls>, JobError> {
        let decoded = self.controls.iter().enumerate().map(|(index, control)| control.decode(index));
        let controls = decoded.collect::<Result<Vec<_>, _>>()?;
        // As in diffusers, the first net decides for all.
        let pools = |control: &Control| self.model.bundle.controlnets[control.net].pools;
        let guess_mode = self.guess_mode || controls.first().is_some_and(pools);
        Ok((!controls.is_empty()).then_some(JobControls { controls, guess_mode }))
    }
}
