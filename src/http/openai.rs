//! OpenAI's image API: its requests become jobs, and answers of jobs become its responses.

mod fields;
mod form;
mod job;

pub(super) use form::{Form, FormPart, fields_of_form};
pub(super) use job::{ImageJob, JobContext, fields_of_json, to_job};

/// The seconds since 1970, which responses have. A board without a clock may boot in the past; nothing here depends on it.
pub(super) fn unix_time() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_secs())
}
