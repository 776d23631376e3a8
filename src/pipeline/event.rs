//! Events of a job, from its first evaluation to its last image.

use crate::job::JobError;
use crate::job::receipt::Receipt;
use crate::tensor::Tensor;

/// An event of a job. `I` is the type of its images: a [`Sample`] where the pipeline reports it,
/// encoded bytes where it is published.
#[derive(Debug, Clone)]
pub enum JobEvent<I> {
    /// Model evaluations were completed.
    Progress {
        /// Completed evaluations, averaged over the job's images.
        step: usize,
        /// Evaluations that each image takes.
        of: usize,
        /// The estimated remaining time in milliseconds.
        eta_ms: u64,
    },
    /// An intermediate x̂_0 of an image.
    Preview {
        /// The image's index in the job.
        index: usize,
        /// The preview.
        image: I,
    },
    /// An image is finished.
    Image {
        /// How it was made.
        receipt: Box<Receipt>,
        /// The image.
        image: I,
    },
    /// All images of the job are finished.
    Finished {
        /// Time since the job was accepted, in milliseconds.
        elapsed_ms: u64,
    },
    /// The job ended before all of its images were finished.
    Failed(JobError),
}

/// An image before it is encoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The sample, or the picture decoded from it if the model works in latent space.
    pub picture: Tensor,
    /// The sample before VAE decoding, if the model works in latent space.
    pub latents: Option<Vec<f32>>,
}
