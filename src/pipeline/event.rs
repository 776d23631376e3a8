//! What a pipeline tells while it works.

use crate::job::receipt::Receipt;
use crate::job::{Job, JobError};

/// What happened to a job between two evaluations.
#[derive(Debug)]
pub enum Event<'a> {
    /// So many of the job's evaluations are done, averaged over its images.
    Progress {
        /// The job.
        job: &'a Job,
        /// Evaluations done.
        step: usize,
        /// Evaluations in all.
        of: usize,
        /// The milliseconds that the rest will take at the present pace.
        eta_ms: u64,
    },
    /// The present x̂_0 of an image.
    Preview {
        /// The job.
        job: &'a Job,
        /// The image.
        index: usize,
        /// The sample, or the picture [3, H, W] in −1..1 that latents look like.
        x0: &'a [f32],
        /// Its axes.
        shape: &'a [usize],
    },
    /// An image is finished.
    Image {
        /// The job.
        job: &'a Job,
        /// How it was made.
        receipt: Box<Receipt>,
        /// The sample, or the picture that was decoded from it.
        sample: Vec<f32>,
        /// The sample before it was decoded, where it was.
        latents: Option<Vec<f32>>,
    },
    /// All of a job's images are finished.
    Finished {
        /// The job.
        job: &'a Job,
        /// The time from its acceptance to now.
        elapsed_ms: u64,
    },
    /// The job ended without all of its images.
    Failed {
        /// The job.
        job: &'a Job,
        /// Why.
        error: JobError,
    },
}
